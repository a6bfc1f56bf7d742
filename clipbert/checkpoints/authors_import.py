"""The authors' checkpoints -> our model, strictly.

Their file is a plain dict of tensors, and half of what is in it is never used: the detector that
the CNN was trained in, a position table. Those groups are skipped by name and reported; any other
key must find its place, and every place its key.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from clipbert.checkpoints.authors_names import (
    CLASSIFIER_GROUP,
    PRETRAINING_GROUP,
    REGRESSOR_GROUP,
    head_group,
    rename_authors_keys,
    to_authors_name,
    unwrapped,
)
from clipbert.checkpoints.authors_settings import AuthorsDataSet, AuthorsSettings, doubts
from clipbert.checkpoints.card import ModelCard, SourceFile
from clipbert.checkpoints.folder import Checkpoint, build_from_state, first_few
from clipbert.checkpoints.foreign import ForeignWeights
from clipbert.checkpoints.new_folder import refuse_filled_folder, write_model_folder
from clipbert.checkpoints.tensor_files import read_tensors
from clipbert.errors import CheckpointError, ConfigError
from clipbert.model.config import Aggregation, ClipBertConfig, HeadConfig
from clipbert.model.head_names import HeadName
from clipbert.model.network import Network
from clipbert.model.text import TextTokenizer

_UNUSED_ANSWERS = "transformer.classifier outputs without an answer"
_QA_OUTPUT = "heads.qa.output"
_PRETRAINING_OUTPUTS = 2
_OUTPUTS: dict[HeadName, tuple[int, ...]] = {
    "retrieval": (2, 1),
    "multiple_choice": (1,),
    "count": (1,),
}
_UNWRAPPED = "the prefix module. of all keys was taken away: it was saved within DataParallel"
_LIKELY = {1: "multiple choice (or retrieval by ranking)", 2: "retrieval"}
_ANSWERS_CURE = (
    "give those of the data set that it was trained on, in their order (its ans2label file)"
)


@dataclass(frozen=True)
class AuthorsWeights:
    """What an authors' checkpoint holds, in our terms.

    Attributes:
        config: of the model.
        tensors: every weight by our name, of the file's dtype; may be mapped from the file.
        skipped: numbers of elements that were left out on purpose, by group of keys.
        notices: what whoever imports it should know, as sentences.
    """

    config: ClipBertConfig
    tensors: dict[str, Tensor]
    skipped: dict[str, int]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class ImportedCheckpoint:
    """An authors' checkpoint as our model.

    Attributes:
        network: float32, in eval mode; their files hold no tokenizer.
        skipped: numbers of elements that were left out on purpose, by group of keys.
        notices: what whoever imports it should know, as sentences.
    """

    network: Network
    skipped: dict[str, int]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """An authors' checkpoint as a model folder.

    Attributes:
        config: of the model.
        skipped: numbers of elements that were left out on purpose, by group of keys.
        source: the checkpoint's name, size and hash.
        notices: what whoever imports it should know, as sentences.
    """

    config: ClipBertConfig
    skipped: dict[str, int]
    source: SourceFile
    notices: tuple[str, ...]


def import_authors_checkpoint(
    path: Path,
    *,
    head: HeadName,
    answers: Sequence[str] = (),
    settings: AuthorsSettings | None = None,
    data_set: AuthorsDataSet | None = None,
) -> ImportedCheckpoint:
    """Read a checkpoint that the authors' code wrote, and make a model of it.

    Arguments and errors are those of read_authors_checkpoint. Nothing in the file is run, and the
    model no longer needs it.
    """
    read = read_authors_checkpoint(
        path, head=head, answers=answers, settings=settings, data_set=data_set
    )
    tensors = {name: tensor.clone() for name, tensor in read.tensors.items()}
    return ImportedCheckpoint(
        build_from_state(read.config, tensors, source=str(path)), read.skipped, read.notices
    )


def convert_authors_checkpoint(
    path: Path,
    folder: Path,
    *,
    head: HeadName,
    answers: Sequence[str] = (),
    settings: AuthorsSettings | None = None,
    data_set: AuthorsDataSet | None = None,
    tokenizer: TextTokenizer | None = None,
    dtype: torch.dtype = torch.float32,
) -> ConvertedCheckpoint:
    """Make a model folder of a checkpoint that the authors' code wrote, with a model card.

    Takes little more memory than the model itself. On an error nothing is written.

    Args:
        path: their .pt file.
        folder: where the model goes; must not exist, or be empty.
        head: as for read_authors_checkpoint.
        answers: as for read_authors_checkpoint.
        settings: as for read_authors_checkpoint.
        data_set: as for read_authors_checkpoint.
        tokenizer: saved with the model; their files hold none.
        dtype: of the saved weights, float32 or float16.

    Returns:
        What was made.

    Raises:
        CheckpointError: as read_authors_checkpoint; the folder is not empty; the tokenizer has
            another number of tokens than the model; float16 cannot hold a weight.
        ConfigError: as read_authors_checkpoint.
    """
    refuse_filled_folder(folder)
    read = read_authors_checkpoint(
        path, head=head, answers=answers, settings=settings, data_set=data_set
    )
    if tokenizer is not None and tokenizer.vocab_size != read.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model has embeddings of "
            f"{read.config.vocab_size}: give the one that it was trained with"
        )
    network = build_from_state(read.config, read.tensors, source=str(path))
    source = SourceFile.of("checkpoint of the authors' code", path)
    card = ModelCard(
        summary=f"A CLIPBERT of its authors' code, imported for {head}.",
        sources=(source,),
        skipped=read.skipped,
    )
    write_model_folder(Checkpoint(network, tokenizer), folder, card=card, dtype=dtype)
    return ConvertedCheckpoint(read.config, read.skipped, source, read.notices)


def read_authors_checkpoint(
    path: Path,
    *,
    head: HeadName,
    answers: Sequence[str] = (),
    settings: AuthorsSettings | None = None,
    data_set: AuthorsDataSet | None = None,
) -> AuthorsWeights:
    """Read a checkpoint that the authors' code wrote.

    Sizes are read from the weights' shapes; what a weight does not show is an argument.

    Args:
        path: their .pt file: a pretrained one, or one finetuned for a task.
        head: "pretraining", or the task that it was finetuned for.
        answers: for "qa", the texts of the outputs, in their order. Their output layer may be
            longer than the vocabulary (at least 1500); outputs without an answer are cut off.
        settings: what the checkpoint does not tell; None for the paper's, with the mean over clips
            for a retrieval head of 1 output.
        data_set: which one it was trained on, if that is known: its settings are taken, or those
            given are compared with them.

    Returns:
        The weights, which may be mapped from the file: it must not change while they are in use.

    Raises:
        CheckpointError: the file is not a dict of tensors, is for another task, or a key is
            unknown, missing or misshapen; the first few are named. A tied weight differs from its
            twin.
        ConfigError: a setting does not fit the weights.
    """
    source = str(path)
    theirs, was_wrapped = unwrapped(read_tensors(path))
    _check_kind(theirs, head=head, source=source)
    ours, skipped = rename_authors_keys(theirs, head=head, source=source)

    def name_of(name: str) -> str:
        return to_authors_name(name, head=head) or name

    outputs = num_outputs = _PRETRAINING_OUTPUTS
    if head != "pretraining":
        named = f"heads.{head}.output.weight"
        outputs = num_outputs = ForeignWeights(ours, name_of, source).num_rows(named)
        _check_outputs(outputs, head=head, num_answers=len(answers), source=source)
    if head == "qa":
        ours, cut = _cut_answers(ours, len(answers))
        outputs, skipped = len(answers), skipped | cut
    if settings is None:
        settings = AuthorsSettings.from_json({}, head=head, data_set=data_set)
    weights = ForeignWeights(ours, name_of, source)
    config = _read_config(weights, HeadConfig(head, outputs), answers=answers, settings=settings)
    weights.check(config)
    broken = [name_of(name) for name, tensor in ours.items() if not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{source}: {len(broken)} weights are infinite or no numbers: {first_few(broken)}"
        )
    chosen = dataclasses.replace(
        settings, max_text_tokens=config.max_text_tokens, aggregation=config.aggregation
    )
    notices = doubts(chosen, head=head, data_set=data_set, num_outputs=num_outputs)
    if was_wrapped:
        notices.insert(0, _UNWRAPPED)
    return AuthorsWeights(config, ours, skipped, tuple(notices))


def _check_kind(theirs: Mapping[str, Tensor], *, head: HeadName, source: str) -> None:
    """Refuse a pretrained checkpoint as a finetuned one, a counting one as another, and back."""
    is_pretrained = any(name.startswith(PRETRAINING_GROUP) for name in theirs)
    groups = (CLASSIFIER_GROUP, REGRESSOR_GROUP)
    found = [group for group in groups if any(name.startswith(group) for name in theirs)]
    is_finetuned = bool(found)
    if head != "pretraining" and found and head_group(head) not in found:
        other = "count" if found == [REGRESSOR_GROUP] else "another task than counting"
        raise CheckpointError(
            f"{source} is a checkpoint for {other}, not one for {head}: it has {found[0]}* and no "
            f"{head_group(head)}*"
        )
    if head != "pretraining" and is_pretrained and not is_finetuned:
        raise CheckpointError(
            f"{source} is a pretrained checkpoint, not one for {head}: it has {PRETRAINING_GROUP}* "
            f"and no {head_group(head)}*; import it for pretraining"
        )
    if head == "pretraining" and is_finetuned and not is_pretrained:
        raise CheckpointError(
            f"{source} is a finetuned checkpoint, not a pretrained one: it has {found[0]}* "
            f"and no {PRETRAINING_GROUP}*; import it for the task that it was finetuned for"
        )


def _check_outputs(outputs: int, *, head: HeadName, num_answers: int, source: str) -> None:
    """Refuse a classifier of another task."""
    if head == "qa":
        if not num_answers:
            wrong = f"there are no answers: {_ANSWERS_CURE}"
        elif num_answers > outputs:
            wrong = f"there are {num_answers} answers: {_ANSWERS_CURE}"
        else:
            return
    elif outputs in _OUTPUTS[head]:
        return
    else:
        wrong = f"{head} has {' or '.join(map(str, _OUTPUTS[head]))}"
    likely = _LIKELY.get(outputs, "question answering")
    raise CheckpointError(
        f"{source}: its classifier has {outputs} outputs, as {likely} has, and {wrong}"
    )


def _cut_answers(
    ours: Mapping[str, Tensor], num_answers: int
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Leave out the outputs that no answer has, and count the elements that go."""
    weight, bias = ours[f"{_QA_OUTPUT}.weight"], ours.get(f"{_QA_OUTPUT}.bias")
    cut = {**ours, f"{_QA_OUTPUT}.weight": weight[:num_answers]}
    if bias is not None and bias.shape == weight.shape[:1]:  # any other is refused later
        cut[f"{_QA_OUTPUT}.bias"] = bias[:num_answers]
    elements = (len(weight) - num_answers) * (weight.shape[1] + 1)
    return cut, {_UNUSED_ANSWERS: elements} if elements else {}


