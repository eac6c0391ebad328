"""Documents in one row, as a program holds them: a table of where they lie, and a plain call.

    mixer(q, k, v, cu_seqlens=c)  -->  t = mixc::documents(q, k, v, c); packed(q, k, v, t)

So the packed mixer is an operator like any other, with its own backward pass by kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.compiler import assume_constant_result

from ..runtime.documents import row_sizes
from ..runtime.packing import document_tables
from .recording import execution_of
from .signature import part_text, read_call

_SCHEMA = "(str mixer, str call, Tensor[] tensors, float[] params) -> Tensor[]"


class Packed(NamedTuple):
    """The text of a mixer's packed form, and the inputs that it has more: one table each."""

    text: str
    tables: tuple[str, ...]


@torch.library.custom_op("mixc::documents", mutates_args=(), schema=_SCHEMA)
def documents(mixer: str, call: str, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
    """The tables of a packed row, int32, one value for each of its positions."""
    execution, read = execution_of(mixer), read_call(call)
    given = dict(zip(read.inputs, tensors, strict=False))
    numbers, cuts = read.numbers(execution.mixer, params), read.cu_seqlens(tensors)
    assert cuts is not None, "a call in documents has boundaries"
    packed = execution.packed()
    made = document_tables(packed, execution.mixer, cuts, given, numbers)
    return [made[table.name] for table in packed.tables]


@documents.register_fake
def _(mixer: str, call: str, tensors: list[Tensor], params: list[float]) -> list[Tensor]:
    execution, read = execution_of(mixer), read_call(call)
    given = dict(zip(read.inputs, tensors, strict=False))
    packed, numbers = execution.packed(), read.numbers(execution.mixer, params)
    sizes = row_sizes(execution.mixer, packed.per_document, given, numbers)
    return [tensors[0].new_empty(sizes[t.axis], dtype=torch.int32) for t in packed.tables]


@lru_cache(maxsize=256)
def _packed_form(text: str, names: str, device: str) -> Packed | None:
    """The packed form for a call with inputs ``names``; None where one call does not do.

    It does not where documents get a call each (for their last states), nor where how long a
    table is depends on the documents themselves (blocks that begin anew).
    """
    execution = execution_of(text)
    if execution.is_one_by_one(names.split(), torch.device(device)) or execution.packed().derived:
        return None
    tables = tuple(table.name for table in execution.packed().tables)
    return Packed(part_text(text, "packed"), tables)


# A tracer calls it, and takes what it returns.
packed_form: Callable[[str, str, str], Packed | None] = assume_constant_result(  # type: ignore[no-untyped-call]
    lambda text, names, device: _packed_form(text, names, device)
)


__all__ = ["Packed", "documents", "packed_form"]
