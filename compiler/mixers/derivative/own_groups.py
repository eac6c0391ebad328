"""Sums that give the positions of an axis to positions of the same axis: gradients of reads.

    d_x = sum(d_y, T, T=t // 2)   -->   d_x = sum(d_y[T=t_2], T_2, T=t_2 // 2),  T_2 as long as T

A kernel goes through one axis for each position of another, so the positions that are summed get a
name of their own. Where each position goes to another one, ``(t + 1) % T``, the sum is a read back,
and so it is where channels are put in another order.
"""

from __future__ import annotations

from dataclasses import replace

from ....ir.expression import Call, Expr, Index, Literal, Reduce, Size
from ....ir.mixer import Equation, Map, Mixer
from ....ir.rewriting import transform
from ....ir.roles import feature_dims
from ....ir.stages import names_taken, unused_name
from ...analysis.facts import placed


def own_groups_apart(mixer: Mixer) -> Mixer:
    """The mixer with another axis where maps sum along an axis for each position of the same."""
    twins: dict[str, str] = {}
    taken = names_taken(mixer)
    features = feature_dims(mixer)

    def twin(dim: str) -> str:
        if dim not in twins:
            twins[dim] = unused_name(f"{dim}_2", taken)
            taken.add(twins[dim].lower())
        return twins[dim]

    def change(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce):
            return None
        own = [dim for dim, index in node.group if dim in node.over and dim not in features]
        own = [dim for dim in own if not _comes_around(dim, dict(node.group)[dim])]
        if not own:
            return None
        at: dict[str, Expr] = {dim: Index(twin(dim)) for dim in own}
        return replace(
            node,
            x=placed(node.x, at),
            over=tuple(twins.get(dim, dim) if dim in own else dim for dim in node.over),
            where=None if node.where is None else placed(node.where, at),
            group=tuple((dim, placed(index, at)) for dim, index in node.group),
        )

    def equation(made: Equation) -> Equation:
        return replace(made, value=transform(made.value, change))

    stages = tuple(
        replace(stage, equations=tuple(map(equation, stage.equations)))
        if isinstance(stage, Map)
        else stage
        for stage in mixer.stages
    )
    sizes = (*mixer.sizes, *((own, Size(dim)) for dim, own in twins.items()))
    return replace(mixer, stages=stages, sizes=sizes) if twins else mixer


def _comes_around(dim: str, index: Expr) -> bool:
    """Whether an index takes each position to one of its own: moved around the end, or flipped."""
    match index:
        case Call("mod", (Call("add" | "sub", (Index(own), Literal())), Size(whole))):
            return own == whole == dim
        case Call("sub", (Call("sub", (Size(whole), Literal(1))), Index(own))):
            return own == whole == dim
        case _:
            return False


__all__ = ["own_groups_apart"]
