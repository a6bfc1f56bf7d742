"""Our model against the outputs of the authors' own, on their small random checkpoints.

tests/parity/README.md says what the files hold; the tolerances are its own.
"""

import dataclasses
from functools import cached_property

import numpy as np
import pytest
import torch
from authors_checkpoints import PARITY, PARITY_NAMES, import_small
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from clipbert.checkpoints.folder import load_folder, save_folder
from clipbert.model.aggregation import aggregate, match_probability
from clipbert.model.cross_encoder import join_masks
from clipbert.model.network import Network
from clipbert.model.pixels import to_pixels
from clipbert.training.losses import clip_cross_entropy, clip_multiple_choice, word_losses

NUM_CLIPS, NUM_FRAMES, NUM_CHOICES = 2, 2, 5
FINETUNED = ["retrieval", "qa", "multiple_choice"]
LOGITS = {"atol": 1e-4, "rtol": 0.0}


@dataclasses.dataclass
class Reference:
    head: str
    model: Network
    expected: dict[str, Tensor]
    pixels: Tensor  # (videos, clips, T, 3, S, S)

    @property
    def texts(self) -> tuple[Tensor, Tensor]:
        return self.expected["text_input_ids"], self.expected["text_input_mask"]

    def visual(self, clip: int) -> Tensor:
        """Give each text the clip of its video: (rows, h, w, D)."""
        visual = self.model.encode_pixels(self.pixels[:, clip])
        return visual.repeat_interleave(len(self.texts[0]) // len(visual), 0)

    @cached_property
    def logits(self) -> Tensor:
        """(clips, rows, C)."""
        clips = [self.model(*self.texts, self.visual(c), head=self.head) for c in range(NUM_CLIPS)]
        return torch.stack(clips)

    def logits_as_theirs(self) -> Tensor:
        """As logits, but choices in columns: (clips, questions, choices)."""
        logits = self.logits
        if self.head != "multiple_choice":
            return logits
        return logits[..., 0].unflatten(1, (-1, NUM_CHOICES))

    def loss(self, how: str) -> Tensor:
        labels = self.expected["labels"]
        if self.head == "multiple_choice":
            return clip_multiple_choice(self.logits, labels, how=how, num_choices=NUM_CHOICES)
        return clip_cross_entropy(self.logits, labels, how=how)


def load_reference(head: str, *, model: Network | None = None) -> Reference:
    if model is None:
        model = import_small(head).network
    expected = load_file(PARITY / f"{PARITY_NAMES[head]}.safetensors")
    videos = [to_clips(expected[f"raw_frames_u8.{video}"], model) for video in range(2)]
    return Reference(head, model, expected, torch.stack(videos))


def to_clips(frames: Tensor, model: Network) -> Tensor:
    pixels = to_pixels(
        np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy()),
        max_side_px=model.config.max_side_px,
        mean=model.config.mean,
        std=model.config.std,
        channel_order=model.config.channel_order,
    )
    return pixels.unflatten(0, (NUM_CLIPS, NUM_FRAMES))


@pytest.fixture(scope="module", params=FINETUNED)
def reference(request):
    return load_reference(request.param)


@pytest.fixture(scope="module", params=PARITY_NAMES)
def any_reference(request):
    return load_reference(request.param)


@pytest.fixture(scope="module")
def retrieval():
    return load_reference("retrieval")


@pytest.fixture(scope="module")
def pretraining():
    return load_reference("pretraining")


@pytest.fixture(scope="module", params=FINETUNED)
def folded(request):
    reference = load_reference(request.param)
    reference.model.fold_batch_norm()
    return reference


def assert_near(actual: Tensor, expected: Tensor, *, part: float = 1e-5) -> None:
    """Compare within a part of the expected tensor's largest magnitude."""
    atol = part * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0.0)


def test_pixels_are_the_authors(retrieval):
    pixels = retrieval.pixels.flatten(1, 2).flip(2)  # theirs are RGB until inside the CNN

    expected = retrieval.expected["visual_inputs_norm"]
    torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=0.0)


@torch.inference_mode()
def test_res5_is_the_authors(retrieval):
    for clip in range(NUM_CLIPS):
        res5 = retrieval.model.backbone(retrieval.pixels[:, clip].flatten(0, 1))

        assert_near(res5, retrieval.expected[f"intermediates.res5.{clip}"])


@torch.inference_mode()
def test_res5_with_folded_batch_norm_is_the_authors():
    folded = load_reference("retrieval")
    folded.model.fold_batch_norm()

    for clip in range(NUM_CLIPS):
        res5 = folded.model.backbone(folded.pixels[:, clip].flatten(0, 1))

        assert_near(res5, folded.expected[f"intermediates.res5.{clip}"], part=1e-4)


@torch.inference_mode()
def test_grid_is_the_authors(any_reference):
    for clip in range(NUM_CLIPS):
        grid = any_reference.model.encode_pixels(any_reference.pixels[:, clip])

        frames = any_reference.expected[f"intermediates.grid.{clip}"]  # (videos, T, h, w, D)
        assert_near(grid, frames.mean(dim=1))


