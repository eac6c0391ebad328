"""The params of a spec: numbers, flags and tables of constants."""

from __future__ import annotations

from ....ir.expression import Expr, Kind, Literal, Ref, Scalar
from ....ir.mixer import Param, Table
from ..schema import ParamSpec, SpecDocument, Word
from ..text.positions import Items, Node, Text
from .definitions import check_host, resolve
from .inputs import read_number
from .layouts import read_layout
from .names import declare
from .scope import Pending, Scope

Number = int | float | bool


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
            check_host(f"the param `{self.name}`", self.text, value)
            flag = value.kind is Kind.BOOL
            span = self.key.text.span
            self.param = Param(self.name, value, value.kind, self.runtime, flag, span)
        return self.param


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
    numbers: list[Number] = []
    shape = _flatten(value.values, len(dims), numbers, value)
    kind = max((Literal(v).kind for v in numbers), default=Kind.INT)
    return Table(name, dims, shape, tuple(float(v) for v in numbers), kind)


def _flatten(
    items: tuple[Node, ...], depth: int, numbers: list[Number], table: ParamSpec
) -> tuple[int, ...]:
    """Append the numbers row by row; the shape of what is nested."""
    inner: set[tuple[int, ...]] = set()
    for item in items:
        if isinstance(item, Text) and depth == 1:
            numbers.append(read_number(item))
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


__all__ = ["finish_params", "read_params", "read_table"]
