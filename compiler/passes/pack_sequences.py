"""Documents packed end to end along a sequence, as a rewrite of the mixer.

    j <= i and j < sink  -->  j <= i and j < first_t[i] + sink and first_t[i] <= j < end_t[i]
    u[T=t - l]           -->  where(t - first_t - l >= 0, u[T=t - l], 0)
    i // block           -->  (i - first_t[i]) // block

Every index along a packed axis becomes the position inside its document, every size the
document's length; attentions, reads, reductions and running sums stay inside the document. The
result has inputs more (``packing(...).tables``) that say where documents begin and end; nothing in
the spec changes. Left alone on purpose: inputs without a packed axis, which serve all documents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...ir.errors import UnsupportedError
from ...ir.expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    call,
    rebuild,
    transform,
    walk,
)
from ...ir.mixer import Attention, Equation, Map, Mixer, Stage
from ..analysis.linear import expression, linear
from ..analysis.normal_form import OPPOSITE
from .packing_plan import Families, PackingTable, families_of, query_axis


@dataclass(frozen=True)
class Packing:
    """A packed mixer, and what its new inputs are.

    ``axes``: the axes whose document boundaries the caller gives (one sequence, or the query and
    the key axis of a cross attention); ``derived``: those whose boundaries follow, with the
    length of one document.
    """

    mixer: Mixer
    tables: tuple[PackingTable, ...]
    axes: tuple[str, ...]
    derived: tuple[tuple[str, Expr], ...]


def pack_sequences(mixer: Mixer) -> Mixer:
    """The mixer for documents that lie end to end along its sequences.

    Raises:
        UnsupportedError: a term that has one value for a whole sequence (a mean over T, a value
            without any position): a packed row has several documents.
    """
    return packing(mixer).mixer


def packing(mixer: Mixer) -> Packing:
    """As ``pack_sequences``, with the meaning of the new inputs."""
    families = families_of(mixer)
    opened = _without_lengths_apart(mixer, families)
    lets = tuple(_equation(let, families) for let in opened.lets)
    stages = tuple(_stage(stage, opened, families) for stage in opened.stages)
    _check_outputs(mixer, opened, families)
    derived = dict(families.derived)
    for dim in derived:  # what fixes the length of the axis now
        families.first(dim, dim)
    packed = replace(
        opened,
        inputs=(*opened.inputs, *families.inputs()),
        lets=lets,
        stages=stages,
        sizes=tuple((dim, size) for dim, size in opened.sizes if dim not in derived),
    )
    return Packing(packed, tuple(families.tables.values()), families.base, families.derived)


def _without_lengths_apart(mixer: Mixer, families: Families) -> Mixer:
    """Params and lets without a position that depend on the length, written out where used."""
    values: dict[str, Expr] = {}

    def opened(expr: Expr) -> Expr:
        def change(node: Expr) -> Expr | None:
            return values.get(node.name) if isinstance(node, Scalar | Ref) else None

        return transform(expr, change)

    params = []
    for param in mixer.params:
        value = opened(param.value)
        if not _measures(value, families):
            params.append(param)
        elif param.runtime:
            raise _error(mixer, param.value, f"the run-time param {param.name} has one value")
        else:
            values[param.name] = value
    lets = []
    for let in mixer.lets:
        value = opened(let.value)
        if families.positions(value.axes) or not _measures(value, families):
            lets.append(replace(let, value=value))
        else:
            _check_no_whole(mixer, value, families)
            values[let.name] = value
    stages = tuple(_changed(stage, opened) for stage in mixer.stages)
    return replace(mixer, params=tuple(params), lets=tuple(lets), stages=stages)


def _measures(expr: Expr, families: Families) -> bool:
    """Whether a value depends on a document's length or on a place in it."""
    return any(
        (isinstance(node, Size | Index) and families.of(node.dim) is not None)
        or (isinstance(node, Read) and any(families.of(dim) for dim, _ in node.at))
        or (isinstance(node, Reduce) and any(families.of(dim) for dim in node.over))
        for node in walk(expr)
    )


def _check_no_whole(mixer: Mixer, expr: Expr, families: Families) -> None:
    for node in walk(expr):
        if isinstance(node, Reduce) and any(families.of(dim) for dim in node.over):
            raise _error(mixer, node, "a reduction over a whole sequence has one value")


def _error(mixer: Mixer, term: Expr, what: str) -> UnsupportedError:
    place = "" if term.span is None else f"{mixer.path or mixer.name}:{term.span.line}: "
    return UnsupportedError(
        f"{place}{mixer.name} can't be packed: {what}, and a packed row holds several documents\n"
        f"  found: {term}\n"
        "  allowed: values that belong to a position of the sequence\n"
        "  call it for one document at a time, without cu_seqlens"
    )


