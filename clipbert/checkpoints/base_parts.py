"""Start clipbert-base from trained parts: a ResNet of torchvision's, a BERT; the rest at random."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipbert.checkpoints.card import ModelCard
from clipbert.checkpoints.folder import Checkpoint
from clipbert.checkpoints.trained_parts import TrainedPart, read_bert, read_torchvision_resnet
from clipbert.errors import CheckpointError
from clipbert.model.config import ClipBertConfig, HeadConfig
from clipbert.model.head_names import HeadName
from clipbert.model.text import TextTokenizer

_NUM_OUTPUTS = {"retrieval": 2, "multiple_choice": 1, "count": 1, "pretraining": 2}
# What is drawn at random unless a part brings it, by the beginnings of its names.
_PARTS = {
    "backbone.": "the ResNet",
    "grid_encoder.": "the grid encoder",
    "text_embeddings.": "the text embeddings",
    "visual_embeddings.": "the visual embeddings",
    "cross_encoder.": "the cross-encoder",
}


@dataclass(frozen=True)
class StartedModel:
    """A model started from parts.

    Attributes:
        checkpoint: float32, in eval mode, with its tokenizer if there is one.
        card: says what came from where; for write_model_folder.
    """

    checkpoint: Checkpoint
    card: ModelCard


def start_base(
    *,
    resnet: Path | None = None,
    bert: Path | None = None,
    heads: Sequence[HeadName] = ("retrieval",),
    answers: Sequence[str] = (),
    tokenizer: TextTokenizer | None = None,
    config: ClipBertConfig | None = None,
    seed: int = 0,
) -> StartedModel:
    """Make a model of the paper's kind of the parts that there are; the rest is random.

    With torchvision's ResNet the model reads RGB with torchvision's mean and deviation, and halves
    the picture in 3x3 convolutions. A BERT that predicts masked words also gives a pretraining head
    its part for words.

    Args:
        resnet: state dict of a torchvision ResNet-50, as torch.save or safetensors wrote it.
        bert: folder of a transformers BERT, see read_bert.
        heads: the model's heads; they still have to be trained.
        answers: for a qa head, what its outputs mean.
        tokenizer: instead of the BERT's. Without either the model cannot read texts.
        config: sizes of what no file gives; None for clipbert-base.
        seed: for what is random.

    Returns:
        The model and its card.

    Raises:
        CheckpointError: a file cannot be read, or a weight is unknown, missing or misshapen; the
            tokenizer has more tokens than there are word embeddings.
        ConfigError: the parts, or heads and answers, do not fit each other.
    """
    parts = []
    if resnet is not None:
        parts.append(read_torchvision_resnet(resnet))
    if bert is not None:
        parts.append(read_bert(bert, with_words="pretraining" in heads))
        tokenizer = tokenizer or parts[-1].tokenizer
    config = config or ClipBertConfig.preset("clipbert-base")
    if tokenizer is not None:
        config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    config = _join(config, parts, heads=heads, answers=answers)
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the BERT has embeddings of "
            f"{config.vocab_size}"
        )
    for part in parts:
        part.weights.check(config, parts=part.prefixes)
    created = Checkpoint.create(config, seed=seed)
    network = created.network.eval()
    for part in parts:
        network.load_state_dict(dict(part.weights.tensors), strict=False)
    return StartedModel(Checkpoint(network, tokenizer or created.tokenizer), _card(config, parts))


def _join(
    config: ClipBertConfig,
    parts: Sequence[TrainedPart],
    *,
    heads: Sequence[HeadName],
    answers: Sequence[str],
) -> ClipBertConfig:
    fields = {name: value for part in parts for name, value in part.fields.items()}
    longest = fields.get("num_positions", config.num_positions)
    return dataclasses.replace(
        config,
        **fields,
        max_text_tokens=min(config.max_text_tokens, longest),
        heads=tuple(HeadConfig(name, _NUM_OUTPUTS.get(name, len(answers))) for name in heads),
        trained_heads=(),
        answers=tuple(answers),
    )


def _card(config: ClipBertConfig, parts: Sequence[TrainedPart]) -> ModelCard:
    brought = {prefix for part in parts for prefix in part.prefixes}
    random = [name for prefix, name in _PARTS.items() if prefix not in brought]
    has_words = any(prefix.startswith("heads.pretraining.") for prefix in brought)
    names = {head.name: f"the {head.name} head" for head in config.heads}
    if has_words:
        names["pretraining"] = "the match output of the pretraining head"
    skipped: dict[str, int] = {}
    for part in parts:
        skipped |= part.skipped
    return ModelCard(
        summary="A CLIPBERT started from parts that were trained apart. It has yet to be trained.",
        sources=tuple(part.source for part in parts),
        skipped=skipped,
        random=(*random, *names.values()),
    )
