import pytest
import torch

from clipbert.errors import CheckpointError
from clipbert.model.text import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.from_characters()


def test_encode_puts_special_tokens_around_each_text_and_pads_to_the_longest(tokenizer):
    ids, mask = tokenizer.encode(["ab", "abcd"], max_length=20)

    assert ids.shape == mask.shape == (2, 6)
    assert ids.dtype == mask.dtype == torch.int64
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert ids[0, 4:].tolist() == [0, 0]  # [PAD]
    assert ids[0, 0] == ids[1, 0]  # [CLS]
    assert ids[0, 3] == ids[1, 5]  # [SEP]


def test_encode_pads_to_max_length_when_asked(tokenizer):
    ids, mask = tokenizer.encode(["ab"], max_length=9, pad="max")

    assert ids.shape == (1, 9)
    assert mask.sum() == 4


def test_a_long_text_is_cut_and_keeps_its_last_special_token(tokenizer):
    short, _ = tokenizer.encode(["abc"], max_length=20)

    ids, mask = tokenizer.encode(["abcdefgh"], max_length=5)

    assert ids.tolist() == short.tolist()
    assert mask.tolist() == [[1] * 5]


def test_case_is_ignored_and_unknown_characters_become_unk(tokenizer):
    ids, _ = tokenizer.encode(["Dog", "dog", "漢"], max_length=20)

    assert ids[0].tolist() == ids[1].tolist()
    assert ids[2, 1] == 1  # [UNK]


def test_an_empty_text_is_two_special_tokens(tokenizer):
    ids, mask = tokenizer.encode([""], max_length=20)

    assert ids.tolist() == [[2, 3]]
    assert mask.tolist() == [[1, 1]]


@pytest.mark.parametrize(("texts", "max_length"), [([], 20), (["a"], 2)])
def test_encode_refuses_no_texts_and_no_room(tokenizer, texts, max_length):
    with pytest.raises(ValueError, match="at least"):
        tokenizer.encode(texts, max_length=max_length)


def test_a_saved_tokenizer_reads_back_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path)

    again = TextTokenizer.from_folder(tmp_path)

    texts = ["a white parrot, twice!", "x"]
    for one, other in zip(
        again.encode(texts, max_length=30), tokenizer.encode(texts, max_length=30), strict=True
    ):
        assert torch.equal(one, other)
    assert again.vocab_size == tokenizer.vocab_size


def test_a_folder_without_a_tokenizer_is_an_error_that_names_it(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        TextTokenizer.from_folder(tmp_path)


def test_a_broken_tokenizer_file_is_a_checkpoint_error(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")

    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        TextTokenizer.from_folder(tmp_path)
