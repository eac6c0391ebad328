"""Recurrences from a few lines of text, without the loader: for tests of the analysis alone."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from mixc.ir.expression import (
    ELEMENTWISE,
    Call,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    call,
)
from mixc.ir.mixer import Equation, Line, Recurrence, Rounds, State

_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow"}
_COMPARE = {ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge", ast.Eq: "eq"}


def dims(text: str) -> frozenset[str]:
    """The axes of a text like ``B T D``."""
    return frozenset(text.split())


def recurrence(
    inputs: Mapping[str, str],
    states: Mapping[str, str],
    step: str,
    *,
    batch: str = "B",
    over: str = "T",
    reset: str | None = None,
) -> Recurrence:
    """A recurrence of lines ``name = expression``; ``for R:`` opens an inner loop, indented.

    ``inputs`` gives axes with the batch and ``over`` (where there) among them, ``states`` the
    listed axes, to which ``batch`` is added.
    """
    names: dict[str, Expr] = {n: Ref(n, dims(axes), Kind.REAL) for n, axes in inputs.items()}
    made = tuple(
        State(n, dims(axes) | dims(batch), Literal(0.0), listed=tuple(axes.split()))
        for n, axes in states.items()
    )
    names |= {s.name: s.ref for s in made}
    fixed = frozenset(states)
    lines = _lines(step.strip("\n").split("\n"), names, fixed)
    condition = None if reset is None else expression(reset, names)
    return Recurrence(over, made, lines, reset=condition)


def _lines(rows: list[str], names: dict[str, Expr], fixed: frozenset[str]) -> tuple[Line, ...]:
    lines: list[Line] = []
    rows = [row for row in rows if row.strip()]
    depth = len(rows[0]) - len(rows[0].lstrip())
    while rows:
        row = rows.pop(0)
        if row.strip().startswith("for "):
            axis = row.strip()[4:].rstrip(":")
            inner = []
            while rows and len(rows[0]) - len(rows[0].lstrip()) > depth:
                inner.append(rows.pop(0))
            inside = dict(names)
            loop = Rounds(axis, _lines(inner, inside, fixed))
            for line in loop.step:
                assert isinstance(line, Equation)
                if line.name not in fixed:
                    names[line.name] = Ref(line.name, line.value.axes | {axis}, line.value.kind)
            lines.append(loop)
            continue
        name, text = (part.strip() for part in row.split("=", 1))
        value = expression(text, names)
        lines.append(Equation(name, value, text=text))
        if name not in fixed:
            names[name] = Ref(name, value.axes, value.kind)
    return tuple(lines)


def expression(text: str, names: Mapping[str, Expr]) -> Expr:
    """An expression in Python's spelling of the language: ``at(x, N=p)`` for reads."""
    return _expr(ast.parse(text, mode="eval").body, names)


def _expr(node: ast.expr, names: Mapping[str, Expr]) -> Expr:
    match node:
        case ast.Constant(value):
            return Literal(value)
        case ast.Name(name):
            return names[name] if name in names else Index(name.upper())
        case ast.UnaryOp(ast.USub(), x):
            return call("neg", _expr(x, names))
        case ast.BinOp(a, op, b):
            return call(_BINARY[type(op)], _expr(a, names), _expr(b, names))
        case ast.Compare(a, [op], [b]):
            return call(_COMPARE[type(op)], _expr(a, names), _expr(b, names))
        case ast.Call(ast.Name("at"), [x], keywords):
            at = tuple((k.arg or "", _expr(k.value, names)) for k in keywords)
            return Read(_expr(x, names), at)
        case ast.Call(ast.Name("sum"), [x, *axes]):
            over = tuple(a.id for a in axes if isinstance(a, ast.Name))
            return Reduce("sum", _expr(x, names), over)
        case ast.Call(ast.Name(fn), args) if fn in ELEMENTWISE:
            return Call(fn, tuple(_expr(a, names) for a in args))
    raise AssertionError(ast.dump(node))
