"""Text to token ids and mask: BERT's WordPiece, from the tokenizer.json of a model folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from torch import Tensor

from clipbert.errors import CheckpointError

TOKENIZER_FILE = "tokenizer.json"
_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SHORTEST_TEXT = 3  # [CLS], one token, [SEP]


class TextTokenizer:
    """Turns texts into the token ids and masks that the cross-encoder reads.

    tokenizer.encode(["a dog"], max_length=20)  ->  ids and mask of shape (1, 4)
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        # What the file says of padding and truncation is for its makers' use, not for ours.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        ids = ((token, tokenizer.token_to_id(token)) for token in _SPECIAL_TOKENS)
        self._special_ids = {token: token_id for token, token_id in ids if token_id is not None}
        if "[PAD]" not in self._special_ids:
            raise CheckpointError("the tokenizer has no [PAD] token")
        self._tokenizer = tokenizer
        self._pad_id = self._special_ids["[PAD]"]

    @classmethod
    def from_folder(cls, folder: Path) -> "TextTokenizer":
        """Read tokenizer.json of a model folder.

        Raises:
            CheckpointError: the folder has no tokenizer.json, or it cannot be read.
        """
        path = Path(folder) / TOKENIZER_FILE
        if not path.is_file():
            raise CheckpointError(f"no {TOKENIZER_FILE} in {folder}")
        return cls.from_file(path)

    @classmethod
    def from_file(cls, path: Path, *, lowercase: bool = True) -> "TextTokenizer":
        """Read a tokenizer.json, or the vocab.txt of a BERT: a token a line, its id the line's.

        Args:
            path: the file; if its name ends in .txt it is a vocabulary.
            lowercase: whether texts are made lower case and lose their accents, as uncased BERTs
                want it. Only for a vocabulary; a tokenizer.json says so itself.

        Raises:
            CheckpointError: the file is missing, cannot be read, or lacks a special token.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"no such file: {path}")
        try:
            if path.suffix != ".txt":
                return cls(Tokenizer.from_file(str(path)))
            vocabulary = WordPiece.read_file(str(path))
        except Exception as error:
            raise CheckpointError(f"{path} is not a tokenizer: {error}") from error
        missing = [token for token in _SPECIAL_TOKENS if token not in vocabulary]
        if missing:
            raise CheckpointError(f"{path} is not a vocabulary of BERT: it has no {missing[0]}")
        return cls(_word_pieces(vocabulary, lowercase=lowercase))

    @classmethod
    def from_characters(cls) -> "TextTokenizer":
        """Make a tokenizer that spells words out, for models that are trained from scratch.

        It needs no file: 5 special tokens, then printable ASCII as words and as their
        continuations, 141 ids in all; any other character makes its word [UNK].
        """
        characters = [c for c in map(chr, range(0x21, 0x7F)) if not c.isupper()]
        tokens = [*_SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters)]
        vocabulary = {token: index for index, token in enumerate(tokens)}
        return cls(_word_pieces(vocabulary, lowercase=True))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json into a model folder."""
        self._tokenizer.save(str(Path(folder) / TOKENIZER_FILE))

    @property
    def vocab_size(self) -> int:
        """Number of token ids; every id is below it."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def pad_id(self) -> int:
        """The id of [PAD]."""
        return self._pad_id

    @property
    def special_ids(self) -> dict[str, int]:
        """The ids of [PAD], [UNK], [CLS], [SEP] and [MASK], of those that there are."""
        return dict(self._special_ids)

    def encode(
        self,
        texts: Sequence[str],
        *,
        max_length: int,
        pad: Literal["longest", "max"] = "longest",
    ) -> tuple[Tensor, Tensor]:
        """Encode texts as [CLS] tokens [SEP], cut and padded to one length.

        Args:
            texts: N texts, at least one.
            max_length: longest row in tokens, special tokens included, at least 3; the end of a
                longer text is cut away and its [SEP] kept.
            pad: "longest" pads to the longest text of this call, "max" to max_length, as the
                paper's training does. Padding changes nothing but the time it takes.

        Returns:
            Token ids (N, L) int64, padded with [PAD], and mask (N, L) int64, 1 for tokens.

        Raises:
            ValueError: no texts, or max_length below 3.
        """
        if not texts:
            raise ValueError("encode needs at least one text")
        if max_length < _SHORTEST_TEXT:
            raise ValueError(f"max_length must be at least {_SHORTEST_TEXT}, got {max_length}")
        rows = [_cut(row.ids, max_length) for row in self._tokenizer.encode_batch(list(texts))]
        length = max_length if pad == "max" else max(len(row) for row in rows)
        ids = torch.full((len(rows), length), self._pad_id, dtype=torch.int64)
        mask = torch.zeros((len(rows), length), dtype=torch.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return ids, mask


def _cut(ids: list[int], max_length: int) -> list[int]:
    return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


def _word_pieces(vocabulary: dict[str, int], *, lowercase: bool) -> Tokenizer:
    """Make BERT's tokenizer of a vocabulary."""
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 (no password)
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    return tokenizer
