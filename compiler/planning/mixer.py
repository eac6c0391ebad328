"""From a mixer to a plan: its lets, then each stage, then the outputs that no stage has stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...ir.errors import UnsupportedError
from ...ir.expression import Expr, Ref
from ...ir.mixer import Attention, Equation, Map, Mixer, Output, Recurrence, Select
from ...ir.plan import Plan
from ...ir.tile import DType
from ..schedules.estimates import WEIGHTS_LIMIT_BYTES
from .attention import AttentionPlan
from .recurrence import plan_recurrence
from .select import plan_select
from .workspace import Workspace, make_workspace


def plan_mixer(
    mixer: Mixer,
    sizes: Mapping[str, int],
    dtype: DType,
    splits: int = 1,
    recurrence: str = "chunk",
    weight_bytes: int = WEIGHTS_LIMIT_BYTES,
) -> Plan:
    """The plan of a mixer.

    Args:
        sizes: lengths of the dims that kernels are compiled for.
        splits: shares that an attention's keys are dealt out in.
        recurrence: the schedule of recurrences that several fit: chunk, or loop for few rows.
        weight_bytes: of the weights of a cell, what a program may keep from row to row.
    """
    work = make_workspace(mixer, sizes, dtype, splits, recurrence, weight_bytes)
    for let in mixer.lets:
        _define(work, let)
    for stage in mixer.stages:
        match stage:
            case Attention():
                _attention(work, stage)
            case Map(equations):
                for equation in equations:
                    _define(work, equation)
            case Recurrence():
                plan_recurrence(work, stage)
            case Select():
                plan_select(work, stage)
    for output in mixer.outputs:
        _output(work, output)
    return work.plan()


def _define(work: Workspace, equation: Equation) -> None:
    value = work.written_out(equation.value)
    work.names[equation.name] = work.named(equation.name, value)


def _output(work: Workspace, output: Output) -> None:
    name = output.name
    value = work.names.get(name)
    if value is None:
        raise UnsupportedError(f"{work.mixer.name}: nothing computes the output {name}")
    if isinstance(value, Ref) and value.name == name and work.role(name) == "output":
        return
    work.store(name, value, output.dims, "output", "an output of the mixer")


def _attention(work: Workspace, stage: Attention) -> None:
    """The stage with every name written out, planned."""

    def maybe(expr: Expr | None) -> Expr | None:
        return None if expr is None else work.written_out(expr)

    changed = replace(
        stage,
        score=work.written_out(stage.score),
        mask=maybe(stage.mask),
        sink=maybe(stage.sink),
        gain=maybe(stage.gain),
        weight=_normaliser_part(work, stage.weight),
        denominator=_normaliser_part(work, stage.denominator),
        outputs=tuple(replace(o, value=work.written_out(o.value)) for o in stage.outputs),
    )
    AttentionPlan(work, changed).run()


def _normaliser_part(work: Workspace, expr: Expr) -> Expr:
    """A normaliser's expression with names written out; score and total stay names."""
    saved: dict[str, Expr] = {n: work.names.pop(n) for n in ("score", "total") if n in work.names}
    made = work.written_out(expr)
    work.names.update(saved)
    return made
