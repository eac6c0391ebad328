"""Reads at computed positions, and the dims that arguments name."""

from __future__ import annotations

from ....ir.expression import Expr, Index, Kind, Read, Span
from ....ir.rewriting import walk
from ..names.scope import Argument, Scope
from ..text.source import closest, listed
from ..text.surface import Bracket, Name, Node
from .complexes import Complex, by_parts


def read(x: Expr, at: list[tuple[str, Expr]], scope: Scope, span: Span, fill: float = 0.0) -> Expr:
    """``x`` at computed positions, head groups lifted."""
    if isinstance(x, Complex):
        return by_parts(x, lambda part: read(part, at, scope, span, fill))
    dims = scope.context.dims
    keys = [dim for dim, _ in at]
    axes = (x.axes - set(keys)).union(*(e.axes for _, e in at))
    lifted = tuple((dim, dims.lift(e, axes)) for dim, e in at)
    index_axes = frozenset[str]().union(*(e.axes for _, e in lifted))
    released = dims.release(dims.lift(x, axes, keep=keys), keys, index_axes)
    return Read(released, lifted, fill, span=span)


def read_axis(x: Expr, key: Name, scope: Scope) -> str:
    """The axis of ``x`` that a key of a read names."""
    dim = scope_dim(key, scope)
    if dim is None or dim not in x.axes:
        axes = sorted(x.axes)
        raise scope.context.error(
            key.span,
            f"the value read here has no axis `{key.name}`",
            allowed=f"its axes: {listed(axes)}" if axes else "it has no axes",
            do=closest(key.name, axes),
        )
    return dim


def integer_index(index: Expr, span: Span, scope: Scope) -> Expr:
    """An index expression, checked to be an integer."""
    if index.kind is Kind.REAL:
        raise scope.context.error(
            span,
            "an index that is a real number",
            allowed="integers: indices, sizes, integer literals, params and inputs",
            do="give the input `dtype: int32`, or take `floor(…)`",
        )
    return index


def scope_dim(node: Node, scope: Scope) -> str | None:
    """The dim that a node names, if it is a bare dim or a macro's parameter for one."""
    if not isinstance(node, Name):
        return None
    match scope.find(node.name):
        case Argument(inner, outer):
            return scope_dim(inner, outer)
        case None if node.name in scope.context.dims.known:
            return scope.context.dims.use(node.name, node.span)
        case _:
            return None


def position_axis(x: Expr, index: Expr, node: Bracket, scope: Scope) -> str:
    """The one axis of ``x`` that is a position of the same sequence as the index."""
    dims = scope.context.dims
    indices = {dims.sequence(e.dim) for e in walk(index) if isinstance(e, Index)}
    if not indices:
        indices = {dims.sequence(dim) for dim in index.axes}
    found = sorted(dim for dim in x.axes if dims.sequence(dim) in indices)
    if not found and scope.find_gradient() is not None and isinstance(node.x, Name):
        raise scope.context.error(
            node.span,
            f"`{node.x.name}` has one value here, no rows to read at: [{listed(sorted(x.axes))}]",
            do=f"in a step a name is its latest value: a state read above the line that assigns it "
            f"is its value after the row before, so write `{node.x.name}`",
        )
    if len(found) != 1:
        which = f"{' and '.join(found)} are" if found else "no axis of the value is"
        raise scope.context.error(
            node.span,
            f"{which} of the same sequence as the index here",
            allowed=f"the value's axes: {listed(sorted(x.axes))}",
            do=f"name the axis: `[{(found or sorted(x.axes) or ['T'])[0]}=…]`",
        )
    return found[0]


__all__ = ["integer_index", "position_axis", "read", "read_axis", "scope_dim"]
