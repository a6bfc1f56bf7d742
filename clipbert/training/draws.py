"""Random draws that depend on nothing but where in a run they are, never on what was drawn before.

So a run that was interrupted goes on as if it had not been, whatever the number of processes or
of workers that load data.
"""

import random

import torch


def generator_at(seed: int, *key: str | int) -> random.Random:
    """Make the generator of one draw.

    generator_at(42, "clips", epoch, example)  ->  the same numbers whenever it is made

    Args:
        seed: of the run.
        *key: what is drawn, and where in the run.
    """
    # A text is hashed by its bytes, which no process and no version of Python does differently.
    return random.Random("/".join(map(str, (seed, *key))))  # noqa: S311 (training, no secret)


def seed_torch(seed: int, *key: str | int) -> None:
    """Set torch's global generators, from which dropout draws, as generator_at says."""
    torch.manual_seed(generator_at(seed, *key).getrandbits(63))
