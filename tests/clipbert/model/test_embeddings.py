import dataclasses

import pytest
import torch
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEmbeddings

from clipbert.model.config import ClipBertConfig
from clipbert.model.embeddings import TextEmbeddings, VisualEmbeddings
from clipbert.model.network import Network

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


def with_places(**places):
    torch.manual_seed(0)
    ours = VisualEmbeddings(dataclasses.replace(TINY, **places)).eval()
    for table in (ours.frame_embeddings, ours.clip_embeddings):
        if table is not None:
            torch.nn.init.normal_(table.weight)
    return ours


def test_only_the_cells_asked_for_are_kept_with_their_own_positions():
    ours = with_places()
    grid = torch.randn(2, 3, 4, 48)

    kept = ours(grid, cells=torch.tensor([1, 7, 11]))

    assert torch.equal(kept, ours(grid)[:, [1, 7, 11]])


def test_frame_embeddings_tell_the_frames_of_a_clip_apart():
    ours = with_places(frame_positions=3)
    side = TINY.grid_side
    grid = torch.randn(2, side, side, 48).repeat(1, 3, 1, 1)  # three equal frames

    tokens = ours(grid).unflatten(1, (3, side * side))

    frame, row, col = 2, 1, 0
    expected = ours.LayerNorm(
        grid[1, row, col]
        + ours.frame_embeddings.weight[frame]
        + ours.row_embeddings.weight[row]
        + ours.col_embeddings.weight[col]
        + ours.token_type_embeddings.weight[0]
    )
    torch.testing.assert_close(tokens[1, frame, row * side + col], expected)
    assert not torch.allclose(tokens[0, 0], tokens[0, 1])
    with pytest.raises(ValueError, match="4 frames, the model knows 3"):
        ours(torch.randn(1, 4 * side, side, 48))


def test_clip_embeddings_tell_the_parts_of_a_video_apart():
    ours = with_places(clip_positions=4)
    grid = torch.randn(1, 2, 2, 48).repeat(5, 1, 1, 1)

    tokens = ours(grid, places=torch.tensor([0.0, 0.24, 0.25, 0.99, 1.0]))

    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[3], tokens[4])
    assert not torch.allclose(tokens[1], tokens[2])
    with pytest.raises(ValueError, match="give places"):
        ours(grid)


def test_a_new_model_does_not_look_at_its_zero_places():
    model = Network.create(dataclasses.replace(TINY, clip_positions=4), seed=0)

    assert not model.visual_embeddings.clip_embeddings.weight.any()
