"""What training minimises: a batch -> its loss."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from clipbert.engines.devices import default_dtype
from clipbert.model.aggregation import aggregate
from clipbert.model.config import Aggregation
from clipbert.model.head_names import HeadName
from clipbert.model.network import Network
from clipbert.model.pixels import clips_to_pixels
from clipbert.training.batch import Batch
from clipbert.training.draws import generator_at
from clipbert.training.losses import (
    IGNORED,
    clip_binary_cross_entropy,
    clip_cross_entropy,
    clip_multiple_choice,
    clip_ranking,
    clip_squared_error,
    masked_words,
)
from clipbert.training.recipe import Loss, Recipe

# The count head's batch norm knows no spread of a single pair of one clip.
_LEAST_TEXTS: Mapping[HeadName, int] = {"count": 2}


class Objective(nn.Module):
    """The model with the loss of a recipe around it.

    All K clips of all videos go through the CNN as one batch, and then, each with every text of
    its video, through the cross-encoder as one batch; the loss aggregates them as the answer will.

    Args:
        model: with the head of the recipe's task.
        recipe: task, loss, aggregation, precision, and what pretraining draws. A frozen visual
            side is in eval mode whatever the rest is in, and keeps nothing for gradients.
    """

    def __init__(self, model: Network, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self._is_frozen = recipe.visual == "frozen"
        self._head: HeadName = recipe.task
        self._loss = _loss_of(recipe.task, recipe.loss, recipe.aggregation, recipe.negatives)
        self._aggregation = recipe.aggregation
        self._precision = recipe.precision
        self._kept_cells, self._seed = recipe.kept_cells, recipe.seed
        self._least_texts = _LEAST_TEXTS.get(recipe.task, 1)

    def train(self, mode: bool = True) -> "Objective":
        """Set the mode, as nn.Module.train, of all that is trained."""
        super().train(mode)
        if self._is_frozen:
            self.model.backbone.eval()
            self.model.grid_encoder.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Returns:
            "loss", a scalar. Outside of training, pretraining adds "words", "right_words",
            "matches" and "right_matches", how much was guessed and how much of it rightly.
            A batch whose examples were all dropped has the loss 0, so that several processes
            stay in step; of it every weight has the gradient 0.
        """
        num_clips = batch.num_clips
        least_texts = self._least_texts if self.training else 1
        if num_clips == 0 or len(batch.token_ids) < least_texts:
            weights = [weight for weight in self.parameters() if weight.requires_grad]
            return {"loss": torch.stack([weight.sum() for weight in weights]).sum() * 0.0}
        device = next(self.model.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._uses_bfloat16(device)):
            if self._head == "pretraining":
                return self._pretrain(batch, device)
            logits = self.model(
                **self._pairs(batch, device), head=self._head, num_clips=num_clips
            )  # (K * N, O)
        logits = logits.float().unflatten(0, (num_clips, -1))  # (K, N, O)
        return {"loss": self._loss(logits, batch.targets.to(device))}

    def visual_tokens(self, batch: Batch) -> Tensor:
        """Return the visual tokens of each video's clips: those that it has, or the CNN's.

        Args:
            batch: of B videos with K clips each.

        Returns:
            (B, K, h, w, D).
        """
        device = next(self.model.parameters()).device
        if batch.tokens is not None:
            return batch.tokens.to(device)
        config = self.model.config
        pixels = clips_to_pixels(
            batch.clips(),
            max_side_px=config.max_side_px,
            mean=config.mean,
            std=config.std,
            channel_order=config.channel_order,
            device=device,
        )  # (B * K, T, 3, S, S)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._is_frozen):
            visual = self.model.encode_pixels(pixels)  # (B * K, h, w, D)
        return visual.reshape(-1, batch.num_clips, *visual.shape[1:])

    def _uses_bfloat16(self, device: torch.device) -> bool:
        if self._precision == "auto":
            return default_dtype(str(device)) == torch.bfloat16
        return self._precision == "bf16"

    def _pairs(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Pair each text with all clips of its video: K * N pairs, clip after clip."""
        num_clips = batch.num_clips
        visual = self.visual_tokens(batch)  # (B, K, h, w, D)
        video = batch.video_of_text.to(device)
        visual = visual[video]  # (N, K, h, w, D)
        places = batch.places.to(device)[video]  # (N, K)
        return {
            "token_ids": batch.token_ids.to(device).repeat(num_clips, 1),
            "mask": batch.mask.to(device).repeat(num_clips, 1),
            "visual": visual.transpose(0, 1).flatten(0, 1),  # (K * N, h, w, D)
            "places": places.T.flatten(),
        }

    def _pretrain(self, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        num_clips = batch.num_clips
        pairs = self._pairs(batch, device)
        cells = self._draw_cells(batch, pairs["visual"]) if self.training else None
        words, match = self.model.pretrain(**pairs, cells=cells)
        labels = batch.word_labels.to(device).repeat(num_clips, 1)  # (K * N, L)
        matches = match.float().unflatten(0, (num_clips, -1))  # (K, N, 2)
        targets = batch.targets.to(device)
        outputs = {
            "loss": masked_words(words.float(), labels)
            + clip_cross_entropy(matches, targets, how=self._aggregation)
        }
        if not self.training:
            masked = labels != IGNORED
            outputs["words"] = masked.sum()
            outputs["right_words"] = (words.argmax(dim=-1) == labels)[masked].sum()
            outputs["matches"] = torch.tensor(targets.numel())
            outputs["right_matches"] = (
                aggregate(matches, self._aggregation).argmax(dim=-1) == targets
            ).sum()
        return outputs

    def _draw_cells(self, batch: Batch, visual: Tensor) -> Tensor | None:
        """Draw the visual tokens that a batch keeps, the same for all of its clips."""
        num_cells = visual.shape[1] * visual.shape[2]
        if self._kept_cells is None or self._kept_cells >= num_cells:
            return None
        generator = generator_at(self._seed, "cells", batch.number)
        kept = sorted(generator.sample(range(num_cells), self._kept_cells))
        return torch.tensor(kept, device=visual.device)


def _loss_of(
    task: HeadName, loss: Loss, how: Aggregation, negatives: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function of logits (K, N, O) and targets."""
    if loss == "mse":
        return partial(clip_squared_error, how=how)
    if loss == "bce":
        return partial(clip_binary_cross_entropy, how=how)
    if loss == "rank":
        return lambda logits, _: clip_ranking(logits, how, num_texts=1 + negatives)
    if task == "multiple_choice":
        return lambda logits, right: clip_multiple_choice(
            logits, right, how=how, num_choices=logits.shape[1] // len(right)
        )
    return partial(clip_cross_entropy, how=how)
