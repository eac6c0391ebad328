"""Where the values of a tile program are read: what decides how each is written."""

from __future__ import annotations

from collections import Counter

from ...ir.tile import (
    Cast,
    Dot,
    Elementwise,
    For,
    Load,
    Op,
    Reduce,
    Rename,
    Store,
    Value,
    all_ops,
    made_by,
    operands,
)
from .layout import Layout


def count_uses(body: tuple[Op, ...]) -> Counter[str]:
    """How often each value is read, handing it to a loop's next turn counted."""
    uses: Counter[str] = Counter()
    for op in all_ops(body):
        uses.update(v.name for v in operands(op))
        if isinstance(op, For):
            uses.update(v.name for v in op.yields)
    return uses


def computed_with(body: tuple[Op, ...]) -> set[str]:
    """Values that are read otherwise than as a place in memory."""
    names: set[str] = set()
    for op in all_ops(body):
        match op:
            case Load(_, _, _, mask, _):
                read: tuple[Value, ...] = () if mask is None else (mask,)
            case Store(_, _, value, mask):
                read = (value,) if mask is None else (value, mask)
            case _:
                read = operands(op)
        names.update(v.name for v in read)
    return names


def handed_over(body: tuple[Op, ...]) -> set[str]:
    """Values that a loop hands to its next turn, made in that loop's own body."""
    handed: set[str] = set()
    for op in all_ops(body):
        if isinstance(op, For):
            own = {o.out.name for o in op.body if isinstance(o, Dot | Elementwise | Cast | Reduce)}
            handed |= {v.name for v in op.yields} & own
    return handed


def going_on(body: tuple[Op, ...]) -> set[str]:
    """Values that a loop starts from, or that are read under another name."""
    names: set[str] = set()
    for op in all_ops(body):
        match op:
            case For(carried=carried):
                names |= {c.initial.name for c in carried}
            case Rename(_, x):
                names.add(x.name)
            case _:
                pass
    return names


def turned_masks(body: tuple[Op, ...], layout: Layout) -> set[str]:
    """Masks that nothing reads but loads in another order of axes than that of registers."""
    turned: Counter[str] = Counter()
    for op in all_ops(body):
        if isinstance(op, Load) and op.mask is not None:
            order = layout.of(op.out)
            here = tuple(a for a in order if a in op.mask.axes)
            turned[op.mask.name] += here != layout.of(op.mask)
    uses = count_uses(body)
    return {name for name, count in turned.items() if count == uses[name]}


def scopes(body: tuple[Op, ...]) -> dict[str, tuple[int, bool]]:
    """Each value's loop depth, and whether all its uses are in the op list that makes it."""
    places: dict[str, tuple[int, ...]] = {}
    same: dict[str, bool] = {}

    def visit(ops: tuple[Op, ...], path: tuple[int, ...]) -> None:
        for n, op in enumerate(ops):
            for value in operands(op):
                if places.get(value.name, path) != path:
                    same[value.name] = False
            if isinstance(op, For):
                inner = (*path, n)
                for carried in op.carried:
                    places[carried.inner.name] = inner
                    places[carried.out.name] = path
                places[op.variable.name] = inner
                visit(op.body, inner)
                for value in op.yields:
                    if places.get(value.name, inner) != inner:
                        same[value.name] = False
            else:
                places.update({value.name: path for value in made_by(op)})

    visit(body, ())
    return {name: (len(path), same.get(name, True)) for name, path in places.items()}
