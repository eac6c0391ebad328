"""How often the loops of an emitted kernel turn at given sizes: its text, run for scalars only.

A kernel's loops are ranges of whole numbers that are computed from the program's number and from
sizes. Those lines are evaluated, for some of the programs; tiles and what is loaded stay unknown. A
bound that depends on data is a guess, and ``SourceTurns.guessed`` names its line.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean

Number = int | float | bool
Known = Number | None

_SEARCHES = 16.0  # turns of a loop that halves what it searches
_UNROLLED = "static_range"
_OPERATORS: Mapping[type, Callable[[Number, Number], Number]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.BitAnd: lambda a, b: bool(a) and bool(b),
    ast.BitOr: lambda a, b: bool(a) or bool(b),
}
_FUNCTIONS: Mapping[str, Callable[..., Number]] = {
    "cdiv": lambda a, b: -(-a // b),
    "minimum": min,
    "maximum": max,
    "min": min,
    "max": max,
    "where": lambda condition, yes, no: yes if condition else no,
}


@dataclass(frozen=True, slots=True)
class SourceLoop:
    """A loop of the text, by its lines; ``parent`` is the loop around it."""

    first: int
    last: int
    parent: SourceLoop | None = None

    @property
    def lineage(self) -> tuple[SourceLoop, ...]:
        """The loops around it from the outermost, and itself."""
        return (*(self.parent.lineage if self.parent else ()), self)


@dataclass(frozen=True, slots=True)
class SourceTurns:
    """Turns of the loops of a source, by their first line, each time that they are entered."""

    turns: Mapping[int, float]
    guessed: frozenset[int] = frozenset()


def source_loops(source: str) -> tuple[SourceLoop, ...]:
    """The loops of all functions; those that are unrolled by what they say are none."""
    return tuple(_loops(ast.parse(source).body, None))


def _loops(body: list[ast.stmt], parent: SourceLoop | None) -> Iterator[SourceLoop]:
    for node in body:
        inside = parent
        if isinstance(node, ast.While) or (isinstance(node, ast.For) and not _is_unrolled(node)):
            inside = SourceLoop(node.lineno, node.end_lineno or node.lineno, parent)
            yield inside
        for name in ("body", "orelse"):
            yield from _loops(getattr(node, name, []), inside)


def _is_unrolled(loop: ast.For) -> bool:
    return isinstance(loop.iter, ast.Call) and _name(loop.iter.func) == _UNROLLED


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


class KernelText:
    """An emitted kernel whose scalar lines can be run."""

    def __init__(self, source: str, kernel: str) -> None:
        """``kernel`` names a function of the source."""
        module = ast.parse(source)
        functions = (node for node in module.body if isinstance(node, ast.FunctionDef))
        self.functions = {node.name: node for node in functions}
        self.kernel = self.functions[kernel]

        loops = (node for node in ast.walk(module) if isinstance(node, ast.For))
        self.assigned = {id(node): _assigned(node.body) for node in loops}

    def turns(
        self, arguments: Mapping[str, Number], program: int | None, guess: int
    ) -> SourceTurns:
        """The turns of all loops in one program, or as far as any program has the same.

        Where bounds depend on what isn't known, a loop goes over ``guess`` positions.
        """
        run = _Run(self.functions, self.assigned, program, guess)
        run.function(self.kernel, dict(arguments))
        means = {line: fmean(seen) for line, seen in run.seen.items()}
        return SourceTurns(means, frozenset(run.guessed))


@dataclass
class _Run:
    functions: Mapping[str, ast.FunctionDef]
    assigned: Mapping[int, set[str]]
    program: int | None
    guess: int
    seen: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    guessed: set[int] = field(default_factory=set)

    def function(self, node: ast.FunctionDef, known: dict[str, Number]) -> Known:
        """Run it; what its last line returns, where that is a known number."""
        self._statements(node.body, known)
        match node.body[-1]:
            case ast.Return(value=ast.expr() as value):
                return self._value(value, known)
        return None

    def _statements(self, body: list[ast.stmt], known: dict[str, Number]) -> None:
        for node in body:
            match node:
                case ast.Assign(targets=[ast.Name(name)], value=value):
                    self._assign(name, value, known)
                case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value):
                    self._assign(name, value, known)
                case ast.AugAssign(target=ast.Name(name) as target, op=op, value=value):
                    self._assign(name, ast.BinOp(ast.Name(target.id), op, value), known)
                case ast.Assign(targets=[ast.Tuple(elts)], value=value):
                    self._value(value, known)
                    for name in (e.id for e in elts if isinstance(e, ast.Name)):
                        known.pop(name, None)
                case ast.For():
                    self._loop(node, known)
                case ast.While():
                    self.seen[node.lineno].append(_SEARCHES)
                case ast.If():
                    self._statements(node.body, known)
                    self._statements(node.orelse, known)
                case ast.Expr(value) | ast.Return(value=ast.expr() as value):
                    self._value(value, known)

    def _assign(self, name: str, value: ast.expr, known: dict[str, Number]) -> None:
        number = self._value(value, known)
        if number is None:
            known.pop(name, None)
        else:
            known[name] = number

    def _loop(self, node: ast.For, known: dict[str, Number]) -> None:
        """Run the first, the middle and the last turn: what is inside may depend on which."""
        if not isinstance(node.iter, ast.Call) or not isinstance(node.target, ast.Name):
            return
        bounds = [self._value(argument, known) for argument in node.iter.args]
        step = int((bounds[2:3] or [1])[0] or 1)
        start, stop = bounds[:2] if len(bounds) > 1 else [0, bounds[0]]
        unrolled = _is_unrolled(node)
        if start is None or stop is None:
            self.guessed.update(() if unrolled else (node.lineno,))
            start, stop = 0, 1 if unrolled else self.guess
        turns = range(int(start), int(stop), step)
        if not unrolled:
            self.seen[node.lineno].append(float(len(turns)))
        made = self.assigned[id(node)]
        for value in dict.fromkeys((*turns[:1], *turns[len(turns) // 2 :][:1], *turns[-1:])):
            inside = {name: number for name, number in known.items() if name not in made}
            self._statements(node.body, {**inside, node.target.id: value})
        for name in made:
            known.pop(name, None)

    def _value(self, node: ast.expr, known: Mapping[str, Number]) -> Known:
        """The number that an expression is; None where that isn't known."""
        match node:
            case ast.Constant(bool() | int() | float() as number):
                return number
            case ast.Name(name):
                return known.get(name)
            case ast.UnaryOp(ast.USub(), operand):
                return self._combined(ast.Sub(), 0, self._value(operand, known))
            case ast.BinOp(left, op, right) | ast.Compare(left, [op], [right]):
                return self._combined(op, self._value(left, known), self._value(right, known))
            case ast.Call():
                return self._call(node, known)
        return None

    def _combined(self, op: ast.AST, left: Known, right: Known) -> Known:
        function = _OPERATORS.get(type(op))
        divides = isinstance(op, ast.FloorDiv | ast.Mod | ast.Div)
        if function is None or left is None or right is None or (divides and not right):
            return None
        return function(left, right)

    def _call(self, node: ast.Call, known: Mapping[str, Number]) -> Known:
        name, function = _name(node.func), node.func
        arguments = [self._value(argument, known) for argument in node.args]
        if name == "program_id":
            return self.program
        if name == "to" and isinstance(function, ast.Attribute):
            return self._value(function.value, known)
        if name in ("cast", "full"):
            return arguments[1 if name == "full" and node.args[0:1] else 0]
        if name in self.functions:
            return self._own(self.functions[name], arguments)
        plain = [number for number in arguments if number is not None]
        if name in _FUNCTIONS and len(plain) == len(arguments) and plain:
            return _FUNCTIONS[name](*plain)
        return None

    def _own(self, function: ast.FunctionDef, arguments: list[Known]) -> Known:
        """A function of the module: its loops turn too."""
        names = [argument.arg for argument in function.args.args]
        given = zip(names, arguments, strict=False)
        return self.function(function, {name: n for name, n in given if n is not None})


def _assigned(body: list[ast.stmt]) -> set[str]:
    """The names that statements assign to, which may change from turn to turn."""
    nodes = (inner for node in body for inner in ast.walk(node))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
