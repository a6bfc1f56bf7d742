"""Which GPUs a process would see, for processes that must not load torch.

How many there may be, the system says at once. Whether they can be used, only torch knows: it is
asked in a process of its own.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from workers.settings import DEVICE_PATTERN

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_GPU_FILE: Final = re.compile(r"nvidia\d+")
_COUNT_GPUS: Final = (
    "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
)
_ASK_SECONDS: Final = 120.0  # to load torch where everything else starts too


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


def usable_gpus() -> int:
    """Count the GPUs that torch can use, in a process of its own: it takes seconds.

    Raises:
        subprocess.SubprocessError: torch did not say.
    """
    # -P: a file of this folder that is called torch.py is not torch.
    asked = subprocess.run(  # noqa: S603  (our own command, no shell)
        [sys.executable, "-P", "-W", "ignore", "-c", _COUNT_GPUS],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_ASK_SECONDS,
        check=True,
    )
    return int(asked.stdout)


def device_fault(setting: str, *, num_gpus: Callable[[], int] = usable_gpus) -> str | None:
    """Say why no model can run on a device; None if one can.

    Args:
        setting: auto, cpu, cuda or cuda:N, or what somebody took for one.
        num_gpus: counts those that can be used; asked only if one is wanted.
    """
    if not re.fullmatch(DEVICE_PATTERN, setting):
        return "there is no such device: say auto, cpu, cuda or cuda:N"
    kind, _, number = setting.partition(":")
    if kind != "cuda":
        return None
    try:
        count = num_gpus()
    except subprocess.SubprocessError as error:
        return f"torch does not say which GPUs there are: {error}"
    if count == 0:
        return "torch sees 0 GPUs here: say auto or cpu"
    if number and int(number) >= count:
        return f"torch sees {count} GPUs here: say auto, or cuda:0 to cuda:{count - 1}"
    return None
