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

# Device functions put at the head of a module that uses them, by the function that they serve.
DEVICE_FUNCTIONS: Mapping[str, str] = {
    "tanh": """
def _tanh(x):
    # By the series near 0, where the quotient would cancel.
    e = tl.exp(-2 * tl.abs(x))
    far = (1 - e) / (1 + e)
    s = x * x
    near = x + x * s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315 + s * (62 / 2835))))
    return tl.where(tl.abs(x) < 0.25, near, tl.where(x < 0, -far, far))
""",
    "expm1": """
def _expm1(x):
    small = x * (1 + x * (0.5 + x * (1 / 6 + x * (1 / 24 + x / 120))))
    return tl.where(tl.abs(x) < 0.1, small, tl.exp(x) - 1)
""",
    "log1p": """
def _log1p(x):
    u = 1 + x
    return tl.where(u == 1, x, tl.log(u) * x / tl.where(u == 1, 1.0, u - 1))
""",
    "softplus": """
def _softplus(x):
    e = tl.exp(-tl.abs(x))
    u = 1 + e
    tail = tl.where(u == 1, e, tl.log(u) * e / tl.where(u == 1, 1.0, u - 1))
    return tl.maximum(x, 0) + tail
""",
    "logsigmoid": """
def _logsigmoid(x):
    e = tl.exp(-tl.abs(x))
    u = 1 + e
    tail = tl.where(u == 1, e, tl.log(u) * e / tl.where(u == 1, 1.0, u - 1))
    return tl.minimum(x, 0) - tail
""",
    "logaddexp": """
def _logaddexp(a, b):
    top = tl.maximum(a, b)
    gap = tl.where(a == b, 0.0, tl.abs(a - b))
    return top + tl.log(1 + tl.exp(-gap))
""",
    "gelu": """
def _gelu(x):
    return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
""",
    "gelu_tanh": """
def _gelu_tanh(x):
    return x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
""",
    "silu": """
def _silu(x):
    return x * tl.sigmoid(x)
""",
    "elu": """
def _elu(x):
    return tl.where(x > 0, x, tl.exp(tl.minimum(x, 0)) - 1)
""",
    "sign": """
def _sign(x):
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)
""",
    "sin": """
def _sin(x):
    # Quarter turns are taken off in three parts (Cody and Waite), then a polynomial: error 1e-7 to
    # |x| = 1e6 with fused products, to 1e5 without. tl.sin keeps a slow path for any x in local
    # memory, which costs registers and spills.
    turns = tl.floor(x * 0.6366197723675814 + 0.5)
    rest = x - turns * 1.5703125
    rest = rest - turns * 0.0004837512969970703
    rest = rest - turns * 7.549789948768648e-08
    s = rest * rest
    sin = rest + rest * s * (-0.1666665057 + s * (0.00833197327 - s * 0.000194949502))
    cos = 1 - 0.5 * s + s * s * (0.04166664675 + s * (-0.00138873614 + s * 2.44377300e-05))
    quarter = turns.to(tl.int32)
    y = tl.where((quarter & 1) == 1, cos, sin)
    return tl.where((quarter & 2) == 2, -y, y)
""",
    "cos": """
def _cos(x):
    # Quarter turns are taken off in three parts (Cody and Waite), then a polynomial: error 1e-7 to
    # |x| = 1e6 with fused products, to 1e5 without. tl.cos keeps a slow path for any x in local
    # memory, which costs registers and spills.
    turns = tl.floor(x * 0.6366197723675814 + 0.5)
    rest = x - turns * 1.5703125
    rest = rest - turns * 0.0004837512969970703
    rest = rest - turns * 7.549789948768648e-08
    s = rest * rest
    sin = rest + rest * s * (-0.1666665057 + s * (0.00833197327 - s * 0.000194949502))
    cos = 1 - 0.5 * s + s * s * (0.04166664675 + s * (-0.00138873614 + s * 2.44377300e-05))
    quarter = turns.to(tl.int32) + 1
    y = tl.where((quarter & 1) == 1, cos, sin)
    return tl.where((quarter & 2) == 2, -y, y)
""",
    "acos": """
def _acos(x):
    # 4.4.45 of Abramowitz and Stegun, extended to eight terms: error below 2e-8.
    a = tl.abs(x)
    p = -0.0012624911
    p = p * a + 0.0066700901
    p = p * a - 0.0170881256
    p = p * a + 0.0308918810
    p = p * a - 0.0501743046
    p = p * a + 0.0889789874
    p = p * a - 0.2145988016
    p = p * a + 1.5707963050
    p = p * tl.sqrt(1 - a)
    return tl.where(x < 0, 3.141592653589793 - p, p)
""",
    "round": """
def _round_half_even(x):
    down = tl.floor(x)
    rest = x - down
    odd = down - 2 * tl.floor(down / 2)
    up = (rest > 0.5) | ((rest == 0.5) & (odd != 0))
    return tl.where(up, down + 1, down)
""",
    "pow": """
def _power(x, y):
    size = tl.exp2(y * tl.log2(tl.abs(x)))
    odd = y - 2 * tl.floor(y / 2) != 0
    signed = tl.where((x < 0) & odd, -size, size)
    return tl.where(y == 0, 1.0, tl.where(x == 0, tl.where(y > 0, 0.0, float("inf")), signed))
""",
    "whole_pow": """
def _whole_power(x, y):
    # By squaring, in a number of turns that no power exceeds whose result has 64 bits.
    product = x * 0 + 1 + y * 0
    square = x + y * 0
    for turn in tl.static_range(6):
        product = tl.where((y >> turn) % 2 == 1, product * square, product)
        square = square * square
    return tl.where((x == 0) & (y > 0), 0, product)
""",
    "floordiv": """
def _floor_divide(a, b):
    q = a // b
    return tl.where((q * b != a) & ((a < 0) != (b < 0)), q - 1, q)
""",
    "mod": """
def _modulo(a, b):
    r = a % b
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)
""",
    "prod": """
def _multiply(a, b):
    return a * b
""",
    "any": """
def _either(a, b):
    return a | b
""",
    "all": """
def _both(a, b):
    return a & b
""",
    "larger": """
def _larger(a, b):
    return tl.maximum(a, b)
""",
    "masked_dot": """
def _masked_dot(a, b, acc, A_MASKS: tl.constexpr, PRECISION: tl.constexpr):
    # One operand is 0 where a mask hides what the other holds. Numbers that are not finite are left
    # out; where there are any, what masks, as 2 or -2, times plus or minus the largest number adds
    # an infinity where they are seen. A NaN adds one of each sign.
    held = b if A_MASKS else a
    finite = tl.abs(held.to(tl.float32)) < float("inf")
    clean = tl.where(finite, held, 0.0).to(held.dtype)
    if A_MASKS:
        out = tl.dot(a, clean, acc, input_precision=PRECISION)
    else:
        out = tl.dot(clean, b, acc, input_precision=PRECISION)
    if tl.max(tl.max(finite.to(tl.int32) ^ 1, 1), 0) > 0:
        wide: tl.constexpr = tl.float32 if held.dtype == tl.float16 else held.dtype
        masks = a if A_MASKS else b
        sign = tl.where(masks > 0, 2.0, tl.where(masks < 0, -2.0, 0.0)).to(wide)
        for turn in tl.static_range(2):
            left_out = finite | ((turn == 1) & (held == held))
            most = tl.where((turn == 1) | (held < 0), -3e38, 3e38)
            code = tl.where(left_out, 0.0, most).to(wide)
            if A_MASKS:
                out = tl.dot(sign, code, out, input_precision="tf32")
            else:
                out = tl.dot(code, sign, out, input_precision="tf32")
    return out
""",
    "search": """
def _search_sorted(table, stride, size, value, RIGHT: tl.constexpr):
    # How many entries are < value, or <= value with RIGHT.
    low = tl.full((), 0, tl.int32)
    high = low + size
    while low < high:
        middle = (low + high) // 2
        entry = tl.load(table + middle * stride)
        below = entry <= value if RIGHT else entry < value
        low = tl.where(below, middle + 1, low)
        high = tl.where(below, high, middle)
    return low
""",
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
