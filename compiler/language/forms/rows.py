"""What a step may do with other rows than its own."""

from __future__ import annotations

from collections.abc import Callable

from ....ir.expression import Expr
from ....ir.mixer import Equation
from ....ir.names import names_in
from ....ir.rewriting import bound_axes, rebuild, walk
from ..names.scope import Context
from ..terms.complexes import Complex


class Rows:
    """Takes expressions over whole sequences out of a step.

    In a step a value with the loop's axis is its row, so nothing there may bind that axis:
    ``x[T=t - 1]`` or ``cumsum(x, T)`` of values from outside becomes an equation before the loop.
    """

    def __init__(self, context: Context, over: str, own: Callable[[], frozenset[str]]) -> None:
        self.context, self.over, self.own = context, over, own
        self.equations: dict[Expr, Equation] = {}

    def checked(self, value: Expr, loops: tuple[str, ...], hoist: str | None = None) -> Expr:
        """The value, with what runs over whole sequences taken out where ``hoist`` names it.

        Raises:
            SpecError: one that reads other rows of the step's own names.
        """
        rows = {self.over, *loops}
        own = self.own()

        def change(node: Expr) -> Expr:
            if isinstance(node, Complex):
                return Complex(change(node.re), change(node.im), span=node.span)
            if not any(rows & {*bound_axes(n)} for n in walk(node)):
                return node
            names = names_in(node) & own
            if not names:
                return node if hoist is None else self._outside(node, hoist)
            if along := rows & {*bound_axes(node)}:
                raise self._other_rows(node, min(names), min(along))
            return rebuild(node, change)

        return change(value)

    def _outside(self, node: Expr, name: str) -> Expr:
        if node not in self.equations:
            made = self.context.unused(f"{name}_rows")
            self.equations[node] = Equation(made, node, span=node.span)
        return self.equations[node].ref

    def _other_rows(self, node: Expr, name: str, dim: str) -> Exception:
        return self.context.error(
            node.span,
            f"this runs along {dim}, the loop's own axis, and reads `{name}`, which has only "
            "the row at hand here",
            allowed=f"reads and sums along {dim} of values from outside the loop",
            do="carry what earlier rows give in a state, or compute it in a later stage",
        )


__all__ = ["Rows"]
