"""Elementwise expressions to sympy and back, for what needs algebra and not just structure.

Import this module where it is needed: it pulls in sympy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import sympy

from ...ir.expression import Call, Expr, Kind, Literal, call

# More than this many operations are not simplified: sympy may take minutes.
LARGEST = 60

_TO_SYMPY: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a: -a,
    "exp": sympy.exp,
    "exp2": lambda a: sympy.exp(a * sympy.log(2)),
    "expm1": lambda a: sympy.exp(a) - 1,
    "log": sympy.log,
    "log2": lambda a: sympy.log(a) / sympy.log(2),
    "log1p": lambda a: sympy.log(1 + a),
    "sqrt": sympy.sqrt,
    "rsqrt": lambda a: 1 / sympy.sqrt(a),
    "tanh": sympy.tanh,
    "sigmoid": lambda a: 1 / (1 + sympy.exp(-a)),
    "logsigmoid": lambda a: -sympy.log(1 + sympy.exp(-a)),
    "softplus": lambda a: sympy.log(1 + sympy.exp(a)),
    "logaddexp": lambda a, b: sympy.log(sympy.exp(a) + sympy.exp(b)),
    "sin": sympy.sin,
    "cos": sympy.cos,
}
_FROM_SYMPY: Mapping[Any, str] = {
    sympy.exp: "exp",
    sympy.log: "log",
    sympy.tanh: "tanh",
    sympy.sin: "sin",
    sympy.cos: "cos",
}


@dataclass(slots=True)
class Symbols:
    """Symbols for the parts of expressions that the algebra does not look into.

    The same part gets the same symbol, real-valued, and positive where ``positive`` says so.
    """

    positive: Callable[[Expr], bool] = field(default=lambda _: False)
    of: dict[Expr, Any] = field(default_factory=dict)

    def symbol(self, part: Expr) -> Any:
        """The symbol of a part."""
        if part not in self.of:
            assumed = {"positive": True} if self.positive(part) else {"real": True}
            self.of[part] = sympy.Symbol(f"x{len(self.of)}", **assumed)
        return self.of[part]

    def part(self, symbol: Any) -> Expr:
        """The part that a symbol stands for."""
        return next(part for part, own in self.of.items() if own == symbol)


def to_sympy(expr: Expr, symbols: Symbols) -> Any:
    """``expr`` in sympy's terms; integers and decimals stay exact."""
    match expr:
        case Literal(bool(value)):
            return sympy.Integer(int(value))
        case Literal(value) if math.isfinite(value):
            exact = isinstance(value, int) or float(value).is_integer()
            return sympy.Integer(int(value)) if exact else sympy.Rational(repr(value))
        case Call(fn, args) if fn in _TO_SYMPY and expr.kind is not Kind.BOOL:
            return _TO_SYMPY[fn](*(to_sympy(a, symbols) for a in args))
        case _:
            return symbols.symbol(expr)


def from_sympy(value: Any, symbols: Symbols) -> Expr | None:
    """The expression of a sympy term; None if it has something we have no function for."""
    if value.is_Symbol:
        return symbols.part(value)
    if value.is_Integer:
        return Literal(int(value))
    if value.is_number and value.is_finite and value.is_real:
        return Literal(float(value))
    args = [from_sympy(a, symbols) for a in value.args]
    known = [a for a in args if a is not None]
    if len(known) < len(args) or not known:
        return None
    if value.is_Add:
        return reduce(lambda a, b: call("add", a, b), known)
    if value.is_Mul:
        return reduce(lambda a, b: call("mul", a, b), known)
    if value.is_Pow:
        return call("div", 1, known[0]) if value.args[1] == -1 else call("pow", *known)
    name = _FROM_SYMPY.get(value.func)
    return None if name is None else call(name, *known)


def exponential_in(expr: Expr, variable: Expr) -> tuple[Expr, Expr] | None:
    """(rate, factor), both free of the variable, with expr == factor * exp(rate * variable).

    None where expr is no such function: one is, exactly if the derivative of its logarithm is
    constant, which is what makes f(s + c) the product of f(s) with a function of c.
    """
    symbols = Symbols()
    value, s = to_sympy(expr, symbols), symbols.symbol(variable)
    if value.count_ops() > LARGEST or _hidden(symbols, variable):
        return None
    rate = sympy.simplify(sympy.diff(value, s) / value)
    if rate.has(s) or rate == 0:
        return None
    factor = sympy.simplify(sympy.powsimp(value * sympy.exp(-rate * s), force=True))
    if factor.has(s):
        return None
    found = from_sympy(rate, symbols), from_sympy(factor, symbols)
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _hidden(symbols: Symbols, variable: Expr) -> bool:
    """Whether a symbol stands for something that has the variable inside."""
    from ...ir.rewriting import walk

    return any(part != variable and variable in walk(part) for part in symbols.of)


__all__ = ["Symbols", "exponential_in", "from_sympy", "to_sympy"]
