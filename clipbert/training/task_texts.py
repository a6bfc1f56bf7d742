"""What each task makes of a video's annotations: the texts that meet its clips, and what is right.

With A answers:

task              texts of a video                        targets
retrieval         each caption, then captions of others   1 match, 0 no match; (texts,)
pretraining       each caption or one of another picture  as retrieval; and the masked words
qa                each question                           the answer's index; (texts,)
qa, soft labels   each question                           how right each answer is; (texts, A)
multiple_choice   each question with each choice          the right choice; (questions,)
count             each question                           the number, float32; (texts,)
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clipbert.datasets.annotation import Annotation
from clipbert.errors import ConfigError
from clipbert.model.text import TextTokenizer
from clipbert.training.losses import IGNORED
from clipbert.training.recipe import Recipe

_MATCH, _NO_MATCH = 1, 0
# Of the words to be guessed, so many become [MASK], and half of the others another word.
_MASKED_SHARE, _REPLACED_SHARE = 0.8, 0.1
# A recipe that leaves it to the model is given the model's length before a run.
_ANY_LENGTH = 1 << 20


@dataclass(frozen=True)
class VideoTexts:
    """The texts that meet the clips of one video.

    Attributes:
        token_ids: one row a text, special tokens included, without padding.
        targets: what is right; see the table above.
        word_labels: pretraining: for each token the word that was there, or IGNORED. Otherwise
            empty.
    """

    token_ids: Sequence[Sequence[int]]
    targets: Tensor
    word_labels: Sequence[Sequence[int]] = ()


class TaskTexts(Protocol):
    """One task's way from annotations to texts."""

    def __call__(self, annotations: Sequence[Annotation], generator: random.Random) -> VideoTexts:
        """Make the texts of one video.

        Args:
            annotations: of this video, at least one.
            generator: the source of every draw.
        """


def make_task_texts(
    recipe: Recipe,
    annotations: Sequence[Annotation],
    *,
    tokenizer: TextTokenizer,
    answers: Sequence[str] = (),
) -> TaskTexts:
    """Choose how a recipe's task makes texts.

    Args:
        recipe: the task, the loss and their numbers.
        annotations: all of the data set; captions of other videos are drawn from them.
        tokenizer: of the model.
        answers: qa: the vocabulary.

    Raises:
        ConfigError: the task compares videos, and all annotations are of one; or pretraining, and
            the tokenizer has no [MASK]; or the loss is not for the answers' kind of labels.
    """
    encoder = _Encoder(tokenizer, recipe.max_text_tokens or _ANY_LENGTH)
    if recipe.task == "retrieval":
        return RetrievalTexts(encoder, _Others(annotations), num_negatives=recipe.negatives)
    if recipe.task == "pretraining":
        masking = WordMasking(tokenizer, probability=recipe.mask_probability)
        return PretrainingTexts(
            encoder,
            others=_Others(annotations),
            masking=masking,
            mismatch_probability=recipe.mismatch_probability,
        )
    if recipe.task == "multiple_choice":
        return ChoiceTexts(encoder)
    if recipe.task == "count":
        return CountTexts(encoder)
    if recipe.loss == "ce" and any(each.answer is None for each in annotations):
        raise ConfigError("loss is 'ce': must be 'bce', since some questions have soft labels")
    labels = {answer: label for label, answer in enumerate(answers)}
    return (
        SoftAnswerTexts(encoder, labels) if recipe.loss == "bce" else AnswerTexts(encoder, labels)
    )


class RetrievalTexts:
    """Each caption of the video, followed by captions of other videos."""

    def __init__(self, encoder: "_Encoder", others: "_Others", *, num_negatives: int) -> None:
        self._encoder, self._others = encoder, others
        self._num_negatives = num_negatives

    def __call__(self, annotations: Sequence[Annotation], generator: random.Random) -> VideoTexts:
        """Draw the other captions for each caption anew."""
        texts = []
        for annotation in annotations:
            texts.append(annotation.text)
            for _ in range(self._num_negatives):
                texts.append(self._others.draw(annotation.video, generator))
        one = [_MATCH, *[_NO_MATCH] * self._num_negatives]
        return VideoTexts(self._encoder(texts), torch.tensor(one * len(annotations)))


class PretrainingTexts:
    """Each caption, or by chance one of another picture in its place, with words to be guessed."""

    def __init__(
        self,
        encoder: "_Encoder",
        *,
        others: "_Others",
        masking: "WordMasking",
        mismatch_probability: float,
    ) -> None:
        self._encoder, self._others, self._masking = encoder, others, masking
        self._mismatch_probability = mismatch_probability

    def __call__(self, annotations: Sequence[Annotation], generator: random.Random) -> VideoTexts:
        """Draw for each caption whether it stays, and which of its words are masked.

        Words are masked, and to be guessed, in the texts of other pictures too.
        """
        texts, targets = [], []
        for annotation in annotations:
            stays = generator.random() >= self._mismatch_probability
            targets.append(_MATCH if stays else _NO_MATCH)
            texts.append(
                annotation.text if stays else self._others.draw(annotation.video, generator)
            )
        masked = [self._masking(ids, generator) for ids in self._encoder(texts)]
        return VideoTexts(
            [ids for ids, _ in masked], torch.tensor(targets), [labels for _, labels in masked]
        )


