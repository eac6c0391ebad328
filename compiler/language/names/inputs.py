"""The inputs of a spec."""

from __future__ import annotations

from ....ir.expression import Kind, Literal, Ref
from ....ir.mixer import Input
from ..schema import InputSpec, SpecDocument
from ..terms.infer import infer
from ..text.grammar import parse
from ..text.positions import Text, clip
from ..text.source import closest, listed
from .constants import constant
from .dims import Dims
from .layouts import read_layout
from .names import declare
from .scope import Context, Scope

DTYPES: dict[str, Kind] = {
    **dict.fromkeys("int8 int16 int32 int64 uint8".split(), Kind.INT),
    "bool": Kind.BOOL,
    **dict.fromkeys("float16 bfloat16 float32 float64".split(), Kind.REAL),
}


def read_inputs(spec: SpecDocument, scope: Scope) -> tuple[Input, ...]:
    """The inputs, declared in ``scope``."""
    found = []
    for key, value in spec.inputs.items():
        name = declare(key, scope)
        if isinstance(value, InputSpec):
            item = _full_input(name, key.text, value)
        else:
            item = Input(name, read_layout(value), span=key.text.span)
        scope.names[name] = Ref(name, frozenset(item.dims), item.kind)
        found.append(item)
    return tuple(found)


def declared_input(spec: SpecDocument, name: str) -> object:
    """What the spec has at the input called ``name``."""
    return next(value for key, value in spec.inputs.items() if str(key) == name)


def _full_input(name: str, key: Text, full: InputSpec) -> Input:
    kind = Kind.REAL
    if full.dtype is not None:
        if full.dtype.value not in DTYPES:
            raise full.dtype.error(
                f"unknown dtype `{clip(full.dtype.value)}`",
                allowed=listed(DTYPES),
                do=closest(full.dtype.value, DTYPES),
            )
        kind = DTYPES[full.dtype.value]
    return Input(
        name,
        read_layout(full.dims),
        kind,
        None if full.dtype is None else full.dtype.value,
        full.sorted,
        full.grad,
        None if full.default is None else _default(full.default, kind),
        span=key.span,
    )


def _default(text: Text, kind: Kind) -> int | float | bool:
    value = read_number(text)
    if Literal(value).kind > kind:
        fitting = "true, false" if kind is Kind.BOOL else "an integer, as the dtype says"
        raise text.error(f"the default {value} does not fit the dtype", allowed=fitting)
    return value


def read_number(text: Text) -> int | float | bool:
    """A scalar that must be a number.

    Raises:
        SpecError: an expression of another kind.
    """
    value = constant(infer(parse(text), Scope(Context(text.source, Dims(set())))))
    if value is None:
        raise text.error(f"`{clip(text.value)}` is no number")
    return value


__all__ = ["DTYPES", "declared_input", "read_inputs", "read_number"]
