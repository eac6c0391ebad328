"""Leave out ops whose results nothing reads."""

from __future__ import annotations

from dataclasses import replace

from ...ir.tile import (
    Combine,
    Comment,
    Convolve,
    For,
    Op,
    Program,
    Store,
    all_ops,
    made_by,
    operands,
)
from ...ir.transform import Transform


def remove_dead_ops(program: Program) -> Program:
    """``r = range; x = load`` --> ``x = load`` where nothing reads r.

    Tiles that no value has go too. Stores stay, and loops that hold one or whose results are read;
    a loop keeps all it carries.
    """
    body = program.body
    while True:
        read = _read(body)
        kept = _without(body, read)
        if kept == body:
            break
        body = kept
    named = {a for op in all_ops(body) if not isinstance(op, Store | Comment) for a in _axes(op)}
    named |= {axis.dim for axis in program.grid}
    steps = {op.step for op in all_ops(body) if isinstance(op, For)}
    used = _read(body)
    tiles = tuple(
        t for t in program.tiles if t.dim in named or t.symbol in steps or t.symbol in used
    )
    return replace(program, body=body, tiles=tiles)


def _axes(op: Op) -> frozenset[str]:
    return frozenset[str]().union(*(v.axes for v in made_by(op)))


def _read(body: tuple[Op, ...]) -> frozenset[str]:
    names = {value.name for op in all_ops(body) for value in operands(op)}
    for op in all_ops(body):
        match op:
            case For(yields=values):
                names |= {v.name for v in values}
            case Combine(body=inner, results=values):
                names |= {v.name for v in values}
                names |= {v.name for part in inner for v in operands(part)}
            case _:
                pass
    return frozenset(names)


def _without(body: tuple[Op, ...], read: frozenset[str]) -> tuple[Op, ...]:
    kept: list[Op] = []
    for op in body:
        match op:
            case Store() | Convolve() | Transform() | Comment():
                kept.append(op)
            case For():
                stores = any(isinstance(inner, Store) for inner in all_ops(op.body))
                if stores or any(c.out.name in read for c in op.carried):
                    kept.append(replace(op, body=_without(op.body, read)))
            case _:
                if any(value.name in read for value in made_by(op)):
                    kept.append(op)
    return tuple(kept)
