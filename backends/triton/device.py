"""The GPU at hand: what kernels are compiled for on it."""

from __future__ import annotations

from functools import lru_cache

import torch


@lru_cache(maxsize=8)
def architecture_of(device: torch.device | int) -> str:
    """The architecture of a GPU of this machine, as targets are named: cuda:90, hip:gfx942."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        return f"hip:{properties.gcnArchName.partition(':')[0]}"
    return f"cuda:{properties.major}{properties.minor}"


__all__ = ["architecture_of"]
