"""Elementwise functions as C++ text, on scalars and on vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.tile import DType

SCALAR_TYPE: Mapping[DType, str] = {
    DType.BOOL: "bool",
    DType.INT32: "int32_t",
    DType.INT64: "int64_t",
    DType.FLOAT16: "float",
    DType.BFLOAT16: "float",
    DType.FLOAT32: "float",
}
VECTOR_TYPE: Mapping[DType, str] = {
    DType.BOOL: "mx::vi",
    DType.INT32: "mx::vi",
    DType.INT64: "mx::vl",
    DType.FLOAT16: "mx::vf",
    DType.BFLOAT16: "mx::vf",
    DType.FLOAT32: "mx::vf",
}
# Elements of a local array: truth values as comparisons of vectors give them.
ARRAY_TYPE: Mapping[DType, str] = {**SCALAR_TYPE, DType.BOOL: "int32_t"}
# Elements of a tensor in memory.
MEMORY_TYPE: Mapping[DType, str] = {
    DType.BOOL: "bool",
    DType.INT32: "int32_t",
    DType.INT64: "int64_t",
    DType.FLOAT16: "mx::fp16",
    DType.BFLOAT16: "mx::bf16",
    DType.FLOAT32: "float",
}


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of C++ with its type; ``vector``: one value per lane."""

    code: str
    dtype: DType
    vector: bool = False

    def as_vector(self) -> str:
        """The code, spread over the lanes if it is one number."""
        if self.vector:
            return self.code
        return f"mx::splat({_sized(self.code, self.dtype)})"


def _sized(code: str, dtype: DType) -> str:
    """A number whose C++ type may be narrower, in its own."""
    return f"int64_t({code})" if dtype is DType.INT64 else code


_INFIX: Mapping[str, str] = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
}
_LOGIC: Mapping[str, tuple[str, str]] = {"and": ("&&", "&"), "or": ("||", "|")}
_NAMED: Mapping[str, str] = {"where": "select", "floordiv": "floor_divide", "mod": "modulo"}


def write_call(fn: str, args: list[Text], out: DType) -> Text:
    """The text of an elementwise function; a vector where any argument is one."""
    vector = any(a.vector for a in args)
    codes = [a.as_vector() if vector else a.code for a in args]
    if fn == "detach":
        return Text(codes[0], out, vector)
    if not vector:
        codes = [_sized(a.code, a.dtype) for a in args]
    if fn in _INFIX:
        code = f"({codes[0]} {_INFIX[fn]} {codes[1]})"
        wide = out is DType.BOOL and any(a.dtype is DType.INT64 for a in args)
        return Text(f"mx::to_int{code}" if vector and wide else code, out, vector)
    if fn in _LOGIC:
        return Text(f"({codes[0]} {_LOGIC[fn][vector]} {codes[1]})", out, vector)
    if fn == "neg":
        return Text(f"(-{codes[0]})", out, vector)
    if fn == "not":
        return Text(f"(~{codes[0]})" if vector else f"(!{codes[0]})", out, vector)
    if fn == "where" and not args[0].vector:
        codes[0] = args[0].code
    code = f"mx::{_NAMED.get(fn, fn)}({', '.join(codes)})"
    if fn in ("floor", "ceil", "round") and out is DType.INT32 and args[0].dtype.is_float:
        code = f"mx::to_int({code})" if vector else f"int32_t({code})"
    return Text(code, out, vector)


def write_cast(x: Text, out: DType) -> Text:
    """The text of a cast; narrow floats are floats that have been rounded."""
    return Text(_cast_code(x, out), out, x.vector)


def _cast_code(x: Text, out: DType) -> str:
    if out is DType.BFLOAT16 or out is DType.FLOAT16:
        if x.dtype is out:
            return x.code
        wide = x if x.dtype.is_float else write_cast(x, DType.FLOAT32)
        return f"mx::round_{'bf16' if out is DType.BFLOAT16 else 'fp16'}({wide.code})"
    if out is DType.FLOAT32:
        if x.dtype.is_float:
            return x.code
        if not x.vector:
            return f"float({x.code})"
        whole = f"({x.code} & 1)" if x.dtype is DType.BOOL else x.code
        return f"mx::to_float({whole})"
    if out is DType.BOOL:
        zero = "0.0f" if x.dtype.is_float else "0"
        code = f"({x.code} != {zero})"
        return f"mx::to_int{code}" if x.vector and x.dtype is DType.INT64 else code
    if not x.vector:
        return f"{SCALAR_TYPE[out]}({x.code})"
    if x.dtype is out:
        return x.code
    whole = f"({x.code} & 1)" if x.dtype is DType.BOOL else x.code
    if out is DType.INT64:
        return f"mx::to_long({whole})"
    return whole if x.dtype is DType.BOOL else f"mx::to_int({whole})"


def write_number(value: float | int | bool, dtype: DType) -> str:
    """A number as source; floats in the shortest decimal form that reads back."""
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if not dtype.is_float:
        if dtype is DType.INT64:
            return f"int64_t({int(value)}LL)"
        # The digits of the lowest alone are no int.
        return f"({value + 1} - 1)" if value == -(1 << 31) else str(int(value))
    number = float(value)
    if math.isnan(number):
        return '__builtin_nanf("")'
    if math.isinf(number):
        return "mx::INF" if number > 0 else "-mx::INF"
    return f"{_shortest(number)}f"


def _shortest(number: float) -> str:
    import struct

    (exact,) = struct.unpack("f", struct.pack("f", number))
    for digits in range(1, 10):
        text = f"{exact:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(text)))[0] == exact:
            break
    return text if "." in text or "e" in text or "n" in text else f"{text}.0"
