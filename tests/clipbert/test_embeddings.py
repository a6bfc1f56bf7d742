import dataclasses

import torch
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEmbeddings

from clipbert.config import ClipBertConfig
from clipbert.embeddings import TextEmbeddings, VisualEmbeddings

TINY = ClipBertConfig.preset("clipbert-tiny")


def test_text_embeddings_are_berts():
    torch.manual_seed(0)
    bert = BertConfig(
        vocab_size=TINY.vocab_size,
        hidden_size=TINY.hidden_size,
        max_position_embeddings=TINY.num_positions,
    )
    theirs = BertEmbeddings(bert).eval()
    ours = TextEmbeddings(TINY).eval()
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(0, TINY.vocab_size, (3, 11))

    embeddings = ours(ids)

    assert embeddings.shape == (3, 11, 48)
    assert torch.equal(embeddings, theirs(ids))


def test_a_visual_token_is_its_cell_with_its_row_and_column():
    torch.manual_seed(0)
    ours = VisualEmbeddings(TINY).eval()
    grid = torch.randn(2, 3, 4, 48)

    tokens = ours(grid)

    assert tokens.shape == (2, 12, 48)
    row, col = 2, 1
    expected = ours.LayerNorm(
        grid[1, row, col]
        + ours.row_embeddings.weight[row]
        + ours.col_embeddings.weight[col]
        + ours.token_type_embeddings.weight[0]
    )
    torch.testing.assert_close(tokens[1, row * 4 + col], expected)


def test_dropout_works_in_training_only():
    visual = VisualEmbeddings(dataclasses.replace(TINY, dropout=0.5))
    grid = torch.randn(1, 2, 2, 48)

    assert torch.equal(visual.eval()(grid), visual(grid))
    assert (visual.train()(grid) == 0).any()
