"""What a forward and a backward pass take in memory, measured."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

import mixc
from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs

SHORT, LONG = 4096, 16_384


def status_bytes(entry: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(entry)).split()[1])


def peak_growth(mixer: mixc.LoadedMixer, length: int) -> int:
    """The most that the process has held beyond the inputs, in bytes, from call to gradients."""
    proportions = Proportions(lengths=(length,), features=(32,), ratio=1, groups=2, batch=(1, 2))
    inputs = sample_inputs(mixer.mixer, default_sizes(mixer.mixer, proportions))
    for tensor in inputs.values():
        tensor.requires_grad_()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed is given back
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status_bytes("VmRSS:")
    outputs = mixer(**inputs)
    first = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
    torch.autograd.grad(first.sum(), list(inputs.values()), allow_unused=True)
    return status_bytes("VmHWM:") - before


# A matrix of states in all, and several states a row and channel.
@pytest.mark.parametrize("name", ["simple_gla", "mamba"])
def test_peak_memory_is_linear_in_the_length(name: str) -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
        assert ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError) as error:
        pytest.skip(f"peaks can't be measured: {error}")
    mixer = mixc.load(name)
    peak_growth(mixer, SHORT)  # kernels are built, and the allocator has its arenas
    short, long = peak_growth(mixer, SHORT), peak_growth(mixer, LONG)
    assert 2 < long / short < 4.5
