"""The interpreter of tile programs conforms; it computes all real numbers in float64."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mixc.backends.reference.tiles import run_plan
from mixc.ir.plan import Plan

from ..conformance.suite import TileConformance


class TestReference(TileConformance):
    rounds = False

    def run(
        self, plan: Plan, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> Mapping[str, Tensor]:
        return run_plan(plan, tensors, sizes)
