"""Walks over expressions, and expressions made of others: each shared node is seen once.

An expression is a graph whose nodes several places may share; nothing here takes it apart into a
tree, whose size can be exponential in the graph's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from .expression import Call, Cumsum, Expr, Literal, Read, Reduce, Ref, Solve


def walk(expr: Expr) -> Iterator[Expr]:
    """Every node of the tree, parents before children, one that several places share once."""
    return every_node([expr])


def tree_size(expr: Expr) -> int:
    """How many nodes an expression has as a tree, one that n places share n times."""
    sizes: dict[int, int] = {}

    def size(node: Expr) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 1 + sum(size(child) for child in node.children)
        return sizes[id(node)]

    return size(expr)


def every_node(exprs: Iterable[Expr]) -> Iterator[Expr]:
    """Every node of some trees, one that several places share once."""
    pending, seen = list(exprs)[::-1], set[int]()
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            pending += node.children[::-1]
            yield node


def bound_axes(expr: Expr) -> tuple[str, ...]:
    """The axes of its operands that a node itself runs along: it sees all their positions."""
    match expr:
        case Reduce(_, _, over):
            return over
        case Read(_, at):
            return tuple(dim for dim, _ in at)
        case Cumsum(_, over):
            return (over,)
        case Solve(_, _, left, right):
            return (left, right)
        case _:
            return ()


def rebuild(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The same node with ``change`` applied to each direct child; itself where none changes."""
    old = expr.children
    new = tuple([change(child) for child in old])
    if all(map(operator.is_, old, new)):
        return expr
    match expr:
        case Call(fn):
            return Call(fn, new, span=expr.span)
        case Reduce(op, _, over, where, group):
            indices = new[1:] if where is None else new[2:]
            return Reduce(
                op,
                new[0],
                over,
                None if where is None else new[1],
                tuple((dim, index) for (dim, _), index in zip(group, indices, strict=True)),
                span=expr.span,
            )
        case Read(_, at, fill):
            moved = tuple((dim, index) for (dim, _), index in zip(at, new[1:], strict=True))
            return Read(new[0], moved, fill, span=expr.span)
        case Cumsum():
            return replace(expr, x=new[0])
        case Solve():
            return replace(expr, matrix=new[0], vector=new[1])
    return expr


def transform(expr: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """Replace nodes bottom-up: ``change`` gives a replacement, or None to keep a node.

    A node that several others share is changed once, and shared in the result.
    """
    done: dict[int, Expr] = {}

    def renewed(node: Expr) -> Expr:
        if id(node) not in done:
            new = rebuild(node, renewed)
            replacement = change(new)
            done[id(node)] = new if replacement is None else replacement
        return done[id(node)]

    return renewed(expr)


def substitute(expr: Expr, values: Mapping[Expr, Expr]) -> Expr:
    """``expr`` with every occurrence of a key replaced by its value.

    The keys are leaves (``Ref``, ``Scalar``, ``Size``, ``Index``); the caller sees to it that no
    axis of a value is bound by a reduction around the place where it lands.
    """
    return transform(expr, values.get)


def conjuncts(mask: Expr) -> list[Expr]:
    """What must all hold."""
    match mask:
        case Call("and", args):
            return [part for arg in args for part in conjuncts(arg)]
        case _:
            return [mask]


def with_names(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    """``expr`` with every ``Ref`` that ``values`` names, whatever its axes, replaced by its value.

    What stands in a value is left as it is, so a value may mention the name that it replaces.
    """
    done: dict[int, Expr] = {}

    def change(node: Expr) -> Expr:
        if isinstance(node, Ref):
            return values.get(node.name, node)
        if id(node) not in done:
            done[id(node)] = rebuild(node, change)
        return done[id(node)]

    return change(expr)


def shared(expr: Expr) -> Expr:
    """The same expression with one object for all equal parts."""
    made: dict[object, Expr] = {}
    done: dict[int, Expr] = {}

    def own(node: Expr) -> Expr:
        if id(node) not in done:
            new = rebuild(node, own)
            key = (rebuild(new, lambda _: Literal(0)), *(id(child) for child in new.children))
            done[id(node)] = made.setdefault(key if new.children else new, new)
        return done[id(node)]

    return own(expr)


__all__ = [
    "bound_axes",
    "every_node",
    "rebuild",
    "shared",
    "substitute",
    "transform",
    "tree_size",
    "walk",
    "with_names",
]
