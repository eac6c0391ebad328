"""Expressions of a packed row: positions inside documents, and nothing read across their ends."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ....ir.expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Size,
    Solve,
    call,
)
from ....ir.rewriting import rebuild
from ...analysis.linear import expression, linear
from ...analysis.masks.normal_form import OPPOSITE
from .packing_plan import Families, packing_error


@dataclass(frozen=True)
class DocumentRewrite:
    """Positions inside documents.

    ``origin`` is the query axis of an attention, if in one. ``near``: inside integer arithmetic or
    a truth value that has the origin; there positions of both sides are counted from the
    beginning of the query's document, which is right wherever the pair is visible, and they
    cancel (i - j stays i - j). Elsewhere a position is counted from its own document, so that
    what depends on keys alone keeps doing so. ``scope`` are the axes of what is around.
    ``visible``: inside a normaliser, whose reductions see visible pairs only.
    """

    families: Families
    origin: str | None = None
    near: bool = False
    scope: frozenset[str] = frozenset()
    visible: frozenset[str] = frozenset()

    def __call__(self, expr: Expr) -> Expr:
        return self._entering(expr)._rewritten(expr)

    def _entering(self, expr: Expr) -> DocumentRewrite:
        scope = expr.axes if self.families.positions(expr.axes) else self.scope
        near = self.near
        if isinstance(expr, Call):
            near = expr.kind <= Kind.INT and (near or self.origin in expr.axes)
        return replace(self, near=near, scope=scope)

    def _rewritten(self, expr: Expr) -> Expr:
        match expr:
            case Index(dim) if (family := self.families.of(dim)) is not None:
                start = self.families.first(family, self._document(dim))
                return call("sub", expr, start)
            case Size(dim) if (family := self.families.of(dim)) is not None:
                return self.families.length(family, self._home(expr, self.scope, family))
            case Read():
                return self._read(expr)
            case Reduce():
                return self._reduce(expr)
            case Solve(_, _, left, right) if self.families.of(left) or self.families.of(right):
                raise packing_error(self.families.mixer, expr, "a system over a whole sequence")
            case Cumsum(_, over) if self.families.of(over) is not None:
                return self._cumsum(expr)
            case Call(fn, args):
                return _tidied(fn, tuple(self(a) for a in args), expr)
            case _:
                return rebuild(expr, self)

    def _document(self, dim: str) -> str:
        """The dim whose position says in which document an index along ``dim`` counts."""
        return self.origin if self.near and self.origin is not None else dim

    def _home(self, term: Expr, axes: frozenset[str], family: str = "") -> str:
        """The position that says in which document a term is: one along ``family``, if any is."""
        positions = self.families.positions(axes)
        positions.sort(key=lambda dim: self.families.of(dim) != family)
        if self.origin is not None and (self.near or self.origin in positions or not positions):
            return self.origin
        if not positions:
            raise packing_error(
                self.families.mixer, term, "this has one value for a whole sequence"
            )
        return positions[0]

    def _at(self, home: str) -> DocumentRewrite:
        """For index expressions that are counted in the document at ``home``."""
        return replace(self, origin=home, near=True)

    def _read(self, read: Read) -> Expr:
        at: list[tuple[str, Expr]] = []
        guards: list[Expr] = []
        for dim, index in read.at:
            family = self.families.of(dim)
            if family is None:
                at.append((dim, self(index)))
            elif isinstance(index, Index) and self.families.of(index.dim) == family:
                at.append((dim, index))
            else:
                place, inside = self._placed(read, family, index)
                at.append((dim, place))
                guards += inside
        found: Expr = Read(self(read.x), tuple(at), read.fill, span=read.span)
        for guard in guards:
            found = call("where", guard, found, _fill(read), span=read.span)
        return found

    def _placed(self, term: Expr, family: str, index: Expr) -> tuple[Expr, list[Expr]]:
        """An index inside a document as a place in the row, and what puts it in the document."""
        home = self._home(term, index.axes if self.families.positions(index.axes) else self.scope)
        inside = self._at(home)(index)
        place = expression(linear(call("add", inside, self.families.first(family, home))))
        if self.families.covers(family, index):
            return place, []
        low, high = call("ge", inside, 0), call("lt", inside, self.families.length(family, home))
        return place, [call("and", low, high)]

    def _reduce(self, reduce: Reduce) -> Expr:
        packed = [d for d in reduce.over if self.families.of(d) and d not in self.visible]
        if not packed:
            return rebuild(reduce, self)
        groups: list[tuple[str, Expr]] = []
        admitted: list[Expr] = []
        home: str | None = None
        for dim, index in reduce.group:
            family = self.families.of(dim)
            if family is None:
                groups.append((dim, self(index)))
                continue
            home = packed[0]
            place, inside = replace(self, origin=None, near=False)._placed(reduce, family, index)
            groups.append((dim, place))
            admitted += inside
        if home is None:
            home = self._home(reduce, reduce.axes)
            if home in packed:
                raise packing_error(
                    self.families.mixer, reduce, "this reduces over a whole sequence"
                )
        inner = replace(self, origin=home, near=False)
        admitted += [self.families.within(dim, home) for dim in packed if dim != home]
        where = None if reduce.where is None else inner(reduce.where)
        for condition in admitted:
            where = condition if where is None else call("and", where, condition)
        x = inner(reduce.x)
        return Reduce(reduce.op, x, reduce.over, where, tuple(groups), span=reduce.span)

    def _cumsum(self, cumsum: Cumsum) -> Expr:
        """The running sum of the row less what it was where the document begins."""
        dim = cumsum.over
        family = self.families.of(dim)
        assert family is not None
        running = replace(cumsum, x=self(cumsum.x))
        start = self.families.first(family, dim)
        if cumsum.reverse:
            start = call("sub", self.families.edge(family, dim, True), 1)
        before = Read(replace(running, exclusive=True), ((dim, start),))
        return call("sub", running, before)


def _fill(read: Read) -> Literal:
    match read.kind:
        case Kind.BOOL:
            return Literal(bool(read.fill))
        case Kind.INT:
            return Literal(int(read.fill))
        case Kind.REAL:
            return Literal(float(read.fill))


def _tidied(fn: str, args: tuple[Expr, ...], expr: Call) -> Expr:
    """The call, with what integer arithmetic cancels: (i - f) - (j - f) --> i - j."""
    made = Call(fn, args, span=expr.span)
    if any(arg.kind is not Kind.INT for arg in args):
        return made
    if fn in ("add", "sub", "neg", "mul"):
        return replace(expression(linear(made)), span=expr.span)
    if fn in OPPOSITE:
        left, right = (linear(arg) for arg in args)
        shared = {item for item in left.terms if item in right.terms}
        if shared:
            kept = (
                replace(side, terms=tuple(t for t in side.terms if t not in shared))
                for side in (left, right)
            )
            return Call(fn, tuple(expression(side) for side in kept), span=expr.span)
    return made