class AnswerTexts:
    """Each question; its target is the index of its answer in the vocabulary."""

    def __init__(self, encoder: "_Encoder", labels: Mapping[str, int]) -> None:
        self._encoder, self._labels = encoder, labels

    def __call__(self, annotations: Sequence[Annotation], generator: random.Random) -> VideoTexts:
        """Look up every answer, which must be in the vocabulary."""
        targets = [self._labels[annotation.answer or ""] for annotation in annotations]
        texts = [annotation.text for annotation in annotations]
        return VideoTexts(self._encoder(texts), torch.tensor(targets))


class SoftAnswerTexts:
    """Each question; its target says how right each answer of the vocabulary is."""

    def __init__(self, encoder: "_Encoder", labels: Mapping[str, int]) -> None:
        self._encoder, self._labels = encoder, labels

    def __call__(self, annotations: Sequence[Annotation], generator: random.Random) -> VideoTexts:
        """Leave out answers that are not in the vocabulary."""
        targets = torch.zeros(len(annotations), len(self._labels))
        for row, annotation in enumerate(annotations):
            for answer, score in _scores_of(annotation).items():
                if answer in self._labels:
                    targets[row, self._labels[answer]] = score
        return VideoTexts(self._encoder([each.text for each in annotations]), targets)


class ChoiceTexts:
    """Each question with each of its choices; the target is the right one's index."""

    def __init__(self, encoder: "_Encoder") -> None:
        self._encoder = encoder

    def __call__(self, annotations: Sequence[Annotation], generator: random.Random) -> VideoTexts:
        """Join question and choice; where nothing is asked, the choice stands alone."""
        texts = [
            f"{annotation.text} {choice}".strip()
            for annotation in annotations
            for choice in annotation.choices
        ]
        targets = [annotation.right_choice for annotation in annotations]
        return VideoTexts(self._encoder(texts), torch.tensor(targets))


class CountTexts:
    """Each question; the target is the right number."""

    def __init__(self, encoder: "_Encoder") -> None:
        self._encoder = encoder

    def __call__(self, annotations: Sequence[Annotation], generator: random.Random) -> VideoTexts:
        """Return the numbers as float32."""
        targets = [float(annotation.count or 0) for annotation in annotations]
        return VideoTexts(
            self._encoder([annotation.text for annotation in annotations]), torch.tensor(targets)
        )


class WordMasking:
    """Chooses the words that pretraining is to guess, and hides them.

    Of those chosen 80 % become [MASK], 10 % another word, and 10 % stay as they are.

    Args:
        tokenizer: of the model.
        probability: that a token is chosen; special tokens never are.

    Raises:
        ConfigError: the tokenizer has no [MASK].

    Source: Devlin et al., BERT, NAACL 2019, section 3.1.
    """

    def __init__(self, tokenizer: TextTokenizer, *, probability: float) -> None:
        special = tokenizer.special_ids
        if "[MASK]" not in special:
            raise ConfigError("task is 'pretraining': the model's tokenizer has no [MASK] token")
        self._mask_id = special["[MASK]"]
        # An unknown word cannot be guessed either.
        self._special = frozenset(special.values())
        self._vocab_size = tokenizer.vocab_size
        self._probability = probability

    def __call__(
        self, token_ids: Sequence[int], generator: random.Random
    ) -> tuple[list[int], list[int]]:
        """Return the tokens that the model reads, and the labels: the right word, or IGNORED."""
        read, labels = list(token_ids), [IGNORED] * len(token_ids)
        for position, token_id in enumerate(token_ids):
            if token_id in self._special or generator.random() >= self._probability:
                continue
            labels[position] = token_id
            drawn = generator.random()
            if drawn < _MASKED_SHARE:
                read[position] = self._mask_id
            elif drawn < _MASKED_SHARE + _REPLACED_SHARE:
                read[position] = self._draw_word(generator)
        return read, labels

    def _draw_word(self, generator: random.Random) -> int:
        while True:
            word = generator.randrange(self._vocab_size)
            if word not in self._special:
                return word


class _Encoder:
    """Texts -> token ids, cut to the recipe's length, not padded."""

    def __init__(self, tokenizer: TextTokenizer, max_length: int) -> None:
        self._tokenizer, self._max_length = tokenizer, max_length

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        ids, mask = self._tokenizer.encode(texts, max_length=self._max_length)
        lengths = mask.sum(dim=1).tolist()
        return [row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)]


class _Others:
    """Texts of other videos than the one at hand."""

    def __init__(self, annotations: Sequence[Annotation]) -> None:
        self._texts = [(annotation.video, annotation.text) for annotation in annotations]
        if len({video for video, _ in self._texts}) < 2:  # noqa: PLR2004
            raise ConfigError(
                "the captions are all of one video: to learn which caption belongs to which video "
                "takes at least 2"
            )

    def draw(self, video: str, generator: random.Random) -> str:
        while True:
            other, text = generator.choice(self._texts)
            if other != video:
                return text


def _scores_of(annotation: Annotation) -> Mapping[str, float]:
    """Return the soft labels; of a data set that has one answer a question, that one."""
    if annotation.answer is not None:
        return {annotation.answer: 1.0}
    return annotation.answer_scores