def _read_config(
    weights: ForeignWeights,
    head: HeadConfig,
    *,
    answers: Sequence[str],
    settings: AuthorsSettings,
) -> ClipBertConfig:
    sizes = weights.bert_sizes()
    paper = AuthorsSettings.of_paper(head.name)
    most_tokens = min(cast("int", paper.max_text_tokens), sizes.num_positions)
    return ClipBertConfig(
        **dataclasses.asdict(sizes),
        backbone=weights.backbone_config(stride_in_1x1=True),
        num_rows=weights.num_rows("visual_embeddings.row_embeddings.weight"),
        num_cols=weights.num_rows("visual_embeddings.col_embeddings.weight"),
        heads=(head,),
        trained_heads=(head.name,),
        answers=tuple(answers),
        max_side_px=settings.max_side_px,
        max_text_tokens=most_tokens
        if settings.max_text_tokens is None
        else settings.max_text_tokens,
        num_attention_heads=settings.num_attention_heads,
        aggregation=_aggregation(settings.aggregation, paper, head),
        plan=settings.plan,
    )


def _aggregation(
    wanted: Aggregation | None, paper: AuthorsSettings, head: HeadConfig
) -> Aggregation:
    """Take the paper's aggregation unless one is given; a ranking has no log-sum-exp."""
    by_ranking = head.name == "retrieval" and head.num_outputs == 1
    if by_ranking and wanted == "lse":
        raise ConfigError(
            "aggregation is 'lse': must be 'mean' or 'max', because the retrieval head has 1 "
            "output, so it was trained by ranking"
        )
    return wanted or ("mean" if by_ranking else cast("Aggregation", paper.aggregation))
