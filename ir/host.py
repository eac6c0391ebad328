"""Numbers computed once on the host: integers exactly, the rest in float64 as IEEE has it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from .errors import ArgumentError
from .expression import Call, Expr, Kind, Literal, Scalar, Size
from .rewriting import walk

Number = bool | int | float

_LARGEST_BITS = 4096


def is_host(expr: Expr) -> bool:
    """Whether ``expr`` depends on sizes and params alone, so that ``evaluate_host`` takes it."""
    return all(isinstance(node, Literal | Size | Scalar | Call) for node in walk(expr))


def evaluate_host(
    expr: Expr, sizes: Mapping[str, int], params: Mapping[str, Number] = {}
) -> Number:
    """The value of an expression in sizes and params.

    Integers are exact and ``//`` and ``%`` floor; reals are float64, with inf and nan where IEEE
    arithmetic has them.

    Raises:
        ArgumentError: an integer division by zero, or an integer too large to mean anything.
    """
    match expr:
        case Literal(value):
            return value
        case Size(dim):
            return sizes[dim]
        case Scalar(name):
            return params[name]
        case Call(fn, args):
            values = [evaluate_host(a, sizes, params) for a in args]
            if expr.kind is Kind.REAL and fn != "where":
                values = [float(v) for v in values]
            return _apply(expr, fn, values)
        case _:
            raise TypeError(f"not an expression in sizes and params: {type(expr).__name__}")


# What Python's own signs say of numbers of one kind is what the functions do.
_SIGNS = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%"}
_SIGNS |= {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_CASTS = {Kind.BOOL: "bool", Kind.INT: "int", Kind.REAL: "float"}


def host_code(expr: Expr, names: Mapping[str, str]) -> str:
    """Python whose value is that of ``evaluate_host``, for numbers that are computed at each call.

    ``names`` are those of dims and params. The code reads ``FUNCTIONS``, and raises what Python
    raises where ``evaluate_host`` raises ArgumentError.

    >>> host_code(Call("floordiv", (Size("T"), Literal(2))), {"T": "n0"})
    '(n0 // (2))'
    """
    match expr:
        case Literal(value):
            return f"({value!r})" if math.isfinite(value) else f"float('{value}')"
        case Size(name) | Scalar(name):
            return names[name]
        case Call(fn, args):
            texts = [host_code(a, names) for a in args]
            if expr.kind is Kind.REAL and fn != "where":
                texts = [f"float({t})" for t in texts]
            if fn in _SIGNS:
                return f"({texts[0]} {_SIGNS[fn]} {texts[1]})"
            if fn in ("min", "max") and all(a.kind is Kind.INT for a in args):
                return f"{fn}({', '.join(texts)})"
            if fn == "where":
                condition, yes, no = texts  # both are computed, and raise what they raise
                return f"{_CASTS[expr.kind]}(({no}, {yes})[not not {condition}])"
            return f"{_CASTS[expr.kind]}(FUNCTIONS[{fn!r}]({', '.join(texts)}))"
        case _:
            raise TypeError(f"not an expression in sizes and params: {type(expr).__name__}")


def _apply(expr: Call, fn: str, values: list[Number]) -> Number:
    try:
        result = FUNCTIONS[fn](*values)
    except ZeroDivisionError as error:
        raise ArgumentError(f"division by zero in {expr}") from error
    except OverflowError as error:
        raise ArgumentError(f"a number too large in {expr}") from error
    except ValueError as error:
        raise ArgumentError(f"an integer of what is no number in {expr}") from error
    match expr.kind:
        case Kind.BOOL:
            return bool(result)
        case Kind.INT:
            return int(result)
        case _:
            return float(result)


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


def _power(a: float, b: float) -> Number:
    if isinstance(a, int) and isinstance(b, int):
        if abs(a) > 1 and b * abs(a).bit_length() > _LARGEST_BITS:
            raise OverflowError
        return int(a**b)
    try:
        return math.pow(a, b)
    except OverflowError:
        odd = float(b).is_integer() and b % 2 == 1
        return -math.inf if a < 0 and odd else math.inf
    except ValueError:
        return math.inf if a == 0 else math.nan


def _at_least(a: Number, b: Number) -> Number:
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


def _at_most(a: Number, b: Number) -> Number:
    return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)


def _ieee(
    fn: Callable[[float], float], pole: float = math.nan, overflow: float = math.inf
) -> Callable[[Number], float]:
    """``fn`` with ``pole`` at 0 and nan elsewhere outside its domain, ``overflow`` beyond."""

    def value(x: Number) -> float:
        try:
            return fn(float(x))
        except OverflowError:
            return overflow
        except (ValueError, ZeroDivisionError):
            return pole if x == 0 else math.nan

    return value


def _log1p(x: Number) -> float:
    return -math.inf if x == -1 else _ieee(math.log1p)(x)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _logaddexp(a: float, b: float) -> float:
    top = _at_least(a, b)
    if not math.isfinite(top):
        return top
    return top + math.log1p(math.exp(-abs(a - b)))


def _gelu_tanh(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _sign(x: Number) -> Number:
    return x if x == 0 or math.isnan(x) else math.copysign(1, x)


FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _divide,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "pow": _power,
    "min": _at_most,
    "max": _at_least,
    "logaddexp": _logaddexp,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: bool(a) and bool(b),
    "or": lambda a, b: bool(a) or bool(b),
    "not": lambda a: not a,
    "neg": lambda a: -a,
    "abs": abs,
    "sign": _sign,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "relu": lambda a: _at_least(a, 0),
    "detach": lambda a: a,
    "where": lambda c, a, b: a if c else b,
    "exp": _ieee(math.exp),
    "exp2": _ieee(lambda x: math.pow(2, x)),
    "expm1": _ieee(math.expm1),
    "log": _ieee(math.log, pole=-math.inf),
    "log2": _ieee(math.log2, pole=-math.inf),
    "log1p": _log1p,
    "sqrt": _ieee(math.sqrt),
    "rsqrt": _ieee(lambda x: 1 / math.sqrt(x), pole=math.inf),
    "tanh": math.tanh,
    "sigmoid": _sigmoid,
    "logsigmoid": lambda x: -_softplus(-x),
    "softplus": _softplus,
    "gelu": lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": _gelu_tanh,
    "silu": lambda x: x * _sigmoid(x),
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "erf": math.erf,
    "sin": _ieee(math.sin),
    "cos": _ieee(math.cos),
    "acos": _ieee(math.acos),
}
