"""Reductions over values that stand end to end: one over each of them, joined.

    sum(softmax(q · concat(U, a, A, b, B), U) * concat(U, c, A, d, B), U)
        --> the sum over A with a and c, plus the sum over B with b and d

Nobody then holds the joined axis, whose positions are looked up one by one, and what is known of
a part's positions (that a mask admits all of them) is known before. Left alone: axes that a tensor
has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce

from ...ir.expression import Call, Expr, Index, Literal, Read, Reduce, Ref, Size, call
from ...ir.mixer import Mixer
from ...ir.rewriting import transform, walk
from ..analysis.linear import Linear, linear, plus
from ..tiles.moving import move

_JOINED = {"all": "and", "any": "or", "sum": "add", "prod": "mul", "max": "max", "min": "min"}
_SIGNS = {"lt": 1, "le": 1, "gt": -1, "ge": -1}


@dataclass
class JoinedAxes:
    """The axes that have the positions of others end to end, which no input has.

    ``fixed`` are lengths that are known. A part that a reduction's terms have anyway is another
    axis of its length, which is put there.
    """

    mixer: Mixer
    fixed: dict[str, int]
    parts: Mapping[str, tuple[str, ...]] = field(init=False)
    twins: dict[str, str] = field(default_factory=dict)  # of a part, by their own names

    def __post_init__(self) -> None:
        given = {dim for one in self.mixer.inputs for dim in one.dims}
        sizes = [(dim, _summands(size)) for dim, size in self.mixer.sizes if dim not in given]
        self.parts = {dim: parts for dim, parts in sizes if len(parts) > 1}

    def apart(self, expr: Expr) -> Expr:
        """``expr`` with reductions over joined axes written as those over the parts."""

        def change(node: Expr) -> Expr | None:
            match node:
                case Reduce(op, _, (dim,), _, ()) if dim in self.parts and op in _JOINED:
                    return self._by_parts(node, dim)
            return None

        return transform(expr, change) if self.parts else expr

    def _by_parts(self, node: Reduce, dim: str) -> Expr | None:
        if any(isinstance(n, Ref) and dim in n.axes for n in walk(node)):
            return None
        held = frozenset[str]().union(*(child.axes for child in node.children))
        made: list[Expr] = []
        before: Expr = Literal(0)
        for part in self.parts[dim]:
            own = self._twin(part, dim) if part in held else part
            if own is None:
                return None
            at = {dim: plus(before, Index(own))}
            x, *asked = (self._decided(move(child, at)) for child in node.children)
            if own not in x.axes:
                return None
            where = asked[0] if asked and asked[0] != Literal(True) else None
            made.append(self.apart(replace(node, x=x, over=(own,), where=where)))
            before = plus(before, Size(part))
        return reduce(lambda a, b: call(_JOINED[node.op], a, b), made)

    def _twin(self, part: str, dim: str) -> str | None:
        if part not in self.fixed or part in self.parts:
            return None
        twin = f"{part}_of_{dim}"
        self.fixed[twin], self.twins[twin] = self.fixed[part], part
        return twin

    def _decided(self, expr: Expr) -> Expr:
        """``expr`` without conditions that hold wherever they are asked, or nowhere."""

        def change(node: Expr) -> Expr | None:
            match node:
                case Call(fn, (a, b)) if fn in _SIGNS:
                    return self._compared(fn, a, b)
                case Call("and", (Literal(True), b)) | Call("and", (b, Literal(True))):
                    return b
                case Call("where", (Literal(bool(admitted)), yes, no)):
                    return yes if admitted else no
                case Read(x, at, fill):
                    kept = tuple((d, plus(e)) for d, e in at if plus(e) != Index(d))
                    return Read(x, kept, fill) if kept else x
            return None

        return transform(expr, change)

    def _compared(self, fn: str, a: Expr, b: Expr) -> Expr | None:
        """What a comparison of positions is wherever it is asked, as far as their bounds tell."""
        less = linear(a).plus(linear(b).scaled(-1)).scaled(_SIGNS[fn])
        strict = fn in ("lt", "gt")
        if self._most(less) < (0 if strict else 1):
            return Literal(True)
        if self._most(less.scaled(-1)) < (1 if strict else 0):
            return Literal(False)
        return None

    def _most(self, form: Linear) -> float:
        """The most that a sum of positions and sizes may be, infinite where a size makes it more
        or a number that is no integer is among them."""
        total = Linear((), form.constant)
        for term, factor in form.terms:
            match term:
                case Index() if factor < 0:  # 0 at least
                    pass
                case Index(dim):
                    size = Size(self.twins.get(dim, dim))
                    total = total.plus(Linear(((size, factor),), -factor))
                case Size():
                    total = total.plus(Linear(((term, factor),), 0))
                case _:
                    return math.inf
        grows = any(factor > 0 for _, factor in total.terms)
        return math.inf if grows or not isinstance(total.constant, int) else total.constant


def _summands(size: Expr) -> tuple[str, ...]:
    """The dims whose sizes a size is the sum of, in order; none where it is anything else."""
    match size:
        case Size(dim):
            return (dim,)
        case Call("add", (Literal(0), Size(dim))):
            return (dim,)
        case Call("add", (a, Size(dim))) if before := _summands(a):
            return (*before, dim)
    return ()


__all__ = ["JoinedAxes"]
