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
)
from ...ir.host import evaluate_host
from ...ir.mixer import Mixer
from ...ir.rewriting import rebuild, substitute, transform, walk


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with known properties.

    ``sorted``: (tensor, dim) pairs, non-decreasing along dim. ``positive``: names of scalars that
    are greater than 0. ``sequences``: (dim, sequence) as in ``Mixer.sequences``; a read at the
    position of one dim of a sequence is never outside another. ``lets``: names to look through.
    ``values``: compile-time params whose number is known; conditions on them alone are decided.
    ``heads``: (G, H) pairs as in ``Mixer.heads``; head h reads group h // (H // G).
    """

    sorted: frozenset[tuple[str, str]] = frozenset()
    positive: frozenset[str] = frozenset()
    sequences: tuple[tuple[str, str], ...] = ()
    lets: tuple[tuple[str, Expr], ...] = ()
    values: tuple[tuple[str, float], ...] = ()
    heads: tuple[tuple[str, str], ...] = ()

    def decided(self, expr: Expr) -> bool | None:
        """The value of a condition on known params alone, else None."""
        number = _number(expr, self)
        return None if number is None else bool(number)

    def divides(self, groups: str, heads: str) -> bool:
        """Whether one dim of heads is declared to divide another, over steps or at once."""
        larger = dict(self.heads)
        while groups in larger:
            groups = larger.pop(groups)
            if groups == heads:
                return True
        return False

    def cut(self, expr: Expr, most: int) -> Expr:
        """``expr`` with known params no larger than ``most``, so that sums stay in 32 bits."""
        large: dict[Expr, Expr] = {
            node: Literal(most if dict(self.values)[node.name] > 0 else -most)
            for node in walk(expr)
            if isinstance(node, Scalar) and abs(dict(self.values).get(node.name, 0)) > most
        }
        return substitute(expr, large) if large else expr

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
    facts = Facts(
        frozenset(ordered), sequences=mixer.sequences, lets=_lets(mixer), heads=mixer.heads
    )
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
            return (is_positive(a, facts) and is_nonnegative(b, facts)) or (
                is_nonnegative(a, facts) and is_positive(b, facts)
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


def is_nonnegative(expr: Expr, facts: Facts) -> bool:
    """Whether ``expr`` is shown to be 0 or greater."""
    match expr:
        case Literal(value):
            return value >= 0
        case Index():
            return True
        case Call("add" | "mul" | "min", (a, b)) | Call("where", (_, a, b)):
            return is_nonnegative(a, facts) and is_nonnegative(b, facts)
        case Call("max", (a, b)):
            return is_nonnegative(a, facts) or is_nonnegative(b, facts)
        case Call("floordiv" | "mod" | "div", (a, b)):
            return (is_nonnegative(a, facts) or expr.fn == "mod") and is_positive(b, facts)
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
    """``(a + b)[T=e] --> a[T=e] + b[T=e]``, where e is never outside T."""
    if not _is_plain(read.x) or not all(in_range(e, dim, facts) for dim, e in read.at):
        return None
    return placed(read.x, dict(read.at))


def placed(expr: Expr, at: Mapping[str, Expr]) -> Expr:
    """``expr`` with other positions for some of its dims: ``a[i] + i --> a[I=e] + e``.

    The positions must not be outside.
    """
    match expr:
        case Index(dim):
            return at.get(dim, expr)
        case Ref():
            here = tuple((dim, index) for dim, index in at.items() if dim in expr.axes)
            return Read(expr, here, span=expr.span) if here else expr
        case Read(x, inner, fill):
            bound = {dim for dim, _ in inner}
            places = [(dim, placed(index, at)) for dim, index in inner]
            places += [(d, e) for d, e in at.items() if d in x.axes and d not in bound]
            return Read(x, tuple(places), fill, span=expr.span)
        case Reduce(over=over):
            free = {dim: index for dim, index in at.items() if dim not in over}
            return rebuild(expr, lambda child: placed(child, free))
        case Cumsum(over=over) if over in at:
            return Read(expr, tuple((d, e) for d, e in at.items() if d in expr.axes))
        case _:
            return rebuild(expr, lambda child: placed(child, at))


def in_range(index: Expr, dim: str, facts: Facts) -> bool:
    """Whether a read at ``index`` is shown never to be outside ``dim``."""
    match index:
        case Index(own):
            return facts.one_length(own, dim)
        case Call("floordiv", (Index(heads), Call("floordiv", (Size(whole), Size(groups))))):
            return heads == whole and groups == dim and facts.divides(groups, heads)
        case _:
            return False
