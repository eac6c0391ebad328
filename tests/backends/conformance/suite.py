"""What every backend of tile programs has to pass: op by op, and program by program.

A backend inherits by saying how it runs a plan:

    class TestCpu(TileConformance):
        def run(self, plan, tensors, sizes): return run_plan(plan, tensors, sizes)

Outputs and temporaries are poisoned before, and lie amid guards that have to be whole after;
inputs lie amid garbage. What a backend is known not to do is said in its class, with the reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from mixc.autotune.checking.tolerances import error_limit, error_of
from mixc.ir.plan import Plan

from .axes import AXES
from .elementwise import ELEMENTWISE_CASES
from .guarded import amid_garbage, guarded_memory
from .loops import LOOPS
from .memory import MEMORY
from .products import PRODUCTS
from .programs import PROGRAMS, Whole
from .trial import Trial

CASES: Mapping[str, Callable[[], Trial]] = {
    **ELEMENTWISE_CASES,
    **MEMORY,
    **AXES,
    **PRODUCTS,
    **LOOPS,
}


class TileConformance(ABC):
    """The suite; a backend's class is called ``Test...`` and gives ``run``."""

    # Whether real numbers have the types that the program gives them, or all one wide type.
    rounds: ClassVar[bool] = True
    # Cases that a backend is known to fail, each with the reason.
    exceptions: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def run(
        self, plan: Plan, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> Mapping[str, Tensor]:
        """The outputs of a plan by name, fresh ones."""

    @pytest.mark.parametrize("case", CASES)
    def test_ops(self, case: str) -> None:
        self._excuse(case)
        self.check(CASES[case]())

    @pytest.mark.parametrize("case", PROGRAMS)
    def test_programs(self, case: str) -> None:
        self._excuse(case)
        self.check_whole(PROGRAMS[case]())

    def test_exceptions_are_cases(self) -> None:
        assert self.exceptions.keys() <= {*CASES, *PROGRAMS}

    def _excuse(self, case: str) -> None:
        if case in self.exceptions:
            pytest.skip(self.exceptions[case])

    def guarded(
        self, plan: Plan, tensors: Mapping[str, Tensor], sizes: Mapping[str, int], strided: bool
    ) -> Mapping[str, Tensor]:
        """The outputs, computed from inputs amid garbage into memory amid guards."""
        placed = {name: amid_garbage(tensor, strided) for name, tensor in tensors.items()}
        with guarded_memory():
            return self.run(plan, placed, sizes)

    def check(self, trial: Trial) -> None:
        """A program by hand gives what its ops mean."""
        plan = trial.plan()
        for strided in (False, True):
            found = self.guarded(plan, trial.given, trial.sizes, strided)
            assert found.keys() == trial.wanted.keys()
            for name, wanted in trial.wanted.items():
                exact = wanted.exact
                if wanted.unrounded is not None and not self.rounds:
                    exact = wanted.unrounded
                result = found[name].double() if exact.is_floating_point() else found[name]
                torch.testing.assert_close(
                    result,
                    exact,
                    rtol=wanted.relative,
                    atol=wanted.absolute,
                    equal_nan=True,
                    check_dtype=False,
                    msg=partial("{}, strided={}: {}".format, name, strided),
                )

    def check_whole(self, whole: Whole) -> None:
        """A spec's kernels give what its equations mean."""
        for strided in (False, True):
            found = self.guarded(whole.plan, whole.tensors, whole.sizes, strided)
            for name, wanted in whole.wanted.items():
                limit = error_limit(whole.dtype, whole.pytorch_errors[name])
                assert error_of(found[name], wanted) <= limit, name
