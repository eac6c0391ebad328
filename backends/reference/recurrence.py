"""The recurrence form: the step for one row after another, as it is written.

See ``ir/mixer.py: Recurrence`` for what it means. Nothing is written in place, so that autograd
goes through.

In float64 this is the definition. In a lower precision it is the yardstick for kernels, which keep
states, and all that is elementwise in a step, in float32, and round the factors of products to the
precision of their inputs, as matrix units take them: so does this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ...ir.expression import Kind, Ref
from ...ir.mixer import Equation, Recurrence, State, assignments
from ...ir.names import names_in
from .bodies import Body, body_of
from .scope import Scope, shared_nodes
from .values import Setting, Value

_Values = dict[str, Value]


def recur(stage: Recurrence, scope: Scope) -> _Values:
    """Every name that the stage makes: rows of the step's own names, and last states."""
    setting = scope.setting.of_steps()
    states = {state.name: state for state in stage.states}
    terms = [equation.value for equation, _ in assignments(stage.step)]
    terms += [state.initial for state in stage.states]
    terms += [] if stage.reset is None else [stage.reset]
    body = body_of(stage.over, stage.step, states, setting.sizes, stage.reset)
    outside = names_in(*terms) - states.keys() - body.own.keys()
    known = {name: setting.in_steps(scope.named(name)) for name in sorted(outside)}
    within = Scope(setting, known, shared=shared_nodes(terms))
    initial = {
        name: _as_state(setting, state, within.value(state.initial))
        for name, state in states.items()
    }
    rows, last = _loop(body, within, initial, stage.reverse)
    return {name: scope.setting.after_steps(row) for name, row in rows.items()} | last


def _loop(
    body: Body, outer: Scope, states: Mapping[str, Value], reverse: bool = False
) -> tuple[_Values, _Values]:
    """The loop's own names, whole, and the states that it leaves."""
    outer = replace(outer, names=dict(outer.names))
    for line in body.ahead:
        outer.names[line.name] = outer.value(line.value)
    setting, over = outer.setting, body.over
    count = setting.sizes[over]
    names = {n: _rows(outer.names[n], over, count) for n in body.read if n in outer.names}
    fixed = {id(term): _rows(outer.value(term), over, count) for term in body.fixed}
    made: list[_Values] = [{} for _ in range(count)]
    states = dict(states)
    for at in reversed(range(count)) if reverse else range(count):
        row = Scope(
            replace(
                setting, sizes={**setting.sizes, over: 1}, rows={**setting.rows, over: (at, count)}
            ),
            {**{name: rows[at] for name, rows in names.items()}, **states},
            shared=outer.shared,
        )
        _step(body, row, {key: rows[at] for key, rows in fixed.items()})
        states = {name: row.names[name] for name in states}
        made[at] = row.names
    results = {}
    for name, ref in body.own.items():
        if any(line.name == name for line in body.ahead):
            results[name] = setting.expanded(outer.names[name], ref.axes)
        else:
            results[name] = _together(setting, ref, over, [row[name] for row in made])
    return results, states


def _step(body: Body, row: Scope, fixed: Mapping[int, Value]) -> None:
    """The lines of one row, whose names ``row`` has; ``fixed`` are terms by identity."""
    setting = row.setting
    if body.reset is not None:
        row.done = dict(fixed)
        reset = setting.of_kind(row.value(body.reset), Kind.BOOL)
        for name, state in body.states.items():
            row.names[name] = _as_state(setting, state, _where_not(setting, reset, row.names[name]))
    for line in body.lines:
        row.done = dict(fixed)  # a shared term means another value once a name has changed
        match line:
            case Equation(name, value):
                found = row.value(value)
                if name in body.states:
                    found = _as_state(setting, body.states[name], found)
                row.names[name] = found
            case Body():
                made, states = _loop(line, row, {name: row.names[name] for name in body.states})
                row.names.update(made | states)


def _rows(value: Value, over: str, count: int) -> list[Value]:
    """The rows of a value, each with the axis still, of length 1."""
    if over not in value.dims:
        return [value] * count
    return [Value(row, value.dims) for row in torch.split(value.tensor, 1, value.dims.index(over))]


def _together(setting: Setting, ref: Ref, over: str, rows: list[Value]) -> Value:
    """Rows as one value with all the axes of ``ref``."""
    dims = setting.ordered(ref.axes)
    if not rows:
        dtype = {Kind.BOOL: torch.bool, Kind.INT: torch.int64, Kind.REAL: setting.dtype}[ref.kind]
        return Value(torch.empty(setting.shape(dims), dtype=dtype, device=setting.device), dims)
    one = replace(setting, sizes={**setting.sizes, over: 1})
    parts = [one.expanded(one.of_kind(row, ref.kind), dims).tensor for row in rows]
    return Value(torch.cat(parts, dims.index(over)), dims)


def _where_not(setting: Setting, reset: Value, state: Value) -> Value:
    dims = setting.ordered({*reset.dims, *state.dims})
    condition, tensor = setting.aligned([reset, state], dims)
    return Value(torch.where(condition, torch.zeros_like(tensor), tensor), dims)


def _as_state(setting: Setting, state: State, value: Value) -> Value:
    """A value in the axes of a state, without those of the loops, in the state's precision."""
    value = setting.of_kind(value, state.kind)
    loops = [dim for dim in value.dims if dim not in state.dims]
    tensor = value.tensor
    for dim in reversed(loops):
        assert dim in setting.rows, f"{state.name} has no axis {dim}"
        tensor = tensor.squeeze(value.dims.index(dim))
    kept = Value(tensor, tuple(dim for dim in value.dims if dim in state.dims))
    kept = setting.expanded(kept, state.dims)
    return Value(_in_precision(setting, state, kept.tensor), kept.dims)


def _in_precision(setting: Setting, state: State, tensor: Tensor) -> Tensor:
    if state.kind is not Kind.REAL:
        return tensor
    tensor = tensor.to(setting.dtype)
    if state.dtype is None or setting.dtype == torch.float64:
        return tensor
    return tensor.to(getattr(torch, state.dtype)).to(setting.dtype)
