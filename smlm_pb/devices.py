"""Which processor does the work."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from smlm_pb.errors import ConfigurationError

if TYPE_CHECKING:
    import torch


def device_name(device: torch.device) -> str:
    """What a device is called by its maker, as far as the system tells."""
    import platform
    from pathlib import Path

    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def choose_device(name: str = "auto") -> torch.device:
    """Turn a device name into a device that is there.

    Parameters
    ----------
    name : str
        ``auto`` (the fastest that is there), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Returns
    -------
    torch.device

    Raises
    ------
    ConfigurationError
        When the device is unknown or absent.
    """
    import torch

    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    device: torch.device | None = None
    with contextlib.suppress(RuntimeError, TypeError):
        device = torch.device(name)
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigurationError(f"Device '{name}' is unknown: use auto, cpu, cuda, cuda:N or mps.")
    absent = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not has_mps
    )
    if absent:
        raise ConfigurationError(f"Device '{name}' is not there on this machine: use cpu, or auto.")
    return device
