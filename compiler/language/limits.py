"""Limits on what a mixer becomes where names are written out, as lowering and checks do it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...ir.expression import Expr, Ref
from ...ir.mixer import Attention, Equation, Map, Mixer, Select, assignments
from ...ir.stages import values
from .names.scope import MAX_HEIGHT, MAX_NODES
from .text.source import Source


@dataclass
class Extents:
    """Operations and levels of expressions as trees, with the names in them written out."""

    names: dict[str, tuple[int, int]] = field(default_factory=dict)

    def of(self, expr: Expr) -> tuple[int, int]:
        """Operations and levels; a node that several others share is visited once."""
        known: dict[int, tuple[int, int]] = {}

        def extent(node: Expr) -> tuple[int, int]:
            if isinstance(node, Ref):
                return self.names.get(node.name, (1, 1))
            if id(node) not in known:
                below = [extent(child) for child in node.children]
                levels = max((levels for _, levels in below), default=0)
                known[id(node)] = 1 + sum(nodes for nodes, _ in below), 1 + levels
            return known[id(node)]

        return extent(expr)


def check_inlined(mixer: Mixer, source: Source) -> None:
    """Refuse what becomes too large, at the line where it does.

    Raises:
        SpecError: with what to do.
    """
    extents = Extents()
    for equation in _equations(mixer):
        nodes, levels = extents.of(equation.value)
        if nodes > MAX_NODES or levels > MAX_HEIGHT:
            limit = f"{MAX_NODES} operations" if nodes > MAX_NODES else f"{MAX_HEIGHT} levels"
            do = "simplify the lines that it needs"
            if nodes > MAX_NODES:
                do = f"a line that reads a name twice doubles it: {do}"
            raise source.error(
                equation.span or equation.value.span,
                f"`{equation.name}` becomes too large with the names in it written out",
                allowed=f"at most {limit}",
                do=do,
            )
        extents.names[equation.name] = nodes, levels


def _equations(mixer: Mixer) -> Iterator[Equation]:
    """Everything that has a name, in order, and the clauses of attentions."""
    yield from mixer.lets
    for stage in mixer.stages:
        if isinstance(stage, Attention):
            clauses = {"score": stage.score, "mask": stage.mask, "gain": stage.gain}
            clauses |= {"weight": stage.weight, "denominator": stage.denominator}
            yield from (
                Equation(f"the {name}", value, span=value.span)
                for name, value in clauses.items()
                if value is not None
            )
            yield from (Equation(f"output {o.name}", o.value, span=o.span) for o in stage.outputs)
        elif isinstance(stage, Map):
            yield from stage.equations
        elif isinstance(stage, Select):
            yield from (
                Equation(f"the {name}", value, span=value.span) for name, value in values(stage)
            )
        else:
            yield from (line for line, _ in assignments(stage.step))


__all__ = ["Extents", "check_inlined"]
