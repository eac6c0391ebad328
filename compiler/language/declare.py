"""Inputs, params, tables, dims, macros and lets: what a spec declares before its stages."""

from __future__ import annotations

import re

from ...ir.expression import Expr, Kind, Ref, Scalar, Span
from ...ir.mixer import Equation, Input, Param, Table
from .constants import constant
from .dims import Dims
from .grammar import parse, parse_target
from .infer import infer
from .layouts import check_axes, read_dim, read_layout
from .positions import Items, Node, Text, clip
from .scope import Context, Macro, Pending, Scope
from .schema import InputSpec, ParamSpec, SpecDocument, Word
from .source import closest, listed
from .surface import Name

_DTYPES: dict[str, Kind] = {
    **dict.fromkeys("int8 int16 int32 int64 uint8".split(), Kind.INT),
    "bool": Kind.BOOL,
    **dict.fromkeys("float16 bfloat16 float32 float64".split(), Kind.REAL),
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset("and or not inf pi true false if else for in is lambda import".split())


def check_name(text: Text, name: str, context: Context, span: Span | None = None) -> str:
    """A name that a spec declares.

    Raises:
        SpecError: not a name, a word of the grammar, or the name of a dim.
    """
    place = span or text.span
    if not _NAME.fullmatch(name) or len(name) > 64:
        raise context.error(
            place, f"`{clip(name)}` is no name", allowed="letters, digits and _, a letter first"
        )
    if name in _RESERVED or name in ("True", "False", "None"):
        raise context.error(place, f"`{name}` is a word of the language", do="choose another name")
    if name in context.dims.known:
        raise context.error(
            place,
            f"`{name}` is a dim of this spec and can't be declared",
            do="rename one of the two",
        )
    return name


def declare(name: Word, scope: Scope) -> str:
    """A key as a new name in ``scope``."""
    word = check_name(name.text, str(name), scope.context)
    if word in scope.names:
        raise name.text.error(f"`{word}` is declared twice", do="rename one of the two")
    return word


def collect_dims(spec: SpecDocument) -> Dims:
    """Every dim that the spec names, with sequences and head groups; sizes come later."""
    dims = Dims(known=set())
    for value in spec.inputs.values():
        items = value.dims if isinstance(value, InputSpec) else value
        dims.tensor.update(d for product in read_layout(items) for d in product)
    for param in spec.params.values():
        if isinstance(param, ParamSpec) and param.dims is not None:
            dims.tensor.update(d for product in read_layout(param.dims) for d in product)
    dims.known |= dims.tensor
    for axes in spec.outputs.values():
        dims.known.update(d for product in read_layout(axes) for d in product)
    for key, text in spec.dims.items():
        dims.known.add(read_dim(key.text))
        if text.value.strip()[:1].isupper() and _NAME.fullmatch(text.value.strip()):
            dims.sequences[str(key)] = text.value.strip()
            dims.known.add(text.value.strip())
    _settle_sequences(spec, dims)
    _collect_heads(spec, dims)
    return dims


def _settle_sequences(spec: SpecDocument, dims: Dims) -> None:
    """Follow ``I: T, T: S`` to the end; a sequence that is an axis itself is its own."""
    for key in spec.dims:
        seen, dim = [str(key)], dims.sequences.get(str(key))
        while dim in dims.sequences:
            if dim in seen:
                raise key.text.error(f"the sequence of {key} is defined by itself")
            seen.append(dim)
            dim = dims.sequences[dim]
        if dim is not None:
            dims.sequences[str(key)] = dim
    for sequence in sorted(set(dims.sequences.values()) & dims.tensor):
        dims.sequences[sequence] = sequence


def _collect_heads(spec: SpecDocument, dims: Dims) -> None:
    for key, text in spec.heads.items():
        small, large = read_dim(key.text), read_dim(text)
        for name, place in ((small, key.text), (large, text)):
            if name not in dims.known:
                raise place.error(
                    f"`{name}` is no dim of this spec",
                    allowed=listed(sorted(dims.known)),
                    do=closest(name, dims.known),
                )
        if small == large:
            raise key.text.error(f"{small} can't be a group of itself")
        dims.heads[small] = large
    for key in spec.heads:
        seen, dim = set(), str(key)
        while dim in dims.heads:
            if dim in seen:
                raise key.text.error("these head groups contain each other")
            seen.add(dim)
            dim = dims.heads[dim]


def read_inputs(spec: SpecDocument, scope: Scope) -> tuple[Input, ...]:
    """The inputs, declared in ``scope``."""
    found = []
    for key, value in spec.inputs.items():
        name = declare(key, scope)
        item = _input(name, key.text, value if isinstance(value, InputSpec) else None, value)
        scope.names[name] = Ref(name, frozenset(item.dims), item.kind)
        found.append(item)
    return tuple(found)


def _input(name: str, key: Text, full: InputSpec | None, axes: object) -> Input:
    if full is None:
        assert isinstance(axes, tuple)
        return Input(name, read_layout(axes), span=key.span)
    dtype = None if full.dtype is None else full.dtype.value
    if full.dtype is not None and dtype not in _DTYPES:
        raise full.dtype.error(
            f"unknown dtype `{clip(full.dtype.value)}`",
            allowed=listed(_DTYPES),
            do=closest(full.dtype.value, _DTYPES),
        )
    return Input(
        name,
        read_layout(full.dims),
        Kind.REAL if dtype is None else _DTYPES[dtype],
        dtype,
        full.sorted,
        full.grad,
        None if full.default is None else _number(full.default),
        key.span,
    )


def _number(text: Text) -> int | float | bool:
    """A scalar that must be a number."""
    context = Context(text.source, Dims(set()))
    value = constant(infer(parse(text), Scope(context)))
    if value is None:
        raise text.error(f"`{clip(text.value)}` is no number")
    return value


def read_params(spec: SpecDocument, scope: Scope) -> None:
    """Declare the params; their values are read when first used, or by ``finish_params``."""
    for key, value in spec.params.items():
        name = declare(key, scope)
        if isinstance(value, ParamSpec) and (value.dims is not None or value.values is not None):
            table = read_table(name, key, value)
            scope.names[name] = Ref(name, frozenset(table.dims), table.kind)
        else:
            scope.names[name] = Pending(_param_reader(name, key, value, scope))


def _param_reader(name: str, key: Word, value: Text | ParamSpec, scope: Scope) -> _ParamReader:
    if isinstance(value, Text):
        return _ParamReader(name, key, value, False, scope)
    if value.default is None:
        raise value.block.source.error(
            value.block.span,
            f"the param `{name}` has no `default`",
            do="add `default: …`, or `dims:` and `values:` for a table",
        )
    return _ParamReader(name, key, value.default, value.runtime, scope)


class _ParamReader:
    """Reads a param's value once, and gives the name as expressions see it."""

    def __init__(self, name: str, key: Word, text: Text, runtime: bool, scope: Scope) -> None:
        self.name, self.key, self.text, self.runtime = name, key, text, runtime
        self.scope = scope
        self.param: Param | None = None

    def __call__(self) -> Expr:
        param = self.read()
        return Scalar(self.name, param.kind, param.runtime)

    def read(self) -> Param:
        if self.param is None:
            value = resolve(self.name, self.text, self.scope)
            if value.axes:
                raise self.text.error(
                    f"the param `{self.name}` has the axes [{', '.join(sorted(value.axes))}]",
                    allowed="numbers, sizes and other params",
                    do="name an expression with axes under `let:`",
                )
            _check_scalar(self.text, value)
            flag = value.kind is Kind.BOOL
            span = self.key.text.span
            self.param = Param(self.name, value, value.kind, self.runtime, flag, span)
        return self.param


def _check_scalar(text: Text, value: Expr) -> None:
    from ...ir.expression import Read, Reduce, walk

    if any(isinstance(node, Ref | Read | Reduce) for node in walk(value)):
        raise text.error(
            "a param's value reads a tensor", allowed="numbers, sizes and other params"
        )


def finish_params(spec: SpecDocument, scope: Scope) -> tuple[tuple[Param, ...], tuple[Table, ...]]:
    """Every param and table in the order of the spec."""
    params, tables = [], []
    for key, value in spec.params.items():
        match scope.names[str(key)]:
            case Pending(_ParamReader() as reader):
                params.append(reader.read())
            case _:
                assert isinstance(value, ParamSpec)
                tables.append(read_table(str(key), key, value))
    return tuple(params), tuple(tables)


def read_table(name: str, key: Word, value: ParamSpec) -> Table:
    """A param with axes."""
    if value.dims is None or value.values is None:
        lacking = "dims" if value.dims is None else "values"
        raise value.block.source.error(
            value.block.span, f"the table `{name}` has no `{lacking}`", do=f"add `{lacking}: …`"
        )
    if value.runtime or value.default is not None:
        raise key.text.error("a table has neither `default` nor `runtime`", do="make it an input")
    layout = read_layout(value.dims)
    dims = tuple(dim for product in layout for dim in product)
    if len(dims) != len(layout) or any(len(product) != 1 for product in layout):
        raise key.text.error("the axes of a table are plain dims")
    numbers: list[int | float | bool] = []
    shape = _flatten(value.values, len(dims), numbers, value)
    kind = max((_kind(v) for v in numbers), default=Kind.INT)
    return Table(name, dims, shape, tuple(float(v) for v in numbers), kind)


def _kind(value: int | float | bool) -> Kind:
    if isinstance(value, bool):
        return Kind.BOOL
    return Kind.INT if isinstance(value, int) else Kind.REAL


def _flatten(
    items: tuple[Node, ...], depth: int, numbers: list[int | float | bool], table: ParamSpec
) -> tuple[int, ...]:
    """Append the numbers row by row; the shape of what is nested."""
    inner: set[tuple[int, ...]] = set()
    for item in items:
        if isinstance(item, Text) and depth == 1:
            numbers.append(_number(item))
            inner.add(())
        elif isinstance(item, Items) and depth > 1:
            inner.add(_flatten(item.items, depth - 1, numbers, table))
        else:
            raise item.source.error(
                item.span, "the nesting of `values` does not fit `dims`", allowed="one list per dim"
            )
    if len(inner) != 1:
        what = "rows of different lengths" if inner else "no values"
        raise table.block.source.error(table.block.span, f"the table has {what}")
    return (len(items), *inner.pop())


def read_macros(spec: SpecDocument, scope: Scope) -> None:
    """Declare the macros."""
    from .functions import FUNCTIONS, LATER

    context = scope.context
    for key, text in spec.define.items():
        target, parameters, opening = parse_target(key.text)
        if opening != "(":
            raise key.text.error(
                "a macro needs parameters",
                allowed="`name(a, b): expression`",
                do="name an expression without parameters under `let:`",
            )
        name = check_name(key.text, target.name, context, target.span)
        if name in FUNCTIONS or name in LATER:
            raise context.error(target.span, f"`{name}` is a function of the language")
        if name in scope.names or name in context.macros:
            raise context.error(target.span, f"`{name}` is declared twice")
        words = [check_name(key.text, p.name, context, p.span) for p in parameters or ()]
        if len(set(words)) != len(words):
            raise context.error(target.span, "a parameter is here twice")
        context.macros[name] = Macro(name, tuple(words), parse(text), text)


class Lets:
    """Named intermediate expressions, read in the order in which they need each other."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []

    def declare(self, lets: dict[Word, Text], scope: Scope) -> None:
        """Make the names known in ``scope``."""
        for key, text in lets.items():
            target, axes, opening = parse_target(key.text)
            if opening == "(":
                raise key.text.error(
                    f"`{target.name}` has parameters", do="write macros under `define:`"
                )
            name = check_name(key.text, target.name, scope.context, target.span)
            if name in scope.names:
                raise key.text.error(f"`{name}` is declared twice", do="rename one of the two")
            scope.names[name] = Pending(_LetReader(self, target, axes, text, scope))

    def finish(self, scope: Scope) -> None:
        """Read every let of ``scope`` that nothing has read yet."""
        for binding in list(scope.names.values()):
            if isinstance(binding, Pending) and isinstance(binding.resolve, _LetReader):
                binding.resolve()


class _LetReader:
    def __init__(
        self, lets: Lets, name: Name, axes: tuple[Name, ...] | None, text: Text, scope: Scope
    ) -> None:
        self.lets, self.name, self.axes, self.text, self.scope = lets, name, axes, text, scope
        self.ref: Ref | None = None

    def __call__(self) -> Expr:
        if self.ref is None:
            name, scope = self.name.name, self.scope
            value = resolve(name, self.text, scope)
            check_annotation(f"`{name}`", value, self.axes, scope.context)
            span = self.name.span
            equation = Equation(name, value, " ".join(self.text.value.split()), span)
            self.lets.equations.append(equation)
            self.ref = equation.ref
        return self.ref


def check_annotation(
    what: str, value: Expr, axes: tuple[Name, ...] | None, context: Context
) -> None:
    """Compare a value with the axes written at its name, if any are."""
    if axes is None:
        return
    for axis in axes:
        if axis.name not in context.dims.known:
            known = context.dims.known
            raise context.error(
                axis.span,
                f"`{axis.name}` is no dim of this spec",
                allowed=listed(sorted(known)),
                do=closest(axis.name, known),
            )
    declared = [axis.name for axis in axes]
    span = axes[0].span if axes else Span(1, 1)
    check_axes(what, value, declared, context.source, span)


def resolve(name: str, text: Text, scope: Scope) -> Expr:
    """The expression of a definition, with cycles refused."""
    context = scope.context
    if name in context.resolving:
        chain = " → ".join([*context.resolving[context.resolving.index(name) :], name])
        raise text.error(f"`{name}` is defined by itself: {chain}")
    context.resolving.append(name)
    try:
        value = infer(parse(text), scope)
    finally:
        context.resolving.pop()
    return context.settle(value, text.span)


__all__ = [
    "Lets",
    "check_annotation",
    "check_name",
    "collect_dims",
    "declare",
    "finish_params",
    "read_inputs",
    "read_macros",
    "read_params",
    "resolve",
]
