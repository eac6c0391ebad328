"""The keys of a later segment's attention: all rows so far, of what its queries read by key.

    score(q[i], k[j]), mask j <= i   -->   score(q[i], k_seen[seen]), mask seen <= i + rows before,
                                           where k_seen has the rows of every segment, this one too

What is kept is an input as it is given (``k``), or a value that is costly or made from other rows
(a rotation, a running sum, what a recurrence made): its rows are then computed once, by the part of
the mixer that goes before the attention. All else is computed anew from what is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ....ir.expression import (
    TRANSCENDENTAL,
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Size,
    Solve,
    call,
)
from ....ir.host import evaluate_host, is_host
from ....ir.mixer import Attention, Equation, Input, Layout, Mixer, Param
from ....ir.rewriting import rebuild, substitute, walk, with_names
from ....ir.roles import feature_dims
from ....ir.stages import changed
from ...analysis.facts import facts_of
from ...analysis.linear import plus
from ...analysis.masks.ranges import key_ranges
from ...analysis.row_reach import is_at_most_zero
from ...passes.fold_constants import fold_constants
from .carried_state import CarriedState, Kept
from .sequence_axis import SequenceAxis

Change = Callable[[Expr], Expr]


@dataclass
class PastKeys:
    """The rewriting of the attentions along the sequence of one mixer.

    ``segment`` is the rewriting of an expression over the rows of the segment itself.
    """

    mixer: Mixer
    axis: SequenceAxis
    carried: CarriedState
    segment: Change
    lets: dict[str, Expr] = field(default_factory=dict)
    over: str = ""  # of the attention that is being rewritten

    def __post_init__(self) -> None:
        for let in self.mixer.lets:
            self.lets[let.name] = with_names(let.value, self.lets)

    def attention(self, stage: Attention) -> Attention:
        """The attention of a segment's queries to every key so far."""
        plain = changed(stage, lambda expr: with_names(expr, self.lets))
        self.over = stage.over
        queries = self.axis.positions(plain.queries)
        if len(queries) != 1 or stage.weights is not None:
            raise self.axis.error(f"attention over {stage.over} needs every key", stage.score)
        self._check_causal(plain, queries[0])
        bare = replace(plain, weight=Literal(1), denominator=Literal(1))
        made = replace(changed(bare, self._keyed), over=self.carried.seen)
        own = {
            "score": Ref("score", made.score.axes, made.score.kind),
            "total": Ref("total", made.queries, Kind.REAL),
        }
        weight, denominator = (
            self._normaliser(with_names(part, own)) for part in (plain.weight, plain.denominator)
        )
        made = replace(made, weight=weight, denominator=denominator)
        if self.carried.counted is None:
            return made
        before = call("sub", Size(self.carried.seen), Size(queries[0]))
        return changed(made, lambda e: substitute(e, {self.carried.rows_before(): before}))

    def _check_causal(self, stage: Attention, row: str) -> None:
        """Refuse a row that may see a key after it."""
        mixer = self.mixer
        flags = {p.name: bool(evaluate_host(p.value, {}, {})) for p in _flags(mixer)}
        mask = None if stage.mask is None else fold_constants(stage.mask, flags)
        found = key_ranges(mask, stage.over, row, facts_of(mixer))
        back = call("neg", Index(row))
        for conjunct in found.disjuncts:
            if not any(is_at_most_zero(plus(b.loose, -1, back)) for b in conjunct.upper):
                j, i = stage.over.lower(), row.lower()
                raise self.axis.error(
                    f"attention over {stage.over} needs every key: no bound of its mask keeps "
                    f"{j} <= {i}, so that rows may see keys that are still to come",
                    Literal(True) if stage.mask is None else stage.mask,
                )

    # --------------------------------------------------------------------- expressions

    def _normaliser(self, expr: Expr) -> Expr:
        """Weight and denominator: what runs along the keys runs along all of them."""
        if isinstance(expr, Ref) and expr.name in ("score", "total"):
            return expr
        if isinstance(expr, Reduce) and self.over in expr.over:
            made = rebuild(expr, self._normaliser)
            assert isinstance(made, Reduce)
            over = tuple(self.carried.seen if d == self.over else d for d in expr.over)
            return replace(made, over=over)
        if not any(isinstance(n, Ref) and n.name in ("score", "total") for n in walk(expr)):
            return self._keyed(expr)
        return rebuild(expr, self._normaliser)

    def _keyed(self, expr: Expr) -> Expr:
        """``expr`` with the positions and the values of keys those of all keys so far."""
        if self.over not in expr.axes:
            return self.segment(expr)
        if isinstance(expr, Index):
            return Index(self.carried.seen)
        several = len(self.axis.positions(expr.axes)) > 1
        if not several and self._is_kept(expr):
            return self._kept(expr)
        if self._is_leaf(expr):
            raise self.axis.error("this pairs rows of the sequence with each other", expr)
        return rebuild(expr, self._keyed)

    def _is_leaf(self, expr: Expr) -> bool:
        """Whether a value can't be had from the values of the same keys below it."""
        match expr:
            case Ref():
                return True
            case Read(_, at):
                return any(self.axis.has(dim) for dim, _ in at)
            case Cumsum(_, over):
                return self.axis.has(over)
            case _:
                return False

    def _is_kept(self, expr: Expr) -> bool:
        if self._is_leaf(expr):
            return True
        refs = [n for n in walk(expr) if isinstance(n, Ref)]
        kept = expr.axes - {self.over}
        return _is_costly(expr) and any(
            self.axis.positions(ref.axes) and kept <= ref.axes for ref in refs
        )

    def _kept(self, expr: Expr) -> Ref:
        if expr not in self.carried.keys:
            given = self._given(expr)
            known = (k for k in self.carried.keys.values() if given and k.name == given.name)
            made = next(known, None)
            if made is None:
                made = self._computed(expr) if given is None else self._of(given)
            self.carried.keys[expr] = made
        kept = self.carried.keys[expr]
        return Ref(kept.before, expr.axes - {self.over} | {self.carried.seen}, expr.kind)

    def _given(self, expr: Expr) -> Input | None:
        """The input whose rows these are, just as they are given."""
        match expr:
            case Ref(name):
                dim = self.over
            case Read(Ref(name), ((dim, Index(self.over)),)):
                pass
            case _:
                return None
        found = next((i for i in self.mixer.inputs if i.name == name), None)
        if found is None or found.default is not None or (dim,) not in found.layout:
            return None
        return found

    def _of(self, given: Input) -> Kept:
        layout = tuple(
            (self.carried.seen,) if len(axis) == 1 and self.axis.has(axis[0]) else axis
            for axis in given.layout
        )
        before = self.carried.free(f"{given.name}_seen")
        entry = replace(given, name=before, layout=layout, sorted=False)
        place = layout.index((self.carried.seen,))
        return Kept(given.name, given.name, entry, place, given.layout)

    def _computed(self, expr: Expr) -> Kept:
        value = self.segment(expr)
        stem = self.carried.free(f"{self._stem(expr)}_keys")
        dims = self._order(expr.axes)
        rows: Layout = tuple((d,) for d in dims)
        layout = tuple((self.carried.seen,) if d == self.over else (d,) for d in dims)
        wide = expr.kind is Kind.REAL and not expr.axes & feature_dims(self.mixer)
        dtype = "float32" if wide else "int32" if expr.kind is Kind.INT else None
        entry = Input(self.carried.free(f"{stem}_seen"), layout, expr.kind, dtype)
        after = self.carried.free(f"{stem}_after")
        first, later = Equation(after, expr), Equation(after, value)
        return Kept(stem, after, entry, layout.index((self.carried.seen,)), rows, first, later)

    def _order(self, dims: frozenset[str]) -> tuple[str, ...]:
        """As the first input has them that has all."""
        found = (i for i in self.mixer.inputs if dims <= {*i.dims})
        model = next(found, None)
        if model is None:
            return self.carried.ordered(dims)
        return tuple(dim for dim in model.dims if dim in dims)

    def _stem(self, expr: Expr) -> str:
        named = next((name for name, value in self.lets.items() if value == expr), None)
        inner = next((n.name for n in walk(expr) if isinstance(n, Ref)), self.over.lower())
        return named or inner


def _is_costly(expr: Expr) -> bool:
    """Whether an element takes more than a few operations on what is there already."""
    return any(
        isinstance(n, Reduce | Cumsum | Solve) or (isinstance(n, Call) and n.fn in TRANSCENDENTAL)
        for n in walk(expr)
    )


def _flags(mixer: Mixer) -> list[Param]:
    return [p for p in mixer.params if p.flag and is_host(p.value)]


__all__ = ["PastKeys"]
