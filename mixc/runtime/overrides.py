"""A mixer with params set by its user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..ir.binding import Number, check_params, of_kind, suggestion
from ..ir.errors import ArgumentError
from ..ir.expression import Kind, Literal
from ..ir.mixer import Mixer, Param, Table

Values = Number | Sequence["Values"]


def override(mixer: Mixer, values: Mapping[str, Values]) -> Mixer:
    """``params: {window: 1024}`` with ``{"window": 512}`` --> ``params: {window: 512}``.

    A param with axes takes nested sequences. Raises ArgumentError where a name is no param of the
    mixer, or a value is not of the param's kind.
    """
    tables = {table.name for table in mixer.tables}
    _known(mixer, values)
    check_params(mixer, {name: value for name, value in values.items() if name not in tables})
    return replace(
        mixer,
        params=tuple(_set(p, values[p.name]) if p.name in values else p for p in mixer.params),
        tables=tuple(_fill(t, values[t.name]) if t.name in values else t for t in mixer.tables),
    )


def _known(mixer: Mixer, values: Mapping[str, Values]) -> None:
    names = [param.name for param in mixer.params] + [table.name for table in mixer.tables]
    inputs = [entry.name for entry in mixer.inputs]
    for name in values:
        if name in inputs:
            raise ArgumentError(f"{name} is an input of {mixer.name}: pass it when you call it")
        if name not in names:
            raise ArgumentError(f"{mixer.name} has no param {name!r}{suggestion(name, names)}")


def _set(param: Param, value: Values) -> Param:
    assert isinstance(value, bool | int | float)
    return replace(param, value=Literal(of_kind(value, param.kind)))


def _fill(table: Table, value: Values) -> Table:
    shape, flat = _flatten(value)
    integral = all(isinstance(entry, int) for entry in flat)
    numbers = [float(entry) for entry in flat if isinstance(entry, bool | int | float)]
    if len(shape) != len(table.dims) or len(numbers) != len(flat):
        axes = ", ".join(table.dims)
        raise ArgumentError(f"{table.name}: expected numbers with the axes [{axes}], got {value!r}")
    if table.kind is not Kind.REAL and not integral:
        raise ArgumentError(f"{table.name}: expected integers, got {value!r}")
    return replace(table, shape=shape, values=tuple(numbers))


def _flatten(value: object) -> tuple[tuple[int, ...], tuple[object, ...]]:
    """The shape of nested sequences and their numbers, row-major; ragged ones have shape ()."""
    if not isinstance(value, list | tuple):
        return (), (value,)
    parts = [_flatten(entry) for entry in value]
    shapes = {shape for shape, _ in parts}
    shape = (len(parts), *shapes.pop()) if len(shapes) == 1 else ()
    return shape, tuple(entry for _, flat in parts for entry in flat)
