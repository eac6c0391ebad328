"""Write known numbers out, and leave out what they make trivial."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.expression import Call, Cumsum, Expr, Literal, Read, Reduce, Scalar, Size
from ...ir.host import evaluate_host
from ...ir.optional import sum_without_axis
from ...ir.rewriting import transform


def fold_constants(
    expr: Expr, known: Mapping[str, int | float | bool], sizes: Mapping[str, int] = {}
) -> Expr:
    """``where(causal, a, b)`` --> ``a`` and the like, for params in ``known``.

    Only truth values of params are written out; numbers keep their names, so that the emitted
    code can say them. What is left of a sum or a running sum may have lost its axis: then it is
    said without. Precondition: ``known`` has no run-time params.
    """

    def change(node: Expr) -> Expr | None:
        match node:
            case Scalar(name) if isinstance(known.get(name), bool):
                return Literal(bool(known[name]))
            case Read(Literal() as x, _, fill) if float(x.value) == fill:
                return x
            case Reduce(_, x, (), None, ()):
                return x
            case Reduce() | Cumsum():
                return sum_without_axis(node)
            case Call():
                return _fold_call(node, known, sizes)
            case _:
                return None

    return transform(expr, change)


def _fold_call(
    node: Call, known: Mapping[str, int | float | bool], sizes: Mapping[str, int]
) -> Expr | None:
    match node.fn, node.args:
        case "where", (Literal(value), a, b):
            return a if value else b
        case "and", (Literal(value), a) | (a, Literal(value)):
            return a if value else Literal(False)
        case "or", (Literal(value), a) | (a, Literal(value)):
            return Literal(True) if value else a
        case "not", (Literal(value),):
            return Literal(not value)
        case "mul", (Literal(1 | 1.0 as one), a) | (a, Literal(1 | 1.0 as one)):
            return a if one is not True and a.kind >= type_kind(one) else None
        case "add", (Literal(0 | 0.0 as zero), a) | (a, Literal(0 | 0.0 as zero)):
            return a if zero is not False and a.kind >= type_kind(zero) else None
        case (("lt" | "le" | "gt" | "ge" | "eq" | "ne"), args) if _known(args, known, sizes):
            return Literal(bool(evaluate_host(node, sizes, known)))
    return None


def type_kind(value: int | float | bool) -> int:
    """The kind of a number."""
    return Literal(value).kind


def _known(
    args: tuple[Expr, ...], known: Mapping[str, int | float | bool], sizes: Mapping[str, int]
) -> bool:
    return all(_is_known(a, known, sizes) for a in args)


def _is_known(
    expr: Expr, known: Mapping[str, int | float | bool], sizes: Mapping[str, int]
) -> bool:
    match expr:
        case Literal():
            return True
        case Scalar(name):
            return name in known
        case Size(dim):
            return dim in sizes
        case Call(_, args):
            return _known(args, known, sizes)
        case _:
            return False
