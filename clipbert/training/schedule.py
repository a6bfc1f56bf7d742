"""How the learning rate goes over the steps of a run."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from clipbert.training.recipe import Decay

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

LOWEST_LEARNING_RATE = 1e-8
_MULTI_STEP_FACTOR = 0.5


def learning_rate(
    base: float,
    *,
    step: int,
    total_steps: int,
    decay: Decay = "linear",
    warmup_ratio: float = 0.1,
    decay_epochs: Sequence[int] = (),
    steps_per_epoch: float = 1.0,
) -> float:
    """Return the learning rate of one optimiser step.

    learning_rate(5e-5, step=50, total_steps=1000)  ->  2.5e-05, half way through the warm-up

    Args:
        base: the highest.
        step: of the run, counted from 1.
        total_steps: of the run.
        decay: `linear`, warm-up and then down to 0; `invsqrt`, warm-up and then with the square
            root of the step; `multi_step`, halved at each of decay_epochs, without a warm-up;
            `constant`, without one either.
        warmup_ratio: part of total_steps over which the rate rises from 0.
        decay_epochs: of `multi_step`, ascending.
        steps_per_epoch: of `multi_step`.

    Returns:
        At least 1e-8.

    Source: the authors' code. Its `multi_step` halves twice at the last of decay_epochs, which is
    kept, because a run of theirs is repeated only so.
    """
    warmup_steps = int(warmup_ratio * total_steps)
    if decay == "constant":
        factor = 1.0
    elif decay == "multi_step":
        factor = _multi_step(step / steps_per_epoch, sorted(decay_epochs))
    elif step < warmup_steps:
        factor = step / warmup_steps
    elif decay == "invsqrt":
        factor = (max(warmup_steps, 1) / step) ** 0.5
    else:
        factor = (total_steps - step) / max(1, total_steps - warmup_steps)
    return max(base * factor, LOWEST_LEARNING_RATE)


class RateOf(Protocol):
    """learning_rate with everything settled but the base and the step."""

    def __call__(self, base: float, *, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""


def make_scheduler(optimizer: "Optimizer", rate_of: RateOf) -> "LambdaLR":
    """Set the rate of each of an optimiser's groups, from the group's own base.

    Args:
        optimizer: whose groups have their bases as "lr".
        rate_of: gives the rates.
    """
    # Recipes name decays from here, and are read where there is no torch.
    from torch.optim.lr_scheduler import LambdaLR  # noqa: PLC0415

    def factor_of(base: float, steps_done: int) -> float:
        return rate_of(base, step=steps_done + 1) / base

    bases = [group["lr"] for group in optimizer.param_groups]
    return LambdaLR(optimizer, [partial(factor_of, base) for base in bases])


def _multi_step(epoch: float, decay_epochs: Sequence[int]) -> float:
    for passed, milestone in enumerate(decay_epochs):
        if epoch < milestone:
            return _MULTI_STEP_FACTOR**passed
    return _MULTI_STEP_FACTOR ** (len(decay_epochs) + 1)
