"""The names that expressions read."""

from __future__ import annotations

from .expression import Expr, Ref, every_node


def names_in(*exprs: Expr) -> frozenset[str]:
    """The names of the tensors that expressions read."""
    return frozenset(node.name for node in every_node(exprs) if isinstance(node, Ref))
