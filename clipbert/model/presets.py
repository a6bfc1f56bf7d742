"""The named configurations: what ClipBertConfig.preset() gives."""

from collections.abc import Callable

from clipbert.model.config import BackboneConfig, ClipBertConfig, GridEncoderConfig, HeadConfig


def _base() -> ClipBertConfig:
    """Give the paper's sizes, with the head of its retrieval configurations."""
    return ClipBertConfig(heads=(HeadConfig("retrieval", 2),))


def _mini() -> ClipBertConfig:
    """Give EfficientNet-Lite0 and all-MiniLM-L6-v2, joined without training."""
    return ClipBertConfig(
        max_side_px=448,
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        channel_order="rgb",
        backbone=BackboneConfig(kind="timm", timm_model="tf_efficientnet_lite0"),
        grid_encoder=GridEncoderConfig(kind="class_mixture", num_classes=1000),
        hidden_size=384,
        num_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        max_text_tokens=128,
        recall="zero_shot",
        recall_likeliest=20,
    )


def _tiny() -> ClipBertConfig:
    """Give a model that is made from scratch in a moment, with every head, for tests."""
    answers = ("yes", "no", "red", "green", "blue", "one", "two", "three")
    return ClipBertConfig(
        max_side_px=128,
        backbone=BackboneConfig(stem_channels=8, width=4),
        hidden_size=48,
        num_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        vocab_size=141,  # TextTokenizer.from_characters()
        num_positions=64,
        max_text_tokens=64,
        num_rows=12,
        num_cols=12,
        heads=(
            HeadConfig("retrieval", 2),
            HeadConfig("qa", len(answers)),
            HeadConfig("multiple_choice", 1),
        ),
        answers=answers,
    )


PRESETS: dict[str, Callable[[], ClipBertConfig]] = {
    "clipbert-base": _base,
    "clipbert-mini": _mini,
    "clipbert-tiny": _tiny,
}