@torch.inference_mode()
def test_embeddings_are_the_authors(any_reference):
    model, expected = any_reference.model, any_reference.expected
    ids, _ = any_reference.texts
    for clip in range(NUM_CLIPS):
        visual = model.visual_embeddings(any_reference.visual(clip))
        text = model.text_embeddings(ids)

        assert_near(visual, expected[f"intermediates.visual_embeddings.{clip}"])
        assert_near(text, expected[f"intermediates.text_embeddings.{clip}"])


@torch.inference_mode()
def test_sequence_output_is_the_authors(retrieval):
    for clip in range(NUM_CLIPS):
        sequence = retrieval.model.sequence_output(*retrieval.texts, retrieval.visual(clip))

        assert_near(sequence, retrieval.expected[f"intermediates.sequence_output.{clip}"])
    assert not join_masks(retrieval.texts[1], 4).all()  # there was padding to mask


@torch.inference_mode()
def test_pooled_output_is_the_authors(any_reference):
    for clip in range(NUM_CLIPS):
        pooled = any_reference.model.pooled_output(*any_reference.texts, any_reference.visual(clip))

        assert_near(pooled, any_reference.expected[f"intermediates.pooled_output.{clip}"])


@torch.inference_mode()
def test_logits_are_the_authors(reference):
    logits = reference.logits_as_theirs()

    torch.testing.assert_close(logits, reference.expected["logits_per_clip"], **LOGITS)


@torch.inference_mode()
def test_logits_with_folded_batch_norm_are_the_authors(folded):
    logits = folded.logits_as_theirs()

    torch.testing.assert_close(logits, folded.expected["logits_per_clip"], **LOGITS)


@torch.inference_mode()
def test_logits_without_padding_are_the_authors(reference):
    ids, mask = reference.texts
    row = int(mask.sum(dim=1).argmin())
    length = int(mask[row].sum())
    assert length < mask.shape[1]

    visual = reference.visual(0)[row : row + 1]
    logits = reference.model(
        ids[row : row + 1, :length], mask[row : row + 1, :length], visual, head=reference.head
    )

    theirs = reference.expected["logits_per_clip"][0].reshape(len(ids), -1)
    torch.testing.assert_close(logits[0], theirs[row], **LOGITS)


@pytest.mark.parametrize("how", ["mean", "max", "lse"])
@torch.inference_mode()
def test_aggregated_logits_and_losses_are_the_authors(reference, how):
    aggregated = aggregate(reference.logits_as_theirs(), how)
    loss = reference.loss(how)

    torch.testing.assert_close(aggregated, reference.expected[f"agg.{how}"], **LOGITS)
    torch.testing.assert_close(loss, reference.expected[f"train_loss_{how}"], **LOGITS)


@torch.inference_mode()
def test_the_loss_of_each_clip_is_the_authors(reference):
    labels = reference.expected["labels"]
    for clip, logits in enumerate(reference.logits_as_theirs()):
        losses = cross_entropy(logits, labels, reduction="none")

        torch.testing.assert_close(losses, reference.expected[f"loss_per_clip.{clip}"], **LOGITS)


@torch.inference_mode()
def test_pretraining_scores_are_the_authors(pretraining):
    for clip in range(NUM_CLIPS):
        words, match = pretraining.model.pretrain(*pretraining.texts, pretraining.visual(clip))

        torch.testing.assert_close(words, pretraining.expected[f"mlm_scores.{clip}"], **LOGITS)
        torch.testing.assert_close(match, pretraining.expected[f"itm_scores.{clip}"], **LOGITS)


@torch.inference_mode()
def test_pretraining_losses_are_the_authors(pretraining):
    expected = pretraining.expected
    assert (expected["mlm_labels"] >= 0).any()
    for clip in range(NUM_CLIPS):
        words, match = pretraining.model.pretrain(*pretraining.texts, pretraining.visual(clip))

        word_loss = word_losses(words, expected["mlm_labels"]).flatten()
        match_loss = cross_entropy(match, expected["itm_labels"], reduction="none")
        torch.testing.assert_close(word_loss, expected[f"mlm_loss.{clip}"], **LOGITS)
        torch.testing.assert_close(match_loss, expected[f"itm_loss.{clip}"], **LOGITS)


@torch.inference_mode()
def test_match_scores_are_the_authors(retrieval):
    scores = match_probability(aggregate(retrieval.logits, "lse"))

    torch.testing.assert_close(scores, retrieval.expected["score_lse"], **LOGITS)


@torch.inference_mode()
def test_stride_in_the_wrong_convolution_would_show(retrieval):
    config = retrieval.model.config
    backbone = dataclasses.replace(config.backbone, stride_in_1x1=False)
    model = Network(dataclasses.replace(config, backbone=backbone)).eval()
    model.load_state_dict(retrieval.model.state_dict())

    wrong = load_reference("retrieval", model=model).logits

    assert (wrong - retrieval.expected["logits_per_clip"]).abs().max() > 0.1


@torch.inference_mode()
def test_a_saved_and_loaded_import_gives_the_same_logits(tmp_path, retrieval):
    save_folder(retrieval.model, tmp_path, tokenizer=None)

    loaded = load_reference("retrieval", model=load_folder(tmp_path).network)

    assert torch.equal(loaded.logits, retrieval.logits)
