"""Where a trainer runs. Asks the system, not torch: this process has none of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workers.child.visible_gpus import VISIBLE, visible_gpus


@dataclass(frozen=True)
class TrainerDevice:
    """What a trainer runs on.

    Attributes:
        name: "cpu" or "cuda".
        num_gpus: that it may use; 0 on a CPU.
        environment: variables that show it these and no others.
    """

    name: str
    num_gpus: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


def choose_device(
    setting: str,
    *,
    environment: Mapping[str, str] = os.environ,
    device_files: Path = Path("/dev"),
) -> TrainerDevice:
    """Choose by the worker's own setting.

    Args:
        setting: auto (all GPUs there are, else the CPU), cpu, cuda (all GPUs), or cuda:N (that
            one).
        environment: says which GPUs this process may see.
        device_files: where the system shows its GPUs.
    """
    gpus = visible_gpus(environment, device_files)
    if setting == "cpu" or (setting == "auto" and not gpus):
        return TrainerDevice("cpu", environment={VISIBLE: ""})
    _, _, index = setting.partition(":")
    if index:
        # By the number that this process would call it.
        chosen = gpus[int(index)] if int(index) < len(gpus) else index
        return TrainerDevice("cuda", 1, {VISIBLE: chosen})
    return TrainerDevice("cuda", max(1, len(gpus)))


def count_processes(num_gpus: int, *, videos_per_step: int) -> int:
    """Count the processes that share a step evenly: one for each GPU, if the step allows it."""
    return max(count for count in range(1, max(1, num_gpus) + 1) if videos_per_step % count == 0)


def fit_videos_per_forward(wanted: int, *, videos_per_step: int, num_processes: int) -> int:
    """Return the most videos of a forward pass, up to so many, that make a step in whole passes."""
    share = videos_per_step // num_processes
    return max(count for count in range(1, min(wanted, share) + 1) if share % count == 0)
