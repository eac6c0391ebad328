"""What a tuned result is for: the device at hand, or one that is only named."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

Kind = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True)
class Device:
    """A device: ``architecture`` is what kernels are compiled for, ``name`` tells models apart."""

    kind: Kind
    architecture: str  # "cpu:avx512_bf16", "cuda:90"
    name: str  # "AMD EPYC, 2 cores", "NVIDIA H200"

    @property
    def slug(self) -> str:
        """The name of its folder of results."""
        text = f"{self.architecture}-{self.name}".lower()
        return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


@lru_cache(maxsize=1)
def this_cpu() -> Device:
    """The CPU that this process runs on, as its C++ compiler sees it.

    Raises UnsupportedError where there is no compiler.
    """
    from ...backends.cpu.build import find_compiler

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = f"{_model_name()}, {cores} core{'s' if cores != 1 else ''}"
    return Device("cpu", f"cpu:{find_compiler().target.name}", name)


def _model_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


@lru_cache(maxsize=8)
def this_gpu(index: int = 0) -> Device:
    """A GPU of this machine."""
    import torch

    from ...backends.triton.device import architecture_of

    return Device("gpu", architecture_of(index), torch.cuda.get_device_name(index))


def device_of_type(kind: str, index: int = 0) -> Device:
    """The device behind torch's device type, ``cpu`` or ``cuda``."""
    return this_cpu() if kind == "cpu" else this_gpu(index)


def modelled_device(architecture: str) -> Device:
    """A device that is not here, known by its architecture alone."""
    return Device("gpu", architecture, "modelled")
