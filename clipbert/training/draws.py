"""Random draws that depend on nothing but their place in a run, never on what was drawn before.

So a run that was interrupted goes on as if it had not been, whatever the number of processes or
of workers that load data.
"""

import random

import torch


def generator_at(seed: int, *place: str | int) -> random.Random:
    """Make the generator of one place.

    generator_at(42, "clips", epoch, example)  ->  the same numbers whenever it is made

    Args:
        seed: of the run.
        place: what is drawn, and where in the run.
    """
    # A text is hashed by its bytes, which no process and no version of Python does differently.
    return random.Random("/".join(map(str, (seed, *place))))  # noqa: S311 (training, no secret)


def seed_torch(seed: int, *place: str | int) -> None:
    """Set torch's global generators, from which dropout draws, as generator_at says."""
    torch.manual_seed(generator_at(seed, *place).getrandbits(63))
