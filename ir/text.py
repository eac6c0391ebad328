"""The text form of the mixer level, in the syntax of the language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

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
from .mixer import Attention, Equation, Input, Layout, Map, Mixer, Stage

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


def write_expression(expr: Expr, names: Iterable[str] = ()) -> str:
    """The expression as a spec would have it, with no parenthesis too many.

    The index along D is ``d``, or ``index(D)`` where a name hides it: one in the expression, or
    one of ``names``.
    """
    own = (node.name for node in walk(expr) if isinstance(node, Ref | Scalar))
    return _Writer(frozenset({*names, *own})).write(expr, _OR)


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
    for heading, body in _Dump(mixer).sections():
        if body:
            lines += [f"{heading}:", *(f"  {line}" for line in body)]
    return "\n".join(lines) + "\n"


class _Dump:
    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer
        self.names = {name for stage in mixer.stages for name in _made(stage)}
        self.names |= {i.name for i in mixer.inputs} | {e.name for e in mixer.lets}
        self.names |= {item.name for item in mixer.params} | {t.name for t in mixer.tables}

    def expression(self, expr: Expr) -> str:
        return write_expression(expr, self.names)

    def sections(self) -> Iterator[tuple[str, list[str]]]:
        mixer = self.mixer
        yield "inputs", [_input_line(item) for item in mixer.inputs]
        relations = [f"{dim}: {sequence}" for dim, sequence in mixer.sequences]
        sizes = [f"{dim} = {self.expression(value)}" for dim, value in mixer.sizes]
        yield "dims", relations + sizes
        yield "heads", [f"{small}: {large}" for small, large in mixer.heads]
        yield "params", self.params()
        yield "let", [self.equation(e) for e in mixer.lets]
        for number, stage in enumerate(mixer.stages, start=1):
            yield f"{type(stage).__name__.lower()} {stage.name or number}", list(self.stage(stage))
        yield "outputs", [f"{o.name}: {write_layout(o.layout)}" for o in mixer.outputs]

    def params(self) -> list[str]:
        scalars = [
            f"{p.name} = {self.expression(p.value)}{' (runtime)' if p.runtime else ''}"
            for p in self.mixer.params
        ]
        tables = [f"{t.name}[{', '.join(t.dims)}] = {list(t.values)}" for t in self.mixer.tables]
        return scalars + tables

    def equation(self, equation: Equation) -> str:
        return f"{equation.name}{_axes(equation.value)} = {self.expression(equation.value)}"

    def stage(self, stage: Stage) -> Iterator[str]:
        match stage:
            case Map(equations):
                yield from map(self.equation, equations)
            case Attention():
                yield from self.attention(stage)

    def attention(self, stage: Attention) -> Iterator[str]:
        yield f"over {stage.over}, queries [{', '.join(sorted(stage.queries))}]"
        for clause in ("score", "mask", "weight", "denominator", "sink", "gain"):
            value: Expr | None = getattr(stage, clause)
            if value is not None:
                yield f"{clause}{_axes(value)} = {self.expression(value)}"
        for output in stage.outputs:
            yield f"output {self.equation(output)}"
        for clause in ("lse", "weights"):
            if (name := getattr(stage, clause)) is not None:
                yield f"{clause} {name}"


def _made(stage: Stage) -> Iterator[str]:
    match stage:
        case Map(equations):
            yield from (equation.name for equation in equations)
        case Attention():
            yield from (result.name for result in stage.results)


def _input_line(item: Input) -> str:
    extras = [
        *([item.dtype] if item.dtype else []),
        *(["sorted"] if item.sorted else []),
        *([] if item.grad else ["no gradient"]),
        *([] if item.default is None else [f"default {_literal(item.default)[0]}"]),
    ]
    line = f"{item.name}: {write_layout(item.layout)}"
    return f"{line} ({', '.join(extras)})" if extras else line


def _axes(expr: Expr) -> str:
    kind = {Kind.BOOL: " bool", Kind.INT: " int", Kind.REAL: ""}[expr.kind]
    return f"[{', '.join(sorted(expr.axes))}]{kind}"


__all__ = ["write_expression", "write_layout", "write_mixer"]
