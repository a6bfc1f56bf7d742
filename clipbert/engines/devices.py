"""What GPUs there are and what they can do, and what is chosen by that."""

from typing import Protocol

import torch


class Devices(Protocol):
    """The GPUs that this process sees, numbered from 0."""

    def num_gpus(self) -> int:
        """Count them."""
        ...

    def has_bfloat16(self, index: int) -> bool:
        """Whether one multiplies bfloat16 in hardware; emulated it is many times slower."""
        ...

    def limit_memory(self, index: int, share: float) -> None:
        """Limit this process to a part of one's memory."""
        ...


class TorchDevices:
    """Those that torch sees. Only in a process that was not forked after a CUDA call."""

    def num_gpus(self) -> int:
        return torch.cuda.device_count() if torch.cuda.is_available() else 0

    def has_bfloat16(self, index: int) -> bool:
        if index >= self.num_gpus():  # asked about a machine that is not this one
            return True
        with torch.cuda.device(index):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))

    def limit_memory(self, index: int, share: float) -> None:
        torch.cuda.set_per_process_memory_fraction(share, index)


def default_dtype(device: str, *, devices: Devices | None = None) -> torch.dtype:
    """Choose the dtype of a network's weights: 16 bits where the device is fast with them.

    bfloat16 where it is multiplied in hardware (GPUs since Ampere, CPUs with AMX); float16 on older
    GPUs; else float32. Without such hardware bfloat16 is slower, not faster: on an AVX2 CPU
    clipbert-mini's CNN fell from 8.0 to 0.6 frames a second.

    Args:
        device: "cpu", "cuda" or "cuda:N".
        devices: the GPUs; None asks torch.
    """
    chosen = torch.device(device)
    if chosen.type == "cuda":
        has_bfloat16 = (devices or TorchDevices()).has_bfloat16(chosen.index or 0)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return torch.bfloat16 if has_amx() else torch.float32
