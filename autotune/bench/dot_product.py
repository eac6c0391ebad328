"""Whether a mixer is dot-product attention, the form that the peers of ``mixc bench`` take.

softmax over j of score(sum_d q_id k_jd, i, j) where mask(i, j), times v_je: the terms of score and
mask beside the product may read any input at positions of the batch, the head, i and j.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...compiler.passes.fold_constants import fold_constants
from ...ir.binding import Number, param_values
from ...ir.errors import UnsupportedError
from ...ir.expression import Call, Expr, Index, Kind, Literal, Read, Reduce, Ref
from ...ir.host import evaluate_host, is_host
from ...ir.mixer import Attention, Mixer
from ...ir.rewriting import rebuild, walk
from ...ir.roles import query_axis
from .work import inlined

PRODUCT = Ref("score", frozenset(), Kind.REAL)  # the scaled product, in what is left of a score


@dataclass(frozen=True, slots=True)
class DotProduct:
    """The parts of a dot-product attention.

    ``score`` is in ``PRODUCT``, ``mask`` None where all is visible; both have literals in place of
    params and sizes. Each tensor's axes are ``(batch, heads, positions, features)`` by dim; an
    absent one is None. ``names`` are the inputs that score, mask and sink read; ``sink`` is the
    logit of a key without a value, ``lacks`` the outputs besides the weighted sum: the log-sum.
    """

    query: str
    key: str
    value: str
    axes: Mapping[str, tuple[str | None, str | None, str, str]]
    score: Expr
    mask: Expr | None
    output: str
    names: tuple[str, ...]
    sink: Expr | None = None
    lacks: tuple[str, ...] = ()

    @property
    def index_dims(self) -> tuple[str | None, str | None, str, str]:
        """The dims of batch, head, query and key."""
        batch, head, row, _ = self.axes[self.query]
        return batch, head, row, self.axes[self.key][2]

    @property
    def factor_and_bias(self) -> tuple[float, Expr | None] | None:
        """The score as factor * product + bias, where it is linear in the product."""
        return _linear(self.score)

    @property
    def is_causal(self) -> bool:
        """Whether the mask is j <= i and nothing else."""
        *_, row, key = self.index_dims
        orders = (Call("le", (Index(key), Index(row))), Call("ge", (Index(row), Index(key))))
        return self.mask in orders


def dot_product(
    mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number] = {}
) -> DotProduct:
    """The parts of a mixer that is dot-product attention at these sizes.

    Raises UnsupportedError, with the first thing that it has and dot-product attention has not.
    """
    if len(mixer.stages) != 1:
        raise UnsupportedError("it has several stages")
    if not isinstance(mixer.stages[0], Attention):
        raise UnsupportedError("it is no attention")
    return _Reader(mixer, mixer.stages[0], sizes, param_values(mixer, sizes, params)).read()


class _Reader:
    def __init__(
        self,
        mixer: Mixer,
        stage: Attention,
        sizes: Mapping[str, int],
        params: Mapping[str, Number],
    ) -> None:
        self.mixer, self.stage, self.sizes, self.params = mixer, stage, sizes, params
        self.row = query_axis(mixer, stage)
        self.real = {i.name for i in mixer.inputs if i.kind is Kind.REAL}

    def read(self) -> DotProduct:
        """The parts, or what stands in the way."""
        mixer, stage = self.mixer, self.stage
        total = Ref("total", stage.queries, Kind.REAL)
        if not (isinstance(stage.weight, Call) and stage.weight.fn == "exp") or not (
            isinstance(stage.denominator, Ref) and stage.denominator.name == total.name
        ):
            raise UnsupportedError("its weights are no softmax")
        if stage.gain is not None:
            raise UnsupportedError("it has a gain")
        others = tuple(o.name for o in mixer.outputs[1:])
        if (
            len(stage.outputs) != 1
            or mixer.outputs[0].name != stage.outputs[0].name
            or not {*others} <= {stage.lse}
        ):
            raise UnsupportedError("its result is not the weighted sum alone")
        score = self._plain(stage.score)
        product = self._product(score)
        query, key = self._factors(product)
        value = self._tensor(self._plain(stage.outputs[0].value), "its value")
        left = _replaced(score, product)
        mask = None if stage.mask is None else self._plain(stage.mask)
        if isinstance(mask, Literal):
            mask = None if mask.value else mask
        features = stage.outputs[0].value.axes - stage.queries - {stage.over}
        if len(features) != 1:
            raise UnsupportedError("its value has not one axis of features")
        (summed,), (kept,) = product.over, features
        axes = {query: self._axes(query, self.row, summed)}
        axes |= {key: self._axes(key, stage.over, summed)}
        axes |= {value: self._axes(value, stage.over, kept)}
        sink = None if stage.sink is None else self._plain(stage.sink)
        for part in (left, mask, sink):
            self._check_elementwise(part, axes[query])
        names = {n.name for part in (left, mask, sink) for n in _references(part)}
        read = tuple(sorted(names - {PRODUCT.name}))
        output = mixer.outputs[0].name
        return DotProduct(query, key, value, axes, left, mask, output, read, sink, others)

    def _plain(self, expr: Expr) -> Expr:
        """Lets inlined, host numbers as literals."""

        def folded(node: Expr) -> Expr:
            if is_host(node):
                return Literal(evaluate_host(node, self.sizes, self.params))
            return rebuild(node, folded)

        return fold_constants(folded(inlined(self.mixer, expr)), self.params, self.sizes)

    def _product(self, score: Expr) -> Reduce:
        sums = {n for n in walk(score) if isinstance(n, Reduce) and n.op == "sum"}
        whole = {n for n in sums if {self.row, self.stage.over} <= n.axes}
        if len(whole) != 1:
            raise UnsupportedError("its score has not one product of queries and keys")
        return whole.pop()

    def _factors(self, product: Reduce) -> tuple[str, str]:
        if product.where is not None or product.group or len(product.over) != 1:
            raise UnsupportedError("its score is no plain product")
        match product.x:
            case Call("mul", (a, b)):
                pair = [self._tensor(x, "its score's product") for x in (a, b)]
            case _:
                raise UnsupportedError("its score is no product of two inputs")
        pair.sort(key=lambda name: self.stage.over in self.mixer.input(name).dims)
        return pair[0], pair[1]

    def _tensor(self, expr: Expr, what: str) -> str:
        """The input that a term is, groups of heads apart."""
        heads = dict(self.mixer.heads)
        match expr:
            case Read(Ref(name), ((dim, _),)) if dim in heads and name in self.real:
                return name
            case Ref(name) if name in self.real:
                return name
        raise UnsupportedError(f"{what} is computed from the inputs, not an input")

    def _axes(
        self, name: str, position: str, feature: str
    ) -> tuple[str | None, str | None, str, str]:
        dims = self.mixer.input(name).dims
        others = [d for d in dims if d not in (position, feature)]
        if len(others) > 2:  # heads as groups of rows: one of them may be one alone
            others = [others[0], *(d for d in others[1:] if self.sizes[d] != 1)]
        if position not in dims or feature not in dims or len(others) > 2:
            raise UnsupportedError(f"{name} has other axes than batch, heads, positions, features")
        grouped = {d for pair in self.mixer.heads for d in pair}
        if len(others) == 2:
            return others[0], others[1], position, feature
        if others and others[0] in grouped:
            return None, others[0], position, feature
        return (others[0] if others else None), None, position, feature

    def _check_elementwise(
        self, part: Expr | None, axes: tuple[str | None, str | None, str, str]
    ) -> None:
        allowed = {*axes[:3], self.stage.over, *(d for d, size in self.sizes.items() if size == 1)}
        for node in () if part is None else walk(part):
            if isinstance(node, Read) and isinstance(node.x, Ref):
                continue
            if not isinstance(node, Call | Ref | Index | Literal):
                raise UnsupportedError("its score or mask has terms that are not elementwise")
        if part is not None and not part.axes <= allowed:
            raise UnsupportedError("its score or mask has axes of its own")


def _replaced(score: Expr, product: Expr) -> Expr:
    if score == product:
        return PRODUCT
    return rebuild(score, lambda child: _replaced(child, product))


def _references(part: Expr | None) -> list[Ref]:
    return [] if part is None else [n for n in walk(part) if isinstance(n, Ref)]


def _linear(score: Expr) -> tuple[float, Expr | None] | None:
    if score == PRODUCT:
        return 1.0, None
    if PRODUCT not in set(walk(score)):
        return 0.0, score
    match score:
        case Call("mul" | "div", (a, Literal(value))):
            return _scaled(_linear(a), float(value) if score.fn == "mul" else 1 / float(value))
        case Call("mul", (Literal(value), a)):
            return _scaled(_linear(a), float(value))
        case Call("neg", (a,)):
            return _scaled(_linear(a), -1.0)
        case Call("add" | "sub", (a, b)):
            right = _linear(b)
            sides = _linear(a), _scaled(right, -1.0) if score.fn == "sub" else right
            if sides[0] is None or sides[1] is None:
                return None
            parts = [side[1] for side in sides if side is not None and side[1] is not None]
            bias = Call("add", (parts[0], parts[1])) if len(parts) == 2 else next(iter(parts), None)
            return sides[0][0] + sides[1][0], bias
        case _:
            return None


def _scaled(
    linear: tuple[float, Expr | None] | None, by: float
) -> tuple[float, Expr | None] | None:
    if linear is None:
        return None
    factor, bias = linear
    return factor * by, None if bias is None else Call("mul", (Literal(by), bias))
