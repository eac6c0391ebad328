"""Rounding to float16 and back: to torch's bits, by instructions and by the portable code."""

from __future__ import annotations

import ctypes

import pytest
import torch
from torch import Tensor

from mixc.backends.cpu.build import build, find_compiler
from mixc.backends.cpu.emit import runtime_text

LOOPS = """
extern "C" void widened(const void* x, void* y, int n) {
  mx::widen_row((float*)y, (const mx::fp16*)x, n);
}
extern "C" void narrowed(const void* x, void* y, int n) {
  mx::narrow_row((mx::fp16*)y, (const float*)x, n);
}
"""


@pytest.fixture(scope="module", params=["native", "portable"])
def rows(request: pytest.FixtureRequest) -> ctypes.CDLL:
    lanes = find_compiler().target.lanes if request.param == "native" else 4
    source = f"#define MIXC_LANES {lanes}\n{runtime_text()}{LOOPS}"
    return ctypes.CDLL(str(build(source, f"half_{request.param}")))


def _call(library: ctypes.CDLL, name: str, x: Tensor, y: Tensor) -> Tensor:
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, y)]
    getattr(library, name)(*pointers, ctypes.c_int(x.numel()))
    return y


def _halves() -> Tensor:
    """Every float16 there is, and three more, which fill no vector."""
    bits = torch.arange(2**16, dtype=torch.int32)
    return torch.cat([bits, bits[:3]]).to(torch.int16).view(torch.float16)


def test_every_number_is_widened(rows: ctypes.CDLL) -> None:
    x = _halves()
    found = _call(rows, "widened", x, torch.empty(x.shape))
    assert torch.equal(found.view(torch.int32), x.float().view(torch.int32) | _quiet(x))


def _quiet(x: Tensor) -> Tensor:
    """The bit that makes a NaN quiet."""
    return torch.where(x.isnan(), 0x400000, 0).int()


def test_numbers_beside_and_between_are_narrowed(rows: ctypes.CDLL) -> None:
    """To each float16: the number, its neighbours, those halfway to the next one and theirs."""
    bits = _halves().float().view(torch.int32)
    steps = (-1, 0, 1, 0xFFF, 0x1000, 0x1001)
    patterns = torch.cat([bits + step for step in steps])
    x = torch.cat([patterns.view(torch.float32), 2.0 ** torch.arange(-150.0, 128.0) * 0.75])
    wanted = x.half()
    found = _call(rows, "narrowed", x, torch.empty_like(wanted))
    number = ~x.isnan()
    assert torch.equal(found.view(torch.int16)[number], wanted.view(torch.int16)[number])
    payload = (x.view(torch.int32) >> 13 & 0x3FF | 0x7E00).short()
    signed = torch.where(x.view(torch.int32) < 0, payload | -(2**15), payload)
    assert torch.equal(found.view(torch.int16)[~number], signed[~number])
