"""Expressions in sizes and params as the Python of a host function."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.expression import Call, Expr, Literal, Scalar, Size
from .python_text import (
    ATOM,
    COMPARE,
    OR,
    POWER,
    QUOTIENT,
    SIGNS,
    SUM,
    UNARY,
    WORDS,
    Text,
    call,
    infix,
    joined,
    name,
)

_MATH = frozenset("exp exp2 expm1 log log2 log1p sqrt tanh sin cos acos erf floor ceil".split())
_BUILTIN = frozenset({"min", "max", "abs", "round"})
# What neither Python nor its math module has, of operands that may be repeated.
_WRITTEN = {
    "relu": ("max({0}, 0)", ATOM),
    "sign": ("({0} > 0) - ({0} < 0)", SUM),
    "detach": ("{0}", ATOM),
    "sigmoid": ("1 / (1 + math.exp(-{0}))", QUOTIENT),
    "logsigmoid": ("min({0}, 0) - math.log1p(math.exp(-abs({0})))", SUM),
    "softplus": ("max({0}, 0) + math.log1p(math.exp(-abs({0})))", SUM),
    "silu": ("{0} / (1 + math.exp(-{0}))", QUOTIENT),
    "gelu": ("0.5 * {0} * (1 + math.erf({0} * 0.5**0.5))", QUOTIENT),
    "gelu_tanh": (
        "{0} / (1 + math.exp(-1.5957691216057308 * ({0} + 0.044715 * {0}**3)))",
        QUOTIENT,
    ),
    "elu": ("{0} if {0} > 0 else math.expm1({0})", WORDS),
    "logaddexp": ("max({0}, {1}) + math.log1p(math.exp(-abs({0} - {1})))", SUM),
}


_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


def host_text(expr: Expr, names: Mapping[str, str]) -> Text:
    """An expression as Python; ``names`` are spelled otherwise."""
    match expr:
        case Literal(value) if value in (float("inf"), float("-inf")):
            return call("float", f'"{value}"')
        case Literal(value):
            return Text(repr(value), ATOM if value >= 0 else UNARY)
        case Size(known) | Scalar(known):
            return name(names.get(known, known))
        case Call(fn, args):
            return _written(fn, [host_text(arg, names) for arg in args])
    raise TypeError(f"not an expression in sizes and params: {expr}")


def _written(fn: str, args: list[Text]) -> Text:
    if fn in _MIRRORED and not args[0].reads and args[1].reads:  # a number stands last
        return infix(args[1], SIGNS[_MIRRORED[fn]], args[0])
    if fn in SIGNS:
        return infix(args[0], SIGNS[fn], args[1])
    if fn in ("and", "or", "not"):
        pattern = "not {}" if fn == "not" else f"{{}} {fn} {{}}"
        return joined(pattern, [arg.at(OR) for arg in args], WORDS)
    if fn in _WRITTEN:
        pattern, level = _WRITTEN[fn]
        return joined(pattern, [arg.at(ATOM) for arg in args], level)
    match fn, args:
        case "pow", [base, exponent]:
            return _power(base, exponent)
        case "rsqrt", [x]:
            return _power(x, Text("-0.5", UNARY))
        case "neg", [x]:
            return x.at(POWER).behind("-")
        case "where", _:
            condition, yes, no = (arg.at(COMPARE) for arg in args)
            return joined("{} if {} else {}", [yes, condition, no], WORDS)
    assert fn in _MATH | _BUILTIN, fn
    return call(f"math.{fn}" if fn in _MATH else fn, *args)


def _power(base: Text, exponent: Text) -> Text:
    if base.level == ATOM and _simple(base) and _simple(exponent):
        return joined("{}**{}", [base, exponent], POWER)
    return joined("{} ** {}", [base.at(ATOM), exponent.at(ATOM)], POWER)


def _simple(text: Text) -> bool:
    """Whether a text is a name or a number."""
    return not text.parts and text.reads <= {text.code}
