"""Native code conforms."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mixc.backends.cpu.run import run_plan
from mixc.ir.plan import Plan

from ..conformance.suite import TileConformance


class TestCpu(TileConformance):
    def run(
        self, plan: Plan, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> Mapping[str, Tensor]:
        return run_plan(plan, tensors, sizes, flags=("-O1",))
