"""Which device the networks run on."""

from __future__ import annotations

import re

import torch

from privdiff_infer.errors import OptionError


def pick_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    `auto` takes the first CUDA device, else the CPU; an explicit device is never replaced silently.

    Raises
    ------
    OptionError
        If the name is not understood or there is no such device.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise OptionError(f"device {name!r} is not understood", "write auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(
            f"device {name} does not exist, this machine has {torch.cuda.device_count()} CUDA "
            "device(s)",
            "choose another device or install a CUDA build of torch",
        )
    return device