def _changed(stage: Stage, change: Callable[[Expr], Expr]) -> Stage:
    """A stage with every expression changed."""
    match stage:
        case Map():
            equations = tuple(replace(e, value=change(e.value)) for e in stage.equations)
            return replace(stage, equations=equations)
        case Attention():
            outputs = tuple(replace(o, value=change(o.value)) for o in stage.outputs)
            mask, sink, gain = (
                None if value is None else change(value)
                for value in (stage.mask, stage.sink, stage.gain)
            )
            return replace(
                stage,
                score=change(stage.score),
                mask=mask,
                weight=change(stage.weight),
                denominator=change(stage.denominator),
                sink=sink,
                gain=gain,
                outputs=outputs,
            )


def _equation(equation: Equation, families: Families) -> Equation:
    return replace(equation, value=_Rewrite(families)(equation.value))


def _stage(stage: Stage, mixer: Mixer, families: Families) -> Stage:
    if isinstance(stage, Map):
        return replace(stage, equations=tuple(_equation(e, families) for e in stage.equations))
    origin = query_axis(mixer, stage)
    packed = [d for d in (stage.over, *sorted(stage.queries)) if families.of(d) and d != origin]
    if origin is None or families.of(origin) is None:
        if families.of(stage.over):
            raise _error(mixer, stage.score, f"the attention over {stage.over} has no position")
        return _changed(stage, _Rewrite(families))
    rewrite = _Rewrite(families, origin)
    rewritten = _changed(replace(stage, mask=None), rewrite)
    assert isinstance(rewritten, Attention)
    inside = replace(rewrite, visible=frozenset(packed) | {origin})
    weight, denominator = inside(stage.weight), inside(stage.denominator)
    mask = None
    if stage.mask is not None:
        mask = replace(rewrite, near=True)(_opened_mask(stage.mask, mixer, families))
    for dim in packed:
        own = families.within(dim, origin)
        mask = own if mask is None else call("and", mask, own)
    return replace(rewritten, mask=mask, weight=weight, denominator=denominator)


def _opened_mask(mask: Expr, mixer: Mixer, families: Families) -> Expr:
    """Lets of positions written out, so that key ranges see what they say."""
    lets = {let.name: let.value for let in mixer.lets}

    def plain(name: str) -> bool:
        nodes = list(walk(lets[name])) if name in lets else []
        reduces = any(isinstance(node, Reduce | Cumsum) for node in nodes)
        return not reduces and any(isinstance(n, Index) and families.of(n.dim) for n in nodes)

    def change(node: Expr) -> Expr | None:
        if isinstance(node, Ref) and plain(node.name):
            return _opened_mask(lets[node.name], mixer, families)
        return None

    return transform(mask, change)


def _check_outputs(mixer: Mixer, opened: Mixer, families: Families) -> None:
    """Refuse outputs without a position that depend on the sequence."""
    values = {let.name: let.value for let in mixer.lets}
    for stage in opened.stages:
        if isinstance(stage, Map):
            values.update({equation.name: equation.value for equation in stage.equations})
    for output in mixer.outputs:
        value = values.get(output.name)
        if value is not None and not families.positions(output.dims) and _measures(value, families):
            raise _error(mixer, value, f"{output.name} has one value")


@dataclass(frozen=True)
class _Rewrite:
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

    def _entering(self, expr: Expr) -> _Rewrite:
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
                return self.families.length(family, self._home(expr, self.scope))
            case Read():
                return self._read(expr)
            case Reduce():
                return self._reduce(expr)
            case Cumsum(_, over) if self.families.of(over) is not None:
                return self._cumsum(expr)
            case Call(fn, args):
                return _tidied(fn, tuple(self(a) for a in args), expr)
            case _:
                return rebuild(expr, self)

    def _document(self, dim: str) -> str:
        """The dim whose position says in which document an index along ``dim`` counts."""
        return self.origin if self.near and self.origin is not None else dim

    def _home(self, term: Expr, axes: frozenset[str]) -> str:
        """The position that says in which document a term is."""
        positions = self.families.positions(axes)
        if self.origin is not None and (self.near or self.origin in positions or not positions):
            return self.origin
        if not positions:
            raise _error(self.families.mixer, term, "this has one value for a whole sequence")
        return positions[0]

    def _at(self, home: str) -> _Rewrite:
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
                raise _error(self.families.mixer, reduce, "this reduces over a whole sequence")
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
