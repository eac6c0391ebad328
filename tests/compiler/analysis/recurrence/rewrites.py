"""Other spellings of a step: algebra inside its lines, lines split, merged and renamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from mixc.ir.expression import Call, Expr, Kind, Literal, Reduce, Ref, call
from mixc.ir.mixer import Equation, Line, Recurrence
from mixc.ir.rewriting import rebuild, walk, with_names

Rule = Callable[[Expr], Expr | None]


def commute(expr: Expr) -> Expr | None:
    match expr:
        case Call("add" | "mul" | "max" | "logaddexp" as fn, (a, b)):
            return call(fn, b, a)
    return None


def subtract(expr: Expr) -> Expr | None:
    match expr:
        case Call("sub", (a, b)):
            return call("add", a, call("neg", b))
        case Call("add", (a, Call("neg", (b,)))):
            return call("sub", a, b)
        case Call("neg", (a,)):
            return call("mul", -1, a)
    return None


def distribute(expr: Expr) -> Expr | None:
    match expr:
        case Call("mul", (a, Call("add" | "sub" as fn, (b, c)))):
            return call(fn, call("mul", a, b), call("mul", a, c))
        case Call("mul", (Call("add" | "sub" as fn, (b, c)), a)):
            return call(fn, call("mul", b, a), call("mul", c, a))
    return None


def factor(expr: Expr) -> Expr | None:
    match expr:
        case Call("add" | "sub" as fn, (Call("mul", (a, b)), Call("mul", (c, d)))) if a == c:
            return call("mul", a, call(fn, b, d))
    return None


def associate(expr: Expr) -> Expr | None:
    match expr:
        case Call("add" | "mul" | "max" as fn, (Call(inner, (a, b)), c)) if fn == inner:
            return call(fn, a, call(fn, b, c))
        case Call("add" | "mul" | "max" as fn, (a, Call(inner, (b, c)))) if fn == inner:
            return call(fn, call(fn, a, b), c)
    return None


def neutral(expr: Expr) -> Expr | None:
    if expr.kind is not Kind.REAL or isinstance(expr, Literal):
        return None
    return call("mul", expr, 1)


def exponentials(expr: Expr) -> Expr | None:
    match expr:
        case Call("exp", (Call("add", (a, b)),)):
            return call("mul", call("exp", a), call("exp", b))
        case Call("mul", (Call("exp", (a,)), Call("exp", (b,)))):
            return call("exp", call("add", a, b))
        case Call("exp", (Call("neg", (a,)),)):
            return call("div", 1, call("exp", a))
    return None


def complement(expr: Expr) -> Expr | None:
    """a * x --> x - x * (1 - a)."""
    match expr:
        case Call("mul", (Call("exp" | "sigmoid") as a, x)):
            return call("sub", x, call("mul", x, call("sub", 1, a)))
    return None


def pull_out(expr: Expr) -> Expr | None:
    match expr:
        case Reduce("sum", Call("mul", (a, b)), over, None, ()) if not a.axes & set(over):
            if set(over) <= b.axes:
                return call("mul", a, Reduce("sum", b, over))
        case Call("mul", (a, Reduce("sum", b, over, None, ()))) if not a.axes & set(over):
            return Reduce("sum", call("mul", a, b), over)
    return None


def sums(expr: Expr) -> Expr | None:
    match expr:
        case Reduce("sum", Call("add" | "sub" as fn, (a, b)), over, None, ()):
            if set(over) <= a.axes & b.axes:
                return call(fn, Reduce("sum", a, over), Reduce("sum", b, over))
    return None


def choose(expr: Expr) -> Expr | None:
    match expr:
        case Call("max", (a, b)):
            return call("where", call("gt", a, b), a, b)
    return None


RULES: tuple[Rule, ...] = (
    commute,
    subtract,
    distribute,
    factor,
    associate,
    neutral,
    exponentials,
    complement,
    pull_out,
    sums,
    choose,
)


def rewritten(step: Recurrence, random: Random, times: int) -> Recurrence:
    """The step in another spelling, after so many random changes."""
    lines = list(step.step)
    for number in range(times):
        change = random.choice((_algebra, _algebra, _algebra, _split, _merge))
        change(lines, step, random, number)
    return replace(step, step=tuple(lines))


def _algebra(lines: list[Line], step: Recurrence, random: Random, number: int) -> None:
    place = random.randrange(len(lines))
    line = lines[place]
    if isinstance(line, Equation):
        rule = random.choice(RULES)
        spots = [node for node in walk(line.value) if rule(node) is not None]
        if spots:
            chosen = random.choice(spots)
            lines[place] = replace(line, value=_at(line.value, chosen, rule))


def _at(expr: Expr, spot: Expr, rule: Rule) -> Expr:
    """The rule applied where ``spot`` stands (the first of several that are alike)."""
    done = False

    def change(node: Expr) -> Expr:
        nonlocal done
        if not done and node == spot:
            done = True
            changed = rule(node)
            assert changed is not None
            return changed
        return rebuild(node, change)

    return change(expr)


def _split(lines: list[Line], step: Recurrence, random: Random, number: int) -> None:
    """A part of a line gets a line and a name of its own."""
    place = random.randrange(len(lines))
    line = lines[place]
    if isinstance(line, Equation) and line.value.children:
        part = random.choice([n for n in walk(line.value) if n.children and n.kind is Kind.REAL])
        name = Ref(f"part{number}", part.axes, part.kind)
        rest = _at(line.value, part, lambda _: name)
        lines[place : place + 1] = [Equation(name.name, part), replace(line, value=rest)]


def _merge(lines: list[Line], step: Recurrence, random: Random, number: int) -> None:
    """A line that one of the rewrites has made goes back to where it is read."""
    places = [
        i for i, line in enumerate(lines) if isinstance(line, Equation) and line.name[:4] == "part"
    ]
    if places:
        place = random.choice(places)
        line = lines[place]
        assert isinstance(line, Equation)
        after = lines[place + 1]
        assert isinstance(after, Equation)
        lines[place + 1] = replace(after, value=with_names(after.value, {line.name: line.value}))
