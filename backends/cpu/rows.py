"""Loops over rows, several rows a turn.

A pass over a state is bound by reading it and writing it back. Of several rows that a turn takes,
those passes become one that do not wait for each other's sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...ir.knob import Knob
from ...ir.renaming import with_values
from ...ir.tile import (
    Carried,
    Cast,
    Combine,
    Constant,
    DType,
    Elementwise,
    For,
    Op,
    Program,
    Value,
    made_by,
    operands,
)

ROWS_AT_ONCE = Knob("rows_at_once", (1, 2, 4), 1, "rows of a recurrence that share a pass over it")
_MOST_OPS = 160  # in the body of an unrolled loop
_PLAIN = frozenset("add sub mul neg where max min and or not lt le gt ge eq ne detach".split())


def several_rows(program: Program, times: int) -> Program:
    """for t in a .. b by 1 --> for t in a .. c by ``times``; for t in c .. b by 1.

    Precondition: only loops at the top that step by 1 and have no loops inside.
    """
    made: list[Op] = []
    for op in program.body:
        made += _unrolled(op, times) if isinstance(op, For) else [op]
    return replace(program, body=tuple(made))


def _unrolled(loop: For, times: int) -> list[Op]:
    times = min(times, _MOST_OPS // max(len(loop.body), 1))
    if loop.step != 1 or times < 2 or not _shares_a_pass(loop):
        return [loop]
    name = loop.variable.name
    bounds = _Bounds(name)
    zero = bounds.number(0)
    count = bounds.make("max", bounds.make("sub", loop.stop, loop.start), zero)
    rest = bounds.make("mod", count, bounds.number(times))
    middle = bounds.make("sub", bounds.make("add", loop.start, count), rest)
    between = {c.out.name: _again(c.out, "before_rest") for c in loop.carried}
    body: list[Op] = []
    state = [c.inner for c in loop.carried]
    for copy in range(times):
        known = dict(zip((c.inner.name for c in loop.carried), state, strict=True))
        if copy:
            at, step = (
                _again(loop.variable, f"row{copy}"),
                Value(f"{name}_ahead_{copy}", DType.INT32),
            )
            body += [Constant(step, copy), Elementwise(at, "add", (loop.variable, step))]
            known[name] = at
            known |= {v.name: _again(v, f"row{copy}") for v in _inside(loop.body)}
        body += [_swapped(op, known) for op in loop.body]
        state = [known.get(v.name, v) for v in loop.yields]
    carried = tuple(replace(c, out=between[c.out.name]) for c in loop.carried)
    main = For(loop.variable, loop.start, middle, times, carried, tuple(body), tuple(state))
    own = {v.name: _again(v, "rest") for v in (loop.variable, *_inside(loop.body))}
    own |= {c.inner.name: _again(c.inner, "rest") for c in loop.carried}
    tail = replace(
        loop,
        variable=own[name],
        start=middle,
        carried=tuple(Carried(own[c.inner.name], between[c.out.name], c.out) for c in loop.carried),
        body=tuple(_swapped(op, own) for op in loop.body),
        yields=tuple(own.get(v.name, v) for v in loop.yields),
    )
    return [*bounds.ops, main, tail]


def _shares_a_pass(loop: For) -> bool:
    """Whether a row's wide states are ready before any sum over them is: no sum, no costly
    function and no other op stands between one row's and the next.
    """
    wide = [len(c.inner.axes) > 1 for c in loop.carried]
    if not any(wide):
        return False
    waiting: set[str] = set()  # rows that are carried on and take such sums, as running sums do
    while True:
        summed = _after_sums(loop, waiting)
        if summed is None:
            return False
        late = [v.name in summed for v in loop.yields]
        if any(w and waits for w, waits in zip(wide, late, strict=True)):
            return False
        found = {c.inner.name for c, waits in zip(loop.carried, late, strict=True) if waits}
        if found <= waiting:
            return True
        waiting |= found


def _after_sums(loop: For, waiting: set[str]) -> set[str] | None:
    """What depends on states by more than plain arithmetic, beside what is ``waiting``; None where
    a row computes costly functions of all of a state."""
    states = {c.inner.name for c in loop.carried} - waiting
    summed = set(waiting)
    for op in loop.body:
        reads = {v.name for v in operands(op)}
        wide = isinstance(op, Elementwise) and len(op.out.axes) > 1 and op.fn not in _PLAIN
        if isinstance(op, For) or wide:
            return None
        if reads & summed or (reads & states and not isinstance(op, Elementwise | Cast)):
            summed |= {v.name for v in made_by(op)}
        elif reads & states:
            states |= {v.name for v in made_by(op)}
    return summed


class _Bounds:
    """Integers that are computed before a loop."""

    def __init__(self, hint: str) -> None:
        self.hint = hint
        self.ops: list[Op] = []

    def _fresh(self) -> Value:
        return Value(f"{self.hint}_bound_{len(self.ops)}", DType.INT32)

    def number(self, number: int) -> Value:
        """A constant."""
        self.ops.append(Constant(self._fresh(), number))
        return made_by(self.ops[-1])[0]

    def make(self, fn: str, *args: Value) -> Value:
        """A function of integers."""
        self.ops.append(Elementwise(self._fresh(), fn, args))
        return made_by(self.ops[-1])[0]


def _again(value: Value, suffix: str) -> Value:
    return replace(value, name=f"{value.name}_{suffix}")


def _inside(body: tuple[Op, ...]) -> Iterator[Value]:
    for op in body:
        yield from made_by(op)
        if isinstance(op, Combine):
            yield from (*op.left, *op.right)
            yield from _inside(op.body)


def _swapped(op: Op, names: Mapping[str, Value]) -> Op:
    """An op with other values for some of its own."""
    swapped: Op = with_values(op, lambda value: names.get(value.name, value))
    return swapped
