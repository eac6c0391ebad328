"""The conformance suite itself: faults that are planted in a backend are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.tiles import run_plan
from mixc.ir.errors import VerificationError
from mixc.ir.plan import Plan
from mixc.ir.tile import Dot, Elementwise, For, Load, Op, Reduce, Scan

from .conformance.suite import CASES, TileConformance

Fault = Callable[[Op], Op]


class Faulty(TileConformance):
    """The interpreter, on programs of which each op goes through ``fault`` before."""

    rounds = False

    def __init__(self, fault: Fault) -> None:
        self.fault = fault

    def run(
        self, plan: Plan, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> Mapping[str, Tensor]:
        (kernel,) = plan.kernels
        program = replace(kernel.program, body=self._spoilt(kernel.program.body))
        return run_plan(replace(plan, kernels=(replace(kernel, program=program),)), tensors, sizes)

    def _spoilt(self, body: tuple[Op, ...]) -> tuple[Op, ...]:
        spoilt = (self.fault(op) for op in body)
        return tuple(
            replace(op, body=self._spoilt(op.body)) if isinstance(op, For) else op for op in spoilt
        )


def _wrong_fill(op: Op) -> Op:
    return replace(op, fill=0) if isinstance(op, Load) else op


def _mask_one_too_far(op: Op) -> Op:
    """lt --> le, where positions meet a length."""
    length = isinstance(op, Elementwise) and op.fn == "lt" and op.args[-1].name in ("T", "E")
    return replace(op, fn="le") if length and isinstance(op, Elementwise) else op


def _acc_forgotten(op: Op) -> Op:
    return replace(op, acc=None) if isinstance(op, Dot) else op


def _mask_of_a_dot_forgotten(op: Op) -> Op:
    return replace(op, masked=False) if isinstance(op, Dot) else op


def _scan_forwards(op: Op) -> Op:
    return replace(op, reverse=False) if isinstance(op, Scan) else op


def _any_is_all(op: Op) -> Op:
    return replace(op, op="all") if isinstance(op, Reduce) and op.op == "any" else op


def _handed_over_in_turn(op: Op) -> Op:
    """What is carried second gets what the first has become."""
    if not isinstance(op, For) or len(op.yields) != 2:
        return op
    return replace(op, yields=(op.yields[0], op.yields[0]))


FAULTS: Mapping[str, tuple[Fault, str]] = {
    "fill": (_wrong_fill, "fills, 39 rows by 16"),
    "mask": (_mask_one_too_far, "fills, 39 rows by 16"),
    "acc": (_acc_forgotten, "dots of 39 rows"),
    "masked": (_mask_of_a_dot_forgotten, "masked dots"),
    "reverse": (_scan_forwards, "scans of 39 rows"),
    "any": (_any_is_all, "reductions of 39 rows"),
    "carried": (_handed_over_in_turn, "handed over at once"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    fault, case = FAULTS[name]
    with pytest.raises((AssertionError, VerificationError)):
        Faulty(fault).check(CASES[case]())
    Faulty(lambda op: op).check(CASES[case]())


class Untidy(TileConformance):
    """A backend that computes what it should, and spoils memory with it."""

    rounds = False

    def __init__(self, spoil: Callable[[Tensor], object]) -> None:
        self.spoil = spoil

    def run(
        self, plan: Plan, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> Mapping[str, Tensor]:
        made = {}
        for name, wanted in run_plan(plan, tensors, sizes).items():
            made[name] = torch.empty(list(wanted.shape), dtype=wanted.dtype)
            made[name].copy_(wanted)
            self.spoil(made[name])
        return made


def _past_the_end(tensor: Tensor) -> None:
    tensor.as_strided([1], [1], tensor.storage_offset() + tensor.numel()).fill_(0)


def _before_the_start(tensor: Tensor) -> None:
    tensor.as_strided([1], [1], tensor.storage_offset() - 1).fill_(0)


def _not_written(tensor: Tensor) -> None:
    tensor.reshape(-1)[-1:].copy_(torch.empty([1], dtype=tensor.dtype))


@pytest.mark.parametrize("spoil", [_past_the_end, _before_the_start, _not_written])
def test_guards_and_poison_are_looked_at(spoil: Callable[[Tensor], object]) -> None:
    case = CASES["scans of 39 rows"]
    with pytest.raises(AssertionError):
        Untidy(spoil).check(case())
    Untidy(lambda tensor: None).check(case())
