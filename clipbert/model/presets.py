"""The named configurations, as config.json would say them: what ClipBertConfig.preset() reads.

Fields that are left out have the values of the class, which are the paper's.
"""

from collections.abc import Mapping
from typing import Any

_TINY_ANSWERS = ("yes", "no", "red", "green", "blue", "one", "two", "three")

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The paper's sizes, with the head of its retrieval configurations.
    "clipbert-base": {"heads": [{"name": "retrieval", "num_outputs": 2}]},
    # EfficientNet-Lite0 and all-MiniLM-L6-v2, joined without training.
    "clipbert-mini": {
        "max_side_px": 448,
        "mean": [127.0, 127.0, 127.0],
        "std": [128.0, 128.0, 128.0],
        "channel_order": "rgb",
        "backbone": {"kind": "timm", "timm_model": "tf_efficientnet_lite0"},
        "grid_encoder": {"kind": "class_mixture", "num_classes": 1000},
        "hidden_size": 384,
        "num_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "max_text_tokens": 128,
        "recall": "zero_shot",
        "recall_likeliest": 20,
    },
    # Made from scratch in a moment, with every head, for tests.
    "clipbert-tiny": {
        "max_side_px": 128,
        "backbone": {"stem_channels": 8, "width": 4},
        "hidden_size": 48,
        "num_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": 141,  # TextTokenizer.from_characters()
        "num_positions": 64,
        "max_text_tokens": 64,
        "num_rows": 12,
        "num_cols": 12,
        "heads": [
            {"name": "retrieval", "num_outputs": 2},
            {"name": "qa", "num_outputs": len(_TINY_ANSWERS)},
            {"name": "multiple_choice", "num_outputs": 1},
        ],
        "answers": list(_TINY_ANSWERS),
    },
}
