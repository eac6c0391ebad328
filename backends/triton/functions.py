"""Elementwise functions as Triton text, and the small device functions that some of them need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.tile import DType

# Python's precedence, as far as emitted expressions use it.
# QUOTIENT: what ends in `/`, `//` or `%`, and so can't stand right of a `*` as it is.
COMPARE, OR, AND, SUM, QUOTIENT, PRODUCT, UNARY, ATOM = range(8)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of source with its precedence, and the variables that it reads."""

    code: str
    level: int = ATOM
    reads: frozenset[str] = frozenset()

    def at(self, level: int) -> str:
        """The code, in parentheses if it binds weaker than ``level``."""
        return self.code if self.level >= level else f"({self.code})"


TRITON_TYPE: Mapping[DType, str] = {
    DType.BOOL: "tl.int1",
    DType.INT32: "tl.int32",
    DType.INT64: "tl.int64",
    DType.FLOAT16: "tl.float16",
    DType.BFLOAT16: "tl.bfloat16",
    DType.FLOAT32: "tl.float32",
}
_INFIX: Mapping[str, tuple[str, int]] = {
    "add": ("+", SUM),
    "sub": ("-", SUM),
    "mul": ("*", PRODUCT),
    "div": ("/", QUOTIENT),
    "and": ("&", AND),
    "or": ("|", OR),
    "lt": ("<", COMPARE),
    "le": ("<=", COMPARE),
    "gt": (">", COMPARE),
    "ge": (">=", COMPARE),
    "eq": ("==", COMPARE),
    "ne": ("!=", COMPARE),
}
_FUNCTION: Mapping[str, str] = {
    "min": "tl.minimum",
    "max": "tl.maximum",
    "where": "tl.where",
    "abs": "tl.abs",
    "exp": "tl.exp",
    "exp2": "tl.exp2",
    "log": "tl.log",
    "log2": "tl.log2",
    "sqrt": "tl.sqrt",
    "rsqrt": "tl.rsqrt",
    "sigmoid": "tl.sigmoid",
    "erf": "tl.erf",
    "floor": "tl.floor",
    "ceil": "tl.ceil",
}

_DEVICE_NAME = {"round": "round_half_even", "pow": "power"}


def write_call(
    fn: str,
    args: list[Text],
    constants: list[float | int | bool | None],
    nonnegative: bool = False,
    integral: bool = False,
) -> tuple[Text, str | None]:
    """The text of an elementwise op, and the device function that it needs, if any.

    ``constants`` are the numbers behind the arguments, where they are such; ``nonnegative``: both
    operands of an integer division are known not to be negative, so that truncating is flooring.
    ``integral``: the result is an integer.
    """
    reads = frozenset[str]().union(*(a.reads for a in args))
    if fn == "pow" and integral:
        return Text(f"_whole_power({', '.join(a.code for a in args)})", ATOM, reads), "whole_pow"
    if fn in _INFIX:
        sign, level = _INFIX[fn]
        right = UNARY if fn == "div" else level if fn in ("add", "mul", "and", "or") else level + 1
        left = level + 1 if level == COMPARE else QUOTIENT if fn == "mul" else level
        whole = QUOTIENT if fn == "mul" and args[0].level == QUOTIENT else level
        return Text(f"{args[0].at(left)} {sign} {args[1].at(right)}", whole, reads), None
    if fn in ("floordiv", "mod") and nonnegative:
        sign = "//" if fn == "floordiv" else "%"
        return Text(f"{args[0].at(PRODUCT)} {sign} {args[1].at(UNARY)}", QUOTIENT, reads), None
    if fn == "detach":
        return args[0], None
    if fn == "relu":
        return Text(f"tl.maximum({args[0].code}, 0)", ATOM, reads), None
    if fn in _PREFIX:
        return Text(f"{_PREFIX[fn]}{args[0].at(UNARY)}", UNARY, reads), None
    if fn == "pow":
        special = _write_power(args, constants, reads)
        if special is not None:
            return special, None
    inner = ", ".join(a.code for a in args)
    if fn in _FUNCTION:
        return Text(f"{_FUNCTION[fn]}({inner})", ATOM, reads), None
    names = {"floordiv": "floor_divide", "mod": "modulo", **_DEVICE_NAME}
    return Text(f"_{names.get(fn, fn)}({inner})", ATOM, reads), fn


_PREFIX: Mapping[str, str] = {"neg": "-", "not": "~"}


def _write_power(
    args: list[Text], constants: list[float | int | bool | None], reads: frozenset[str]
) -> Text | None:
    base, power = constants
    match power:
        case 1 | 1.0:
            return args[0]
        case 2 | 2.0 if args[0].level == ATOM:
            return Text(f"{args[0].code} * {args[0].code}", PRODUCT, reads)
        case 0.5:
            return Text(f"tl.sqrt({args[0].code})", ATOM, reads)
        case -0.5:
            return Text(f"tl.rsqrt({args[0].code})", ATOM, reads)
    if base is not None and base > 0:
        rate = math.log2(base)
        return Text(f"tl.exp2({args[1].at(PRODUCT)} * {rate!r})", ATOM, reads)
    return None


def write_number(value: float | int | bool) -> Text:
    """A number as source."""
    if isinstance(value, float) and not math.isfinite(value):
        return Text(f'float("{value}")')
    return Text(repr(value), ATOM if value >= 0 else UNARY)
