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
    Solve,
)
from .mixer import (
    Attention,
    Equation,
    Held,
    Input,
    Layout,
    Line,
    Map,
    Mixer,
    Recurrence,
    Rounds,
    Select,
    Stage,
    State,
)
from .rewriting import walk

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


def write_expression(
    expr: Expr, names: Iterable[str] = (), final: frozenset[str] = frozenset()
) -> str:
    """The expression as a spec would have it, with no parenthesis too many.

    The index along D is ``d``, or ``index(D)`` where a name hides it: one in the expression, or
    one of ``names``. A name of ``final`` is an earlier recurrence's state, read as ``last(S)``.
    """
    own = (node.name for node in walk(expr) if isinstance(node, Ref | Scalar))
    return _Writer(frozenset({*names, *own}), final).write(expr, _OR)


class _Writer:
    def __init__(self, hidden: frozenset[str], final: frozenset[str]) -> None:
        self.hidden, self.final = hidden, final

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
                return f"last({name})" if name in self.final else name, _ATOM
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
            case Solve(matrix, vector, left, right):
                system = f"{self.write(matrix, _OR)}, {self.write(vector, _OR)}"
                return f"solve({system}, {left}={right})", _ATOM
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
    """The whole mixer as a spec, a line per equation with its axes; the language reads it back.

    What the loader wrote out stays written out; a stage's own lets are among the others.
    """
    return "\n".join(_Dump(mixer).lines()) + "\n"


class _Dump:
    def __init__(self, mixer: Mixer) -> None:
        self.mixer = mixer
        self.final: frozenset[str] = frozenset()  # states of the recurrences written so far
        self.names = {name for stage in mixer.stages for name in _made(stage)}
        self.names |= {i.name for i in mixer.inputs} | {e.name for e in mixer.lets}
        self.names |= {item.name for item in mixer.params} | {t.name for t in mixer.tables}

    def lines(self) -> Iterator[str]:
        mixer = self.mixer
        yield f"mixer: {mixer.name}"
        for key, prose in (("about", mixer.about), ("source", mixer.source)):
            if prose:
                quoted = prose.replace("'", "''")
                yield f"{key}: '{quoted}'"
        yield from _block("inputs", [_input_line(item, self.names) for item in mixer.inputs])
        yield from _block("dims", self.dims())
        yield from _block("heads", [f"{small}: {large}" for small, large in mixer.heads])
        yield from _block("params", [*self.params(), *_tables(mixer)])
        yield from _block("let", [self.equation(e) for e in mixer.lets])
        yield from _block("stages", [line for stage in mixer.stages for line in self.stage(stage)])
        yield from _block("outputs", [f"{o.name}: {write_layout(o.layout)}" for o in mixer.outputs])
        yield from _block("tiling", [f"{knob}: {list(values)}" for knob, values in mixer.tiling])
        yield from _block("check", [f"{dim}: {size}" for dim, size in mixer.check])
        bench = [", ".join(f"{dim}: {size}" for dim, size in row) for row in mixer.bench]
        yield from _block("bench", [f"- {{{row}}}" for row in bench])

    def expression(self, expr: Expr) -> str:
        return write_expression(expr, self.names, self.final)

    def dims(self) -> Iterator[str]:
        positions = dict(self.mixer.sequences)
        yield from (f"{dim}: {over}" for dim, over in positions.items() if dim != over)
        for dim, value in self.mixer.sizes:
            if dim not in positions:
                text = self.expression(value)
                yield f"{dim}: ({text})" if isinstance(value, Size) else f"{dim}: {text}"

    def params(self) -> Iterator[str]:
        for param in self.mixer.params:
            value = self.expression(param.value)
            if param.runtime:
                yield from _block(param.name, [f"default: {value}", "runtime: true"])
            else:
                yield f"{param.name}: {value}"

    def equation(self, equation: Equation) -> str:
        return self.clause(equation.name, equation.value)

    def clause(self, name: str, value: Expr) -> str:
        kind = {Kind.BOOL: "  # bool", Kind.INT: "  # int", Kind.REAL: ""}[value.kind]
        return f"{name}[{', '.join(sorted(value.axes))}]: {self.expression(value)}{kind}"

    def stage(self, stage: Stage) -> Iterator[str]:
        match stage:
            case Map(equations):
                body = _block("map", [self.equation(e) for e in equations])
            case Attention():
                body = _block("attention", self.attention(stage))
            case Recurrence():
                body = _block("recurrence", self.recurrence(stage))
            case Select():
                body = _block("select", self.select(stage))
        lines = [*([f"name: {stage.name}"] if stage.name else []), *body]
        yield f"- {lines[0]}"
        yield from (f"  {line}" for line in lines[1:])

    def attention(self, stage: Attention) -> Iterator[str]:
        yield f"over: {stage.over}  # for each of [{', '.join(sorted(stage.queries))}]"
        yield self.clause("score", stage.score)
        if stage.mask is not None:
            yield self.clause("mask", stage.mask)
        yield from self.normalizer(stage)
        if stage.gain is not None:
            yield self.clause("gain", stage.gain)
        yield from _block(
            "output",
            [
                f"{o.name}: {self.expression(o.value)}  # [{', '.join(sorted(o.value.axes))}]"
                for o in stage.outputs
            ],
        )
        for clause in ("lse", "weights"):
            if (name := getattr(stage, clause)) is not None:
                yield f"{clause}: {name}"

    def select(self, stage: Select) -> Iterator[str]:
        over = stage.over[0] if len(stage.over) == 1 else f"[{', '.join(stage.over)}]"
        yield f"over: {over}  # for each of [{', '.join(sorted(stage.queries))}]"
        yield self.clause("score", stage.score)
        if stage.among is not None:
            yield self.clause("among", stage.among)
        yield from _block("keep", [f"{stage.rule}: {self.expression(stage.bound)}"])
        if stage.always is not None:
            yield self.clause("always", stage.always)
        yield f"output: {stage.output}"
        if stage.listed is not None:
            yield from _block("list", [f"name: {stage.listed}", f"axis: {stage.slots}"])

    def recurrence(self, stage: Recurrence) -> Iterator[str]:
        yield f"over: {stage.over}"
        self.final -= {state.name for state in stage.states}
        yield from _block("state", [_state_line(state) for state in stage.states])
        initial = [f"{s.name}: {self.expression(s.initial)}" for s in stage.states]
        yield from _block("initial", initial)
        if stage.reset is not None:
            yield f"reset: {self.expression(stage.reset)}"
        if stage.reverse:
            yield "direction: backward"
        yield from _block("step", self.step(stage, stage.step, frozenset({stage.over})))
        self.final |= {state.name for state in stage.states}

    def step(
        self, stage: Recurrence, lines: tuple[Line, ...], rows: frozenset[str]
    ) -> Iterator[str]:
        states = {state.name: state.dims for state in stage.states}
        for line in lines:
            match line:
                case Equation(name, value):
                    axes = ", ".join(sorted(states.get(name, value.axes)))
                    yield f"- {name}[{axes}] = {self.expression(value)}"
                case Rounds(over, inner):
                    yield f"- over: {over}"
                    step = _block("step", self.step(stage, inner, rows | {over}))
                    yield from (f"  {text}" for text in step)

    def normalizer(self, stage: Attention) -> Iterator[str]:
        if stage.sink is not None:
            sink = f"sink: {self.expression(stage.sink)}"
            yield from _block("normalize", _block("softmax", [sink]))
            return
        match stage.weight, stage.denominator:
            case Call("exp", (Ref("score"),)), Ref("total"):
                yield "normalize: softmax"
            case weight, denominator:
                lines = [f"weight: {self.expression(weight)}"]
                lines += [f"denominator: {self.expression(denominator)}"]
                yield from _block("normalize", lines)


