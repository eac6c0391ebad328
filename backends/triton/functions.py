"""Elementwise functions as Triton text, and the small device functions that some of them need."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...ir.node import AS_FLOAT
from ...ir.tile import DType
from ..python_text import ATOM, LOGIC, PRODUCT, SIGNS, UNARY, Text, call, infix

TRITON_TYPE: Mapping[DType, str] = {
    DType.BOOL: "tl.int1",
    DType.INT32: "tl.int32",
    DType.INT64: "tl.int64",
    DType.FLOAT16: "tl.float16",
    DType.BFLOAT16: "tl.bfloat16",
    DType.FLOAT32: "tl.float32",
}
# Integers are divided otherwise: Triton truncates.
_INFIX = {fn: sign for fn, sign in {**SIGNS, **LOGIC}.items() if fn not in ("floordiv", "mod")}
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

# Triton's own ``maximum`` and ``max`` leave a NaN out.
KEEPS_NAN: Mapping[str, str] = {"max": "larger", "min": "smaller", "relu": "larger"}
_DEVICE_NAME = {"round": "round_half_even", "pow": "power"}


def write_call(
    fn: str,
    args: list[Text],
    constants: list[float | int | bool | None],
    nonnegative: bool = False,
    integral: bool = False,
    keeps_nan: bool = False,
) -> tuple[Text, str | None]:
    """The text of an elementwise op, and the device function that it needs, if any.

    ``constants`` are the numbers behind the arguments, where they are such; ``nonnegative``: both
    operands of an integer division are known not to be negative, so that truncating is flooring.
    ``integral``: the result is an integer. ``keeps_nan``: so does a maximum of real numbers.
    """
    if keeps_nan and fn in KEEPS_NAN:
        name = KEEPS_NAN[fn]
        return call(f"_{name}", *args, *([0] if fn == "relu" else [])), name
    if fn == "pow" and integral:
        return call("_whole_power", *args), "whole_pow"
    if fn in _INFIX:
        return infix(args[0], _INFIX[fn], args[1], regroup=True), None
    if fn in ("floordiv", "mod") and nonnegative:
        sign = "//" if fn == "floordiv" else "%"
        return infix(args[0].at(PRODUCT), sign, args[1]), None
    if fn == "detach":
        return args[0], None
    if fn == AS_FLOAT:
        return call("tl.cast", args[0], "tl.float32", bitcast="True"), None
    if fn == "relu":
        return call("tl.maximum", args[0], 0), None
    if fn in _PREFIX:
        return args[0].behind(_PREFIX[fn]), None
    if fn == "pow":
        special = _write_power(args, constants)
        if special is not None:
            return special, None
    if fn in _FUNCTION:
        return call(_FUNCTION[fn], *args), None
    names = {"floordiv": "floor_divide", "mod": "modulo", **_DEVICE_NAME}
    return call(f"_{names.get(fn, fn)}", *args), fn


_PREFIX: Mapping[str, str] = {"neg": "-", "not": "~"}


def _write_power(args: list[Text], constants: list[float | int | bool | None]) -> Text | None:
    base, power = constants
    match power:
        case 1 | 1.0:
            return args[0]
        case 2 | 2.0 if args[0].level == ATOM:
            return infix(args[0], "*", args[0])
        case 0.5:
            return call("tl.sqrt", args[0])
        case -0.5:
            return call("tl.rsqrt", args[0])
    if base is not None and base > 0:
        rate = math.log2(base)
        if rate == 1:
            return call("tl.exp2", args[1])
        return call("tl.exp2", infix(args[1].at(PRODUCT), "*", Text(repr(rate))))
    return None


def write_number(value: float | int | bool) -> Text:
    """A number as source."""
    if isinstance(value, float) and not math.isfinite(value):
        return Text(f'float("{value}")')
    return Text(repr(value), ATOM if value >= 0 else UNARY)
