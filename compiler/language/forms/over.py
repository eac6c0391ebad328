"""An attention over several key axes: over the one axis that counts all their positions.

    over: [S, L]   -->   over: S_L, of S * L positions;  s --> s_l // L,  l --> s_l % L

What such an attention sums is read at computed positions (blocks that a table lists, the cells of
a picture), so its kernels walk the listed positions, block by block, as they walk any other axis.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from ....ir.expression import Call, Expr, Index, Read, Reduce, Ref, Size, call
from ....ir.mixer import Attention, Equation, Map
from ....ir.names import names_in
from ....ir.rewriting import bound_axes, rebuild
from ..names.layouts import known_dim
from ..names.scope import Scope
from ..terms.reading import scope_dim
from ..text.grammar import parse
from ..text.positions import Node, Text
from ..text.source import listed


@dataclass(frozen=True)
class Over:
    """The key axes as listed, and the axis that stands for them: for one, itself."""

    dims: tuple[str, ...]
    axis: str

    def folded(self, value: Expr) -> Expr:
        """``value`` by the position along the one axis."""
        return value if len(self.dims) == 1 else replaced(value, self._places())

    def folded_score(self, score: Ref) -> Ref:
        """The name ``score`` with the one axis."""
        if score.dims.isdisjoint(self.dims):
            return score
        return replace(score, dims=score.dims - {*self.dims} | {self.axis})

    def folded_pairs(self, value: Expr, text: Text) -> Expr:
        """The same for an expression in ``score``, whose reductions run over pairs.

        Raises:
            SpecError: a reduction along some of several key axes.
        """
        if len(self.dims) == 1 or "score" not in names_in(value):
            return self.folded(value)
        bound = {*bound_axes(value)} & {*self.dims}
        made = rebuild(value, lambda part: self.folded_pairs(part, text))
        match made:
            case Ref("score"):
                return self.folded_score(made)
            case Reduce(over=over, group=()) if bound == {*self.dims}:
                rest = tuple(dim for dim in over if dim not in bound)
                return replace(made, over=(self.axis, *rest))
            case _ if bound:
                raise text.error(
                    f"a term along {listed(sorted(bound))} alone, of several key axes",
                    allowed=f"reductions over all of {listed([*self.dims])} at once",
                    do=f"write `sum(x, {', '.join(self.dims)})`, or use one key axis",
                )
        return made

    def _places(self) -> dict[str, Expr]:
        """The position along each axis, the last one counting fastest."""
        found: dict[str, Expr] = {}
        rest: Expr = Index(self.axis)
        for dim in reversed(self.dims[1:]):
            found[dim] = call("mod", rest, Size(dim))
            rest = call("floordiv", rest, Size(dim))
        return {self.dims[0]: rest, **found}


_OWN_AXIS = (
    "give the keys an axis of their own; where queries I and keys J are positions of one sequence, "
    "write `dims: {I: T, J: T}`"
)


def listed_axes(over: Text | tuple[Node, ...], key: Text, scope: Scope) -> tuple[str, ...]:
    """The axes that ``over`` names, one or a list; ``key`` is where it stands.

    Raises:
        SpecError: an unknown axis, none, or one twice.
    """
    items = (over,) if isinstance(over, Text) else over
    dims = scope.context.dims
    found: list[str] = []
    for item in items:
        if not isinstance(item, Text):
            raise item.source.error(item.span, "`over` takes one axis, or a list of axes")
        dim = scope_dim(parse(item), scope) or known_dim(item, dims.known, _OWN_AXIS)
        if dim in found:
            raise item.error(f"the axis {dim} is here twice")
        found.append(dims.use(dim, item.span))
    if not found:
        raise key.error("`over` is empty", do="name at least one axis")
    return tuple(found)


def read_over(over: Text | tuple[Node, ...], key: Text, scope: Scope) -> Over:
    """The key axes of an attention; errors as those of ``listed_axes``."""
    dims = listed_axes(over, key, scope)
    return Over(dims, dims[0] if len(dims) == 1 else scope.context.dims.product(dims))


def unfolded(stage: Attention, scope: Scope) -> tuple[Attention] | tuple[Attention, Map]:
    """The stage, and where its weights have several key axes, a map that takes these apart."""
    context = scope.context
    if stage.weights is None or stage.over not in context.dims.products:
        return (stage,)
    whole = replace(stage, weights=context.unused(stage.weights))
    weights = context.dims.unfolded(whole.results[-1])
    return whole, Map((Equation(stage.weights, weights),), stage.name)


def replaced(value: Expr, places: dict[str, Expr]) -> Expr:
    """``value`` with the axes of ``places`` read at those positions."""
    if value.axes.isdisjoint(places):
        return value
    match value:
        case Index(dim):
            return places[dim]
        case Call():
            return rebuild(value, lambda part: replaced(part, places))
        case Reduce(_, _, over, _, group) if _free([*over, *dict(group)], places):
            return rebuild(value, lambda part: replaced(part, places))
        case Read(x, at, fill) if _free(bound_axes(value), places):
            inner = tuple((dim, places[dim]) for dim in sorted(x.axes & places.keys()))
            moved = tuple((dim, replaced(index, places)) for dim, index in at)
            return Read(x, (*moved, *inner), fill, span=value.span)
    at = tuple((dim, places[dim]) for dim in sorted(value.axes & places.keys()))
    return Read(value, at, span=value.span)


def _free(dims: Collection[str], places: Collection[str]) -> bool:
    return {*dims}.isdisjoint(places)


__all__ = ["Over", "listed_axes", "read_over", "replaced", "unfolded"]
