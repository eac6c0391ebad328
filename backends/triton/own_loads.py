"""Tiles that a product reads after its turn of the loop has gone on: loaded for it alone.

A product whose sum the loop hands on isn't waited for: Triton starts it and goes on, and copies the
tiles of a later turn while tensor cores still read those of this one. It keeps a buffer more for a
tile that products alone read, but none for one that is read into registers too (in 3.6 to 3.9; its
issue 6691): there the copy would overwrite what is still read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from ...ir.tile import Comment, Dot, For, Load, Op, Program, Value, all_ops, operands


def with_own_loads(program: Program) -> Program:
    """``x = load; y = f(x); sum += a @ x`` --> ``x = load; x2 = load; y = f(x); sum += a @ x2``."""
    taken = {op.out.name for op in all_ops(program.body) if isinstance(op, Load)}
    return replace(program, body=_in(program.body, taken))


def _in(body: tuple[Op, ...], taken: set[str]) -> tuple[Op, ...]:
    return tuple(_of_loop(op, taken) if isinstance(op, For) else op for op in body)


def _of_loop(loop: For, taken: set[str]) -> For:
    loads = {op.out.name: op for op in loop.body if isinstance(op, Load)}
    widely = _read_into_registers(loop.body)
    own: dict[str, Value] = {}
    body: list[Op] = []
    pending = {dot.out.name for dot in _pending(loop)}
    for op in loop.body:
        if isinstance(op, Dot) and op.out.name in pending:
            for factor in (op.a, op.b):
                if factor.name in loads and factor.name in widely and factor.name not in own:
                    own[factor.name] = replace(factor, name=_free(factor.name, taken))
            op = replace(op, a=own.get(op.a.name, op.a), b=own.get(op.b.name, op.b))
        body.append(op)
    return replace(loop, body=_in(tuple(_loaded(body, own)), taken))


def _pending(loop: For) -> Iterator[Dot]:
    """The products that nothing in their turn waits for: sums that are handed on, or added to."""
    readers = Counter(value.name for op in all_ops(loop.body) for value in operands(op))
    yielded = {value.name for value in loop.yields}
    waiting = set[str]()
    for op in reversed(loop.body):
        if not isinstance(op, Dot) or op.acc is None or op.masked:
            continue
        handed_on = op.out.name in yielded and not readers[op.out.name]
        if handed_on or (op.out.name in waiting and readers[op.out.name] == 1):
            waiting.add(op.acc.name)
            yield op


def _read_into_registers(body: tuple[Op, ...]) -> set[str]:
    """What anything but a plain product reads."""
    ops = (op for op in all_ops(body) if not isinstance(op, Dot) or op.masked)
    return {value.name for op in ops for value in operands(op)}


def _loaded(body: list[Op], own: dict[str, Value]) -> Iterator[Op]:
    """The ops, with a second load behind the first."""
    for op in body:
        yield op
        if isinstance(op, Load) and op.out.name in own:
            yield Comment("again, for a product that nothing waits for")
            yield replace(op, out=own[op.out.name], again=True)


def _free(name: str, taken: set[str]) -> str:
    """A name for the factor that no load has."""
    names = (f"{name}_factor{number or ''}" for number in range(len(taken) + 1))
    made = next(free for free in names if free not in taken)
    taken.add(made)
    return made
