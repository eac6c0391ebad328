"""The names that expressions read."""

from __future__ import annotations

from collections.abc import Container

from .expression import Expr, Ref
from .rewriting import every_node


def names_in(*exprs: Expr) -> frozenset[str]:
    """The names of the tensors that expressions read."""
    return frozenset(node.name for node in every_node(exprs) if isinstance(node, Ref))


def free_name(name: str, taken: Container[str]) -> str:
    """``name``, or with a number that makes it another than those that are taken."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    return free
