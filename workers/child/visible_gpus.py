"""Which GPUs a process would see. Asks the system, not torch: whoever asks has none of it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_GPU_FILE: Final = re.compile(r"nvidia\d+")


def visible_gpus(
    environment: Mapping[str, str] = os.environ, device_files: Path = Path("/dev")
) -> Sequence[str]:
    """Return the GPUs' names, as CUDA_VISIBLE_DEVICES has them, in their order.

    Args:
        environment: says which ones a process may see.
        device_files: where the system shows its GPUs.
    """
    visible = environment.get(VISIBLE)
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    names = (path.name for path in device_files.iterdir())
    return [str(index) for index in range(sum(1 for name in names if _GPU_FILE.fullmatch(name)))]


def num_model_children(setting: str, gpus: Sequence[str]) -> int:
    """Count the children of the worker that runs models: one for each GPU that it may use.

    Args:
        setting: auto, cpu, cuda or cuda:N.
        gpus: as visible_gpus() gave them.
    """
    return max(1, len(gpus)) if setting in ("auto", "cuda") else 1
