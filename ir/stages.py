"""Every expression of a stage, to look at or to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import overload

from .expression import Expr
from .mixer import Attention, Line, Map, Mixer, Recurrence, Rounds, Select, Stage, assignments


def values(stage: Stage) -> Iterator[tuple[str, Expr]]:
    """(what it is of, expression) in the order in which they are computed."""
    match stage:
        case Map(equations):
            yield from ((e.name, e.value) for e in equations)
        case Attention():
            for clause in ("score", "mask", "weight", "denominator", "sink", "gain"):
                value: Expr | None = getattr(stage, clause)
                if value is not None:
                    yield clause, value
            yield from ((o.name, o.value) for o in stage.outputs)
        case Recurrence():
            yield from ((state.name, state.initial) for state in stage.states)
            if stage.reset is not None:
                yield "reset", stage.reset
            yield from ((e.name, e.value) for e, _ in assignments(stage.step))
        case Select():
            for clause in ("score", "among", "bound", "always"):
                part: Expr | None = getattr(stage, clause)
                if part is not None:
                    yield clause, part


@overload
def changed(stage: Attention, change: Callable[[Expr], Expr]) -> Attention: ...
@overload
def changed(stage: Select, change: Callable[[Expr], Expr]) -> Select: ...
@overload
def changed(stage: Stage, change: Callable[[Expr], Expr]) -> Stage: ...
def changed(stage: Stage, change: Callable[[Expr], Expr]) -> Stage:
    """The stage with every expression changed."""

    def maybe(value: Expr | None) -> Expr | None:
        return None if value is None else change(value)

    match stage:
        case Map():
            equations = tuple(replace(e, value=change(e.value)) for e in stage.equations)
            return replace(stage, equations=equations)
        case Attention():
            return replace(
                stage,
                score=change(stage.score),
                mask=maybe(stage.mask),
                weight=change(stage.weight),
                denominator=change(stage.denominator),
                sink=maybe(stage.sink),
                gain=maybe(stage.gain),
                outputs=tuple(replace(o, value=change(o.value)) for o in stage.outputs),
            )
        case Recurrence():
            states = tuple(replace(s, initial=change(s.initial)) for s in stage.states)
            step = tuple(changed_line(line, change) for line in stage.step)
            return replace(stage, states=states, step=step, reset=maybe(stage.reset))
        case Select():
            return replace(
                stage,
                score=change(stage.score),
                bound=change(stage.bound),
                among=maybe(stage.among),
                always=maybe(stage.always),
            )


def changed_line(line: Line, change: Callable[[Expr], Expr]) -> Line:
    """A line of a step with every expression changed."""
    match line:
        case Rounds(over, step):
            return Rounds(over, tuple(changed_line(inner, change) for inner in step))
        case _:
            return replace(line, value=change(line.value))


def names_taken(mixer: Mixer) -> set[str]:
    """Every name that a mixer gives or that means something in it: no new one may be among them."""
    names = {i.name for i in mixer.inputs} | {p.name for p in mixer.params}
    names |= {t.name for t in mixer.tables} | {let.name for let in mixer.lets}
    for stage in mixer.stages:
        names |= {name for name, _ in values(stage)}
        names |= {ref.name for ref in stage.results}
    dims = {dim for i in mixer.inputs for dim in i.dims} | {dim for dim, _ in mixer.sizes}
    dims |= {dim for pair in mixer.sequences for dim in pair}
    return names | dims | {dim.lower() for dim in dims} | {"score", "total", "scale", "cu_seqlens"}


def unused_name(name: str, taken: set[str]) -> str:
    """``name``, or a longer one that nothing has, nor an axis that is written alike; from now on
    it is ``taken``."""
    while name in taken or name.lower() in taken:
        name += "_"
    taken.add(name)
    return name


__all__ = ["changed", "changed_line", "names_taken", "unused_name", "values"]
