"""Factors of long sums that every row would compute again: they are stored first.

``sum(exp(-l * a) * silu(x)[T=t - l], L)`` --> the taps ``exp(-l * a)``, the same for all t, and the
signal ``silu(x)``, the same for all l, by kernels of their own. What is cheap stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...ir.expression import TRANSCENDENTAL, Call, Cumsum, Expr, Read, Reduce
from ...ir.rewriting import rebuild, walk

Store = Callable[[Expr], Expr]


def without_repeated_factors(
    expr: Expr, fixed: frozenset[str], sequences: frozenset[str], store: Store
) -> Expr:
    """``expr`` with the costly factors of its long sums replaced by what ``store`` makes of them.

    Args:
        fixed: axes that a tile holds whole; a sum over another one is long.
        sequences: axes of positions; a factor is stored along no more of them than the sum has.
        store: a buffer's name for a value, after a kernel that fills it.
    """

    def visit(node: Expr) -> Expr:
        match node:
            case Reduce("sum", _, over, _, ()) if not fixed.issuperset(over):
                long = frozenset(over) - fixed
                whole = _Sum(long, node.axes - fixed, sequences, len(node.axes & sequences), store)
                return rebuild(node, whole.factor)
            case Call():
                return rebuild(node, visit)
        return node

    return visit(expr)


@dataclass(frozen=True)
class _Sum:
    over: frozenset[str]
    rows: frozenset[str]
    sequences: frozenset[str]
    most: int  # sequences that a factor may have
    store: Store

    def factor(self, node: Expr) -> Expr:
        """An operand of the sum, its costly parts stored."""
        match node:
            case Call() if self.is_same_for_rows(node):
                return self.store(node)
            case Reduce() if self.is_same_for_rows(node):
                return self.store(node)
            case Call():
                return rebuild(node, self.factor)
            case Read(Call() as x, at) if self.is_moved(at) and not x.axes & self.over:
                return Read(self.store(x), at, node.fill) if _is_costly(x) else node
        return node

    def is_same_for_rows(self, node: Expr) -> bool:
        """Whether rows differ along a long axis that a costly value lacks."""
        if len(node.axes & self.sequences) > max(self.most, 1):
            return False
        return bool(self.over & node.axes) and bool(self.rows - node.axes) and _is_costly(node)

    def is_moved(self, at: tuple[tuple[str, Expr], ...]) -> bool:
        return any(index.axes & self.over for _, index in at)


def _is_costly(expr: Expr) -> bool:
    """Whether a value is more than loads and plain arithmetic."""
    return any(
        isinstance(node, Reduce | Cumsum) or (isinstance(node, Call) and node.fn in TRANSCENDENTAL)
        for node in walk(expr)
    )


__all__ = ["without_repeated_factors"]
