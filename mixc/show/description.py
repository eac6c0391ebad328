"""What a mixer says, line by line with its axes: the first part of ``mixc show``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, assert_never

from ..ir.expression import Kind
from ..ir.mixer import (
    Attention,
    Equation,
    Input,
    Layout,
    Map,
    Mixer,
    Output,
    Param,
    Recurrence,
    Select,
    Stage,
    State,
    Table,
)
from ..ir.text import write_expression
from .step_lines import step_lines

KINDS = {Kind.BOOL: "bool", Kind.INT: "int32", Kind.REAL: ""}


@dataclass(frozen=True, slots=True)
class Line:
    """A name, the axes that it has, what it is as the spec has it, and what there is to note."""

    name: str
    axes: tuple[str, ...] = ()
    text: str = ""
    note: str = ""

    def __str__(self) -> str:
        axes = f"[{', '.join(self.axes)}]" if self.axes else ""
        text = f" = {self.text}" if self.text else ""
        return f"{self.name}{axes}{text}{'  # ' if self.note else ''}{self.note}"


@dataclass(frozen=True, slots=True)
class Section:
    """Lines under a title."""

    title: str
    lines: tuple[Line, ...]


def describe(mixer: Mixer) -> tuple[Section, ...]:
    """Every part of the mixer that has lines, in the order in which they are computed."""
    order = axis_order(mixer)
    sections = [
        Section("inputs", tuple(_input(entry) for entry in mixer.inputs)),
        Section("dims", tuple(_dims(mixer))),
        Section("params", (*map(_param, mixer.params), *map(_table, mixer.tables))),
        Section("let", tuple(_equation(equation, order) for equation in mixer.lets)),
        *(_stage(stage, order) for stage in mixer.stages),
        *(_forms(mixer, stage) for stage in mixer.stages if isinstance(stage, Recurrence)),
        Section("outputs", tuple(_output(output) for output in mixer.outputs)),
    ]
    return tuple(section for section in sections if section.lines)


def description(mixer: Mixer) -> dict[str, Any]:
    """The same as plain data, for JSON."""
    return {
        "name": mixer.name,
        "about": mixer.about,
        "source": mixer.source,
        "path": mixer.path,
        "sections": [asdict(section) for section in describe(mixer)],
    }


@dataclass(frozen=True, slots=True)
class AxisOrder:
    """How the axes of a line are ordered: as in an input or output that has them all."""

    layouts: tuple[tuple[str, ...], ...]

    def of(self, axes: frozenset[str]) -> tuple[str, ...]:
        """The axes in the order of the first layout that has them, else of their first mention."""
        own = next((dims for dims in self.layouts if axes <= set(dims)), None)
        order = own or tuple(dim for dims in self.layouts for dim in dims)
        places = {dim: place for place, dim in reversed(list(enumerate(order)))}
        return tuple(sorted(axes, key=lambda dim: (places.get(dim, len(order)), dim)))


def axis_order(mixer: Mixer) -> AxisOrder:
    """The order that the inputs, and then the outputs, have their axes in."""
    inputs = [entry.dims for entry in mixer.inputs]
    return AxisOrder((*inputs, *(output.dims for output in mixer.outputs)))


def _input(entry: Input) -> Line:
    notes = [entry.dtype or KINDS[entry.kind], "sorted" if entry.sorted else ""]
    notes += [f"default {_plain(entry.default)}" if entry.default is not None else ""]
    notes += ["" if entry.grad else "no gradient"]
    if entry.range is not None:
        notes.append("from {} to {}".format(*map(write_expression, entry.range)))
    notes += [f"unit vectors along {entry.unit}" if entry.unit is not None else ""]
    if entry.held is not None:
        notes.append("a weight" if entry.held.trained else "a buffer")
        notes[-1] += f", {write_expression(entry.held.start)} at first" if entry.held.start else ""
    return Line(entry.name, _layout(entry.layout), note=", ".join(note for note in notes if note))


def _output(entry: Output) -> Line:
    return Line(entry.name, _layout(entry.layout))


def _layout(layout: Layout) -> tuple[str, ...]:
    return tuple("*".join(product) or "1" for product in layout)


def _dims(mixer: Mixer) -> Iterator[Line]:
    families: dict[str, list[str]] = {}
    for dim, sequence in mixer.sequences:
        families.setdefault(sequence, []).append(dim)
    for sequence, dims in families.items():
        members = ", ".join(dim for dim in dims if dim != sequence)
        if members:
            yield Line(members, note=f"positions of the sequence {sequence}")
    for small, large in mixer.heads:
        yield Line(
            small,
            note=f"divides {large}: head {large.lower()} reads group "
            f"{large.lower()} // ({large} // {small})",
        )
    for dim, size in mixer.sizes:
        yield Line(dim, text=str(size))


def _param(param: Param) -> Line:
    return Line(param.name, text=str(param.value), note="run time" if param.runtime else "")


def _table(table: Table) -> Line:
    shown = ", ".join(_plain(value) for value in table.values[:8])
    return Line(table.name, table.dims, shown + (", …" if len(table.values) > 8 else ""))


def _equation(equation: Equation, order: AxisOrder) -> Line:
    text = equation.text or str(equation.value)
    return Line(equation.name, order.of(equation.value.axes), " ".join(text.split()))


def _stage(stage: Stage, order: AxisOrder) -> Section:
    title = f" {stage.name}" if stage.name else ""
    match stage:
        case Map():
            lines = tuple(_equation(equation, order) for equation in stage.equations)
            return Section(f"map{title}", lines)
        case Attention():
            return Section(f"attention{title} over {stage.over}", tuple(_attention(stage, order)))
        case Recurrence():
            way = ", backward" if stage.reverse else ""
            lines = tuple(_recurrence(stage, order))
            return Section(f"recurrence{title} over {stage.over}{way}", lines)
        case Select():
            lines = tuple(_select(stage, order))
            return Section(f"select{title} over {', '.join(stage.over)}", lines)
        case _:
            assert_never(stage)


def _select(stage: Select, order: AxisOrder) -> Iterator[Line]:
    texts = dict(stage.texts)
    clauses = {"among": stage.among, "score": stage.score, stage.rule: stage.bound}
    for name, value in (clauses | {"always": stage.always}).items():
        if value is not None:
            text = " ".join(texts.get(name, str(value)).split())
            yield Line(name, order.of(value.axes), text)
    chosen, *lists = stage.results
    yield Line(chosen.name, order.of(chosen.axes), note="true where chosen")
    for made in lists:
        note = f"the positions chosen along {' and '.join(stage.over)}, best first, then -1"
        yield Line(made.name, order.of(made.axes), note=note)


def _attention(stage: Attention, order: AxisOrder) -> Iterator[Line]:
    texts = dict(stage.texts)
    parts = {
        "score": stage.score,
        "mask": stage.mask,
        "weight": stage.weight,
        "denominator": stage.denominator,
        "sink": stage.sink,
        "gain": stage.gain,
    }
    for name, value in parts.items():
        if value is not None:
            text = " ".join(texts.get(name, str(value)).split())
            yield Line(name, order.of(value.axes), text)
    for result, equation in zip(stage.results, stage.outputs, strict=False):
        text = equation.text or str(equation.value)
        factors = ["weights", *(["gain"] if stage.gain is not None else []), _factor(text)]
        weighted = f"sum({' * '.join(factors)}, {stage.over})"
        yield Line(result.name, order.of(result.axes), weighted)
    named = {stage.lse: "log(total)", stage.weights: "weight / denominator"}
    for result in stage.results[len(stage.outputs) :]:
        yield Line(result.name, order.of(result.axes), named[result.name])


def _recurrence(stage: Recurrence, order: AxisOrder) -> Iterator[Line]:
    texts = dict(stage.texts)
    for state in stage.states:
        yield Line(state.name, order.of(state.dims), note=_start(state, texts))
    if stage.reset is not None:
        text = texts.get("reset", str(stage.reset))
        yield Line("reset", order.of(stage.reset.axes), text, "states are 0 before these rows")
    states = {state.name: state.dims for state in stage.states}
    for line in step_lines(stage):
        name = line.equation.name
        axes = states.get(name, line.equation.value.axes | {stage.over, *line.rounds})
        note = f"for each {', '.join(line.rounds)}" if line.rounds else ""
        yield Line(line.target, order.of(axes), line.text, note)


def _forms(mixer: Mixer, stage: Recurrence) -> Section:
    """What the algebra of the step shows; an inner loop is laid out in time where it can be."""
    from ..compiler.analysis.recurrence.classify import classify
    from ..compiler.analysis.recurrence.describe import describe
    from ..compiler.analysis.recurrence.flatten import flatten
    from ..compiler.planning.recurrence_context import names_read

    read = names_read(mixer, stage)
    states = stage.name or ", ".join(state.name for state in stage.states)
    flat, title = flatten(stage), f"form of {states} along {stage.over}"
    if flat is None:
        needed = [ref.name for ref in stage.own if ref.name in read]
        lines = describe(classify(stage, needed), stage)
    else:
        needed = [ref.name for name, ref, _ in flat.rows if name in read]
        lines = describe(classify(flat.recurrence, needed), flat.recurrence, flat)
        dims = " and ".join(dim for dim, _ in flat.parts)
        title = f"form of {states} along {flat.axis}, {dims} one after another"
    return Section(title, tuple(Line(line) for line in lines))


def _start(state: State, texts: dict[str, str]) -> str:
    start = texts.get(f"initial {state.name}", str(state.initial))
    dtype = f"{state.dtype}, " if state.dtype else ""
    return f"state, {dtype}starts at {start}"


def _factor(text: str) -> str:
    return text if text.isidentifier() else f"({text})"


def _plain(value: float | bool | int | None) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
