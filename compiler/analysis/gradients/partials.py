"""The partial derivatives of the elementwise functions, as terms of the same functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce as fold

from ....ir.expression import Call, Expr, Literal, call

ZERO, ONE = Literal(0.0), Literal(1.0)


def where(condition: Expr, value: Expr) -> Expr:
    """The value where the condition holds, else 0."""
    return value if value == ZERO else call("where", condition, value, 0.0)


def add(a: Expr | None, b: Expr) -> Expr:
    """a + b; nothing, or 0, adds nothing."""
    if a is None or a == ZERO:
        return b
    return a if b == ZERO else call("add", a, b)


def negative(x: Expr) -> Expr:
    """-x; of -y it is y, and of a number a number."""
    match x:
        case Literal(value):
            return Literal(-value)
        case Call("neg", (y,)):
            return y
    return call("neg", x)


def mul(a: Expr, b: Expr) -> Expr:
    """a * b; a factor of 1 is left out."""
    if a == ONE:
        return b
    return a if b == ONE else call("mul", a, b)


def _product(*factors: Expr | float) -> Expr:
    return fold(mul, (f if isinstance(f, Expr) else Literal(f) for f in factors))


Partial = Callable[[Call, Expr, int], Expr | None]


def _unary(slope: Callable[[Expr, Call], Expr]) -> Partial:
    """The rule of a function of one value from its slope, given x and the call itself."""
    return lambda node, above, number: mul(above, slope(node.args[0], node))


def _constant(node: Call, above: Expr, number: int) -> None:
    return None


def _of_mul(node: Call, above: Expr, number: int) -> Expr:
    return mul(above, node.args[1 - number])


def _of_div(node: Call, above: Expr, number: int) -> Expr:
    if number == 0:
        return call("div", above, node.args[1])
    return call("neg", call("div", mul(above, node), node.args[1]))


def _of_pow(node: Call, above: Expr, number: int) -> Expr:
    base, power = node.args
    if number == 0:
        match power:
            case Literal(value):
                lower: Expr = base if value == 2 else call("pow", base, Literal(value - 1))
            case _:
                lower = call("pow", base, call("sub", power, 1))
        return _product(above, power, lower)
    positive = call("gt", base, 0)
    logarithm = call("log", call("where", positive, base, 1))
    return where(positive, _product(above, node, logarithm))


def _of_extreme(better: str) -> Partial:
    """``min`` and ``max``: to the one taken, in equal parts where both are."""

    def rule(node: Call, above: Expr, number: int) -> Expr:
        own, other = node.args[number], node.args[1 - number]
        tie = call("where", call("eq", own, other), _product(above, 0.5), 0.0)
        return call("where", call(better, own, other), above, tie)

    return rule


def _of_logaddexp(node: Call, above: Expr, number: int) -> Expr:
    own, other = node.args[number], node.args[1 - number]
    equal = call("eq", own, other)  # also where both are -inf
    gap = call("where", equal, 0, call("sub", own, call("where", equal, 0, other)))
    return mul(above, call("sigmoid", gap))


def _of_where(node: Call, above: Expr, number: int) -> Expr | None:
    condition = node.args[0]
    match number:
        case 1:
            return call("where", condition, above, 0.0)
        case 2:
            return call("where", condition, 0.0, above)
        case _:
            return None


def _gelu(x: Expr, node: Call) -> Expr:
    below = call("mul", 0.5, call("add", 1, call("erf", call("mul", x, math.sqrt(0.5)))))
    density = call("exp", call("mul", -0.5, call("mul", x, x)))
    return call("add", below, _product(x, density, 1 / math.sqrt(2 * math.pi)))


def _gelu_tanh(x: Expr, node: Call) -> Expr:
    rate, cubic = math.sqrt(2 / math.pi), 0.044715
    square = call("mul", x, x)
    inner = _product(x, rate, call("add", 1, call("mul", cubic, square)))
    bent = call("tanh", inner)
    slope = call("mul", rate, call("add", 1, call("mul", 3 * cubic, square)))
    rise = _product(x, call("sub", 1, call("mul", bent, bent)), slope)
    return call("mul", 0.5, call("add", call("add", 1, bent), rise))


def _silu(x: Expr, node: Call) -> Expr:
    gate = call("sigmoid", x)
    return call("mul", gate, call("add", 1, call("mul", x, call("sub", 1, gate))))


# How much each argument of an elementwise function gets of the call's adjoint.
PARTIALS: Mapping[str, Partial] = {
    "add": lambda node, above, number: above,
    "sub": lambda node, above, number: above if number == 0 else negative(above),
    "neg": lambda node, above, number: negative(above),
    "mul": _of_mul,
    "div": _of_div,
    "pow": _of_pow,
    "min": _of_extreme("lt"),
    "max": _of_extreme("gt"),
    "logaddexp": _of_logaddexp,
    "where": _of_where,
    "detach": _constant,
    "sign": _constant,
    "mod": _constant,
    "floordiv": _constant,
    "abs": _unary(lambda x, node: call("sign", x)),
    "relu": _unary(lambda x, node: call("where", call("gt", x, 0), 1.0, 0.0)),
    "exp": _unary(lambda x, node: node),
    "exp2": _unary(lambda x, node: call("mul", node, math.log(2))),
    "expm1": _unary(lambda x, node: call("exp", x)),
    "log": _unary(lambda x, node: call("div", 1.0, x)),
    "log2": _unary(lambda x, node: call("div", 1 / math.log(2), x)),
    "log1p": _unary(lambda x, node: call("div", 1.0, call("add", 1, x))),
    "sqrt": _unary(lambda x, node: call("div", 0.5, node)),
    "rsqrt": _unary(lambda x, node: call("mul", -0.5, call("div", node, x))),
    "tanh": _unary(lambda x, node: call("sub", 1, call("mul", node, node))),
    "sigmoid": _unary(lambda x, node: call("mul", node, call("sub", 1, node))),
    "logsigmoid": _unary(lambda x, node: call("sigmoid", call("neg", x))),
    "softplus": _unary(lambda x, node: call("sigmoid", x)),
    "gelu": _unary(_gelu),
    "gelu_tanh": _unary(_gelu_tanh),
    "silu": _unary(_silu),
    "elu": _unary(lambda x, node: call("exp", call("min", x, 0))),
    "erf": _unary(
        lambda x, node: call(
            "mul", 2 / math.sqrt(math.pi), call("exp", call("neg", call("mul", x, x)))
        )
    ),
    "sin": _unary(lambda x, node: call("cos", x)),
    "cos": _unary(lambda x, node: call("neg", call("sin", x))),
    "acos": _unary(lambda x, node: call("neg", call("rsqrt", call("sub", 1, call("mul", x, x))))),
}

__all__ = ["ONE", "PARTIALS", "ZERO", "add", "mul", "negative", "where"]
