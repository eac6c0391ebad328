"""What an analysis may take for granted about the names in an expression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

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
    transform,
    walk,
)
from ...ir.host import evaluate_host
from ...ir.mixer import Mixer


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with known properties.

    ``sorted``: (tensor, dim) pairs, non-decreasing along dim. ``positive``: names of scalars that
    are greater than 0. ``sequences``: (dim, sequence) as in ``Mixer.sequences``; a read at the
    position of one dim of a sequence is never outside another. ``lets``: names to look through.
    ``values``: compile-time params whose number is known; conditions on them alone are decided.
    """

    sorted: frozenset[tuple[str, str]] = frozenset()
    positive: frozenset[str] = frozenset()
    sequences: tuple[tuple[str, str], ...] = ()
    lets: tuple[tuple[str, Expr], ...] = ()
    values: tuple[tuple[str, float], ...] = ()

    def decided(self, expr: Expr) -> bool | None:
        """The value of a condition on known params alone, else None."""
        number = _number(expr, self)
        return None if number is None else bool(number)

    def one_length(self, first: str, second: str) -> bool:
        """Whether two dims are positions of one sequence (or the same dim)."""
        of = dict(self.sequences)
        return first == second or of.get(first, first) == of.get(second, second)


def facts_of(mixer: Mixer, values: Mapping[str, float] | None = None) -> Facts:
    """The facts that a mixer's declarations give.

    ``values`` are params as bound by the caller; a param that it leaves out has its default.
    A runtime param is never known to be positive.
    """
    ordered = {
        (given.name, given.layout[-1][0])
        for given in mixer.inputs
        if given.sorted and given.layout and len(given.layout[-1]) == 1
    }
    facts = Facts(frozenset(ordered), sequences=mixer.sequences, lets=_lets(mixer))
    for param in mixer.params:
        if param.runtime:
            continue
        given = None if values is None else values.get(param.name)
        value = param.value if given is None else Literal(given)
        if is_positive(value, facts):
            facts = replace(facts, positive=facts.positive | {param.name})
        number = _number(value, facts)
        if number is not None:
            facts = replace(facts, values=(*facts.values, (param.name, number)))
    return facts


def _lets(mixer: Mixer) -> tuple[tuple[str, Expr], ...]:
    return tuple((let.name, let.value) for let in mixer.lets)


def _number(value: Expr, facts: Facts) -> float | None:
    known = dict(facts.values)
    for node in walk(value):
        if not isinstance(node, Literal | Scalar | Call):
            return None
        if isinstance(node, Scalar) and node.name not in known:
            return None
    return evaluate_host(value, {}, known)


def is_positive(expr: Expr, facts: Facts) -> bool:
    """Whether ``expr`` is shown to be greater than 0 (a size is: else there is nothing to do)."""
    match expr:
        case Literal(value):
            return value > 0
        case Size():
            return True
        case Scalar(name) | Ref(name):
            return name in facts.positive
        case Call("add", (a, b)):
            return (is_positive(a, facts) and is_natural(b, facts)) or (
                is_natural(a, facts) and is_positive(b, facts)
            )
        case Call("mul" | "min", (a, b)) | Call("where", (_, a, b)):
            return is_positive(a, facts) and is_positive(b, facts)
        case Call("div", (a, b)):
            return is_positive(a, facts) and is_positive(b, facts)
        case Call("pow", (a, _)) | Call("sqrt" | "rsqrt", (a,)):
            return is_positive(a, facts)
        case Call("max", (a, b)):
            return is_positive(a, facts) or is_positive(b, facts)
        case Call("exp" | "exp2", _):
            return True
        case _:
            return False


def is_natural(expr: Expr, facts: Facts) -> bool:
    """Whether ``expr`` is shown to be 0 or greater."""
    match expr:
        case Literal(value):
            return value >= 0
        case Index():
            return True
        case Call("add" | "mul" | "min", (a, b)) | Call("where", (_, a, b)):
            return is_natural(a, facts) and is_natural(b, facts)
        case Call("max", (a, b)):
            return is_natural(a, facts) or is_natural(b, facts)
        case Call("floordiv" | "mod" | "div", (a, b)):
            return (is_natural(a, facts) or expr.fn == "mod") and is_positive(b, facts)
        case Call("abs" | "relu", _):
            return True
        case _:
            return expr.kind is Kind.BOOL or is_positive(expr, facts)


def look_through(expr: Expr, facts: Facts) -> Expr:
    """``expr`` with the lets that are plain functions of positions and inputs written out.

    A let that reduces or accumulates stays a name. Reads of what was written out move inside, to
    the tensors, where they can't be outside.
    """
    lets = {name: value for name, value in facts.lets if _is_plain(value)}

    def open_ref(node: Expr) -> Expr | None:
        if isinstance(node, Ref) and node.name in lets:
            return look_through(lets[node.name], facts)
        if isinstance(node, Read) and not isinstance(node.x, Ref):
            return _read_inside(node, facts)
        return None

    return transform(expr, open_ref)


def _is_plain(expr: Expr) -> bool:
    return not any(isinstance(node, Reduce | Cumsum) for node in walk(expr))


def _read_inside(read: Read, facts: Facts) -> Expr | None:
    if not _is_plain(read.x) or any(isinstance(node, Read) for node in walk(read.x)):
        return None
    if not all(in_range(index, dim, facts) for dim, index in read.at):
        return None
    at = dict(read.at)

    def move(node: Expr) -> Expr | None:
        match node:
            case Index(dim):
                return at.get(dim)
            case Ref():
                here = tuple((dim, index) for dim, index in read.at if dim in node.axes)
                return Read(node, here, read.fill) if here else None
            case _:
                return None

    return transform(read.x, move)


def in_range(index: Expr, dim: str, facts: Facts) -> bool:
    """Whether a read at ``index`` is shown never to be outside ``dim``."""
    return isinstance(index, Index) and facts.one_length(index.dim, dim)