def _block(key: str, lines: Iterable[str]) -> list[str]:
    """``key:`` and its lines below it; nothing where there are none."""
    body = [f"  {line}" for line in lines]
    return [f"{key}:", *body] if body else []


def _made(stage: Stage) -> Iterator[str]:
    match stage:
        case Map(equations):
            yield from (equation.name for equation in equations)
        case Attention() | Recurrence() | Select():
            yield from (result.name for result in stage.results)


def _state_line(state: State) -> str:
    axes = f"[{', '.join(state.listed)}]"
    flows = ", ".join(sorted(state.dims - set(state.listed)))
    note = f"  # and [{flows}]" if flows else ""
    if state.dtype is not None:
        return f"{state.name}: {{dims: {axes}, dtype: {state.dtype}}}{note}"
    return f"{state.name}: {axes}{note}"


def _input_line(item: Input, names: Iterable[str]) -> str:
    extras = [
        *([f"dtype: {item.dtype}"] if item.dtype else []),
        *(["sorted: true"] if item.sorted else []),
        *([] if item.grad else ["grad: false"]),
        *([] if item.default is None else [f"default: {_literal(item.default)[0]}"]),
        *(
            []
            if item.range is None
            else [f"range: [{', '.join(map(write_expression, item.range))}]"]
        ),
        *([] if item.unit is None else [f"unit: {item.unit}"]),
        *([] if item.held is None else [_held(item.held, names)]),
    ]
    axes = write_layout(item.layout)
    return f"{item.name}: " + (f"{{{', '.join([f'dims: {axes}', *extras])}}}" if extras else axes)


def _held(held: Held, names: Iterable[str]) -> str:
    start = "true" if held.start is None else write_expression(held.start, names)
    start = f"'{start}'" if "," in start else start
    return f"{'weight' if held.trained else 'buffer'}: {start}"


def _tables(mixer: Mixer) -> Iterator[str]:
    for table in mixer.tables:
        numbers = [_literal(_as_kind(value, table.kind))[0] for value in table.values]
        for size in reversed(table.shape[1:]):
            rows = range(0, len(numbers), size)
            numbers = [f"[{', '.join(numbers[row : row + size])}]" for row in rows]
        lines = [f"dims: [{', '.join(table.dims)}]", f"values: [{', '.join(numbers)}]"]
        yield from _block(table.name, lines)


def _as_kind(value: float, kind: Kind) -> bool | int | float:
    match kind:
        case Kind.BOOL:
            return bool(value)
        case Kind.INT:
            return int(value)
        case Kind.REAL:
            return value


__all__ = ["write_expression", "write_layout", "write_mixer"]
