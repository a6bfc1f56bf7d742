"""Which device a child of the pool works on. Imports torch: for children only."""

from billiard import current_process

from clipbert.engines.devices import Devices, TorchDevices
from workers.child.visible_gpus import device_fault


def child_index() -> int:
    """Return this process's number in its pool, from 0; a child that died leaves its own."""
    return int(getattr(current_process(), "index", 0))


def take_device(
    setting: str,
    *,
    child_index: int,
    finetune_share: float,
    devices: Devices | None = None,
) -> str:
    """Choose this child's device, and bound what it takes of it.

    Each child has the GPU of its own number, counted round when there are fewer GPUs: a pool of as
    many children as GPUs uses them all, and a child that takes a dead one's place takes its GPU.

    Args:
        setting: auto (a GPU, else the CPU), cuda (a GPU), cuda:N (that one) or cpu.
        child_index: the child's number in its pool, from 0.
        finetune_share: part of a GPU's memory that a finetune beside may take; the rest is ours.
        devices: the GPUs; None asks torch.

    Returns:
        "cpu" or "cuda:N", counted as this process sees them.

    Raises:
        ValueError: a GPU is wanted that is not there.
    """
    devices = devices or TorchDevices()
    num_gpus = devices.num_gpus()
    if setting == "cpu" or (setting == "auto" and num_gpus == 0):
        return "cpu"
    fault = device_fault(setting, num_gpus=lambda: num_gpus)
    if fault is not None:
        raise ValueError(f"WORKER_DEVICE={setting}, but {fault}")
    _, _, number = setting.partition(":")
    index = int(number) if number else child_index % num_gpus
    if finetune_share < 1:
        devices.limit_memory(index, 1 - finetune_share)
    return f"cuda:{index}"
