"""The text form of the mixer level, in the syntax of the language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .expression import (
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
    walk,
)
from .mixer import Attention, Equation, Layout, Map, Mixer, Stage

# How tightly each operator binds; calls, names and numbers bind tightest.
_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(9)
_INFIX: Mapping[str, tuple[str, int]] = {
    "or": ("or", _OR),
    "and": ("and", _AND),
    **{
        fn: (symbol, _COMPARE)
        for fn, symbol in zip(
            ("lt", "le", "gt", "ge", "eq", "ne"), ("<", "<=", ">", ">=", "==", "!="), strict=True
        )
    },
    "add": ("+", _SUM),
    "sub": ("-", _SUM),
    "mul": ("*", _PRODUCT),
    "div": ("/", _PRODUCT),
    "floordiv": ("//", _PRODUCT),
    "mod": ("%", _PRODUCT),
    "pow": ("**", _POWER),
}


def write_expression(expr: Expr) -> str:
    """The expression as a spec would have it, with no parenthesis too many.

    The index along D is ``d``, or ``index(D)`` where a name in the expression hides it.
    """
    hidden = frozenset(n.name for n in walk(expr) if isinstance(n, Ref | Scalar))
    return _Writer(hidden).write(expr, _OR)


class _Writer:
    def __init__(self, hidden: frozenset[str]) -> None:
        self.hidden = hidden

    def write(self, expr: Expr, least: int) -> str:
        """The text, in parentheses if it binds less tightly than ``least``."""
        text, binding = self.bare(expr)
        return text if binding >= least else f"({text})"

    def bare(self, expr: Expr) -> tuple[str, int]:
        match expr:
            case Literal(value):
                return _literal(value)
            case Size(dim):
                return dim, _ATOM
            case Scalar(name) | Ref(name):
                return name, _ATOM
            case Index(dim):
                name = dim.lower()
                return (f"index({dim})" if name in self.hidden else name), _ATOM
            case Call(fn, args):
                return self.call(fn, args)
            case Reduce():
                return self.reduce(expr), _ATOM
            case Read():
                return self.read(expr), _ATOM
            case Cumsum(x, over, reverse, exclusive):
                flags = [
                    f"{n}=true" for n, on in (("reverse", reverse), ("exclusive", exclusive)) if on
                ]
                return f"cumsum({', '.join([self.write(x, _OR), over, *flags])})", _ATOM
        raise TypeError(type(expr))

    def call(self, fn: str, args: tuple[Expr, ...]) -> tuple[str, int]:
        if fn == "neg":
            inner = self.write(args[0], _UNARY)
            # -1 is the literal, -(1) its negation
            return (f"-({inner})" if isinstance(args[0], Literal) else f"-{inner}"), _UNARY
        if fn == "not":
            return f"not {self.write(args[0], _NOT)}", _NOT
        if fn not in _INFIX:
            return f"{fn}({', '.join(self.arguments(fn, args))})", _ATOM
        symbol, binding = _INFIX[fn]
        left, right = binding, binding + 1
        if fn == "pow":
            left, right = _ATOM, _UNARY
        elif binding == _COMPARE:
            left = binding + 1
        return f"{self.write(args[0], left)} {symbol} {self.write(args[1], right)}", binding

    def arguments(self, fn: str, args: tuple[Expr, ...]) -> Iterator[str]:
        for number, arg in enumerate(args):
            text = self.write(arg, _OR)
            # a bare dim in second place would name what to reduce over
            bare = fn in ("max", "min") and number == 1 and isinstance(arg, Size)
            yield f"({text})" if bare else text

    def reduce(self, expr: Reduce) -> str:
        parts = [self.write(expr.x, _OR), *expr.over]
        if expr.where is not None:
            parts.append(f"where={self.write(expr.where, _OR)}")
        parts += [f"{dim}={self.write(index, _OR)}" for dim, index in expr.group]
        return f"{expr.op}({', '.join(parts)})"

    def read(self, expr: Read) -> str:
        at = ", ".join(f"{dim}={self.write(index, _OR)}" for dim, index in expr.at)
        if expr.fill != 0:
            return f"at({self.write(expr.x, _OR)}, {at}, fill={_literal(expr.fill)[0]})"
        x = self.write(expr.x, _ATOM)
        return f"{x if not isinstance(expr.x, Literal) else f'({x})'}[{at}]"


def _literal(value: bool | int | float) -> tuple[str, int]:
    if isinstance(value, bool):
        return str(value).lower(), _ATOM
    return repr(value), _UNARY if repr(value).startswith("-") else _ATOM


def write_layout(layout: Layout) -> str:
    """``[B, T, G*R, 1]``."""
    return "[" + ", ".join("*".join(product) or "1" for product in layout) + "]"


def write_mixer(mixer: Mixer) -> str:
    """The whole mixer, a line per equation, each with its axes."""
    lines = [f"mixer {mixer.name}"]
    for heading, body in _sections(mixer):
        if body:
            lines += [f"{heading}:", *(f"  {line}" for line in body)]
    return "\n".join(lines) + "\n"


def _sections(mixer: Mixer) -> Iterator[tuple[str, list[str]]]:
    yield "inputs", [_input_line(mixer, name) for name in (i.name for i in mixer.inputs)]
    relations = [f"{dim}: {sequence}" for dim, sequence in mixer.sequences]
    yield "dims", relations + [f"{dim} = {value}" for dim, value in mixer.sizes]
    yield "heads", [f"{small}: {large}" for small, large in mixer.heads]
    yield (
        "params",
        [f"{p.name} = {p.value}{' (runtime)' if p.runtime else ''}" for p in mixer.params]
        + [f"{t.name}[{', '.join(t.dims)}] = {list(t.values)}" for t in mixer.tables],
    )
    yield "let", [_equation_line(e) for e in mixer.lets]
    for number, stage in enumerate(mixer.stages):
        label = f" {stage.name}" if stage.name else f" {number + 1}"
        yield f"{type(stage).__name__.lower()}{label}", list(_stage_lines(stage))
    yield "outputs", [f"{o.name}: {write_layout(o.layout)}" for o in mixer.outputs]


def _input_line(mixer: Mixer, name: str) -> str:
    item = mixer.input(name)
    extras = [
        *([item.dtype] if item.dtype else []),
        *(["sorted"] if item.sorted else []),
        *([] if item.grad else ["no gradient"]),
        *([] if item.default is None else [f"default {_literal(item.default)[0]}"]),
    ]
    return f"{name}: {write_layout(item.layout)}" + (f" ({', '.join(extras)})" if extras else "")


def _axes(expr: Expr) -> str:
    kind = {Kind.BOOL: " bool", Kind.INT: " int", Kind.REAL: ""}[expr.kind]
    return f"[{', '.join(sorted(expr.axes))}]{kind}"


def _equation_line(equation: Equation) -> str:
    return f"{equation.name}{_axes(equation.value)} = {equation.value}"


def _stage_lines(stage: Stage) -> Iterator[str]:
    match stage:
        case Map(equations):
            yield from map(_equation_line, equations)
        case Attention():
            yield f"over {stage.over}, queries [{', '.join(sorted(stage.queries))}]"
            for clause in ("score", "mask", "weight", "denominator", "sink", "gain"):
                value: Expr | None = getattr(stage, clause)
                if value is not None:
                    yield f"{clause}{_axes(value)} = {value}"
            for output in stage.outputs:
                yield f"output {_equation_line(output)}"
            for clause in ("lse", "weights"):
                if (name := getattr(stage, clause)) is not None:
                    yield f"{clause} {name}"


__all__ = ["write_expression", "write_layout", "write_mixer"]
