"""What the machine at hand can do at best: the rates of a large product and of a large copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..results.devices import device_of_type
from .measuring import Clock
from .work import Work

# Long beside what it takes to begin, and larger than any cache.
_SIDE = {"cpu": 1536, "cuda": 8192}
_COPIED_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}
_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Machine:
    """A device and its measured rates: products in GFLOP/s, copies in GB/s, read and written."""

    name: str
    architecture: str
    products_gflop_s: float
    copies_gb_s: float

    def share(self, work: Work, time_us: float) -> float:
        """How much of the rate that bounds some work a run of this time reaches: 1 is all of it."""
        products_us = work.flops / self.products_gflop_s * 1e-3
        copies_us = work.bytes / self.copies_gb_s * 1e-3
        return max(products_us, copies_us) / time_us

    @property
    def sentence(self) -> str:
        """``AMD EPYC, 2 cores (cpu:avx2): products 120 GFLOP/s, copies 14 GB/s``."""
        products, copies = f"{self.products_gflop_s:,.0f}", f"{self.copies_gb_s:,.0f}"
        where = f"{self.name} ({self.architecture})"
        return f"{where}: products {products} GFLOP/s, copies {copies} GB/s"


def measured_machine(kind: str, dtype: torch.dtype) -> Machine:
    """The device of torch's type ``kind``, measured now, by torch; about a second.

    Products in ``dtype``, or in float32 where the machine is faster at that: kernels may be, too.
    """
    clock, side = Clock(kind), _SIDE[kind]
    products = max(_product_gflop_s(clock, kind, side, d) for d in {dtype, torch.float32})
    source = torch.zeros(_COPIED_BYTES[kind], dtype=torch.uint8, device=kind)
    target = torch.empty_like(source)
    copy_us = _best_us(clock, lambda: target.copy_(source))
    device = device_of_type(kind)
    copies = 2 * source.numel() / copy_us * 1e-3
    return Machine(device.name, device.architecture, products, copies)


def _product_gflop_s(clock: Clock, kind: str, side: int, dtype: torch.dtype) -> float:
    a, b = (torch.randn(side, side, device=kind).to(dtype) for _ in range(2))
    return 2 * side**3 / _best_us(clock, lambda: torch.mm(a, b)) * 1e-3


def _best_us(clock: Clock, call: Callable[[], object]) -> float:
    call()
    return min(clock.once(call) for _ in range(_ROUNDS))


__all__ = ["Machine", "measured_machine"]
