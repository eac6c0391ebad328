"""From a mixer to a plan: its lets, then each stage, then the outputs that no stage has stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ...ir.errors import UnsupportedError
from ...ir.expression import Expr, Ref
from ...ir.mixer import Attention, Equation, Map, Mixer, Output, Recurrence, Select
from ...ir.names import names_in
from ...ir.plan import Plan
from ...ir.rewriting import walk
from ...ir.targets import EVERY_GPU, AnyTarget
from ...ir.tile import DType
from .attention import AttentionPlan
from .convolution import LAGS, with_convolutions
from .listed_sums import by_blocks
from .plan_builder import PlanBuilder, plan_builder
from .recurrence import plan_recurrence
from .select import plan_select
from .short_reductions import written_out
from .transform import TERMS, with_transforms


def plan_mixer(
    mixer: Mixer,
    sizes: Mapping[str, int],
    dtype: DType,
    splits: int = 1,
    recurrence: str = "chunk",
    target: AnyTarget = EVERY_GPU,
    fft_lags: int = LAGS,
    fft_terms: int = TERMS,
) -> Plan:
    """The plan of a mixer.

    Args:
        sizes: lengths of the dims that kernels are compiled for.
        splits: shares that an attention's keys are dealt out in.
        recurrence: the schedule of recurrences that several fit: chunk, or loop for few rows.
        target: what the kernels have to fit.
        fft_lags: from so many lags on a sum over them is a kernel of its own.
        fft_terms: from so many positions on a Fourier sum over them is one, too.
    """
    builder = plan_builder(mixer, sizes, dtype, splits, recurrence, target)
    for let in mixer.lets:
        _define(builder, let, fft_lags, fft_terms)
    for stage in mixer.stages:
        match stage:
            case Attention():
                _attention(builder, stage)
            case Map(equations):
                for equation in equations:
                    _define(builder, equation, fft_lags, fft_terms)
            case Recurrence():
                plan_recurrence(builder, stage)
            case Select():
                plan_select(builder, stage)
    for output in mixer.outputs:
        _output(builder, output)
    return builder.plan()


def _define(builder: PlanBuilder, equation: Equation, fft_lags: int, fft_terms: int) -> None:
    value = by_blocks(builder, builder.inlined(equation.value))
    if equation.name in builder.read or equation.name in {o.name for o in builder.mixer.outputs}:
        value = with_transforms(builder, equation.name, value, fft_terms)
        value = with_convolutions(builder, equation.name, value, fft_lags)
    builder.names[equation.name] = builder.named(equation.name, value)


def _output(builder: PlanBuilder, output: Output) -> None:
    name = output.name
    value = builder.names.get(name)
    if value is None:
        raise UnsupportedError(f"{builder.mixer.name}: nothing computes the output {name}")
    if isinstance(value, Ref) and value.name == name and builder.role(name) == "output":
        return
    builder.store(name, value, output.dims, "output", "an output of the mixer")


def _attention(builder: PlanBuilder, stage: Attention) -> None:
    """The stage with every name inlined, planned."""

    def maybe(expr: Expr | None) -> Expr | None:
        return None if expr is None else builder.inlined(expr)

    mask = maybe(stage.mask)
    changed = replace(
        stage,
        score=builder.inlined(stage.score),
        mask=None if mask is None else written_out(mask, builder.mixer, builder.params),
        sink=maybe(stage.sink),
        gain=maybe(stage.gain),
        weight=_normaliser_part(builder, stage.weight),
        denominator=_normaliser_part(builder, stage.denominator),
        outputs=tuple(replace(o, value=builder.inlined(o.value)) for o in stage.outputs),
    )
    AttentionPlan(builder, changed).run()


def _normaliser_part(builder: PlanBuilder, expr: Expr) -> Expr:
    """A normaliser's expression with names inlined; score and total stay names.

    UnsupportedError where it reads an input that is called like one of those.
    """
    own = ("score", "total")
    saved: dict[str, Expr] = {n: builder.names.pop(n) for n in own if n in builder.names}
    read = [n for n in walk(expr) if isinstance(n, Ref) and n.name not in own]
    for name in sorted(names_in(*map(builder.inlined, read)) & {*own, "scale"}):
        raise UnsupportedError(
            f"a normaliser reads {name}, which is the name of something of its own in kernels; "
            f"do: call the input {name} otherwise"
        )
    made = builder.inlined(expr)
    builder.names.update(saved)
    return made
