"""The dtype that generated kernels work in, and those of their inputs, from a call's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..ir.errors import ArgumentError
from ..ir.expression import Kind
from ..ir.mixer import Mixer

_NARROW = (torch.float16, torch.bfloat16)


def common_dtype(mixer: Mixer, tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of the real inputs; the 16-bit one, where others are float32.

    An input with a declared dtype doesn't count; without any it is float32.

    Raises:
        ArgumentError: dtypes that do not go together.
    """
    real = [entry for entry in mixer.inputs if entry.kind is Kind.REAL and entry.dtype is None]
    given = {entry.name: tensors[entry.name].dtype for entry in real if entry.name in tensors}
    found = list(dict.fromkeys(given.values()))
    narrow = [dtype for dtype in found if dtype in _NARROW]
    if len(found) == 2 and len(narrow) == 1 and torch.float32 in found:
        return narrow[0]
    if len(found) > 1:
        first, other = (next(n for n, d in given.items() if d is dtype) for dtype in found[:2])
        expected, got = (str(dtype).removeprefix("torch.") for dtype in found[:2])
        allowed = "one dtype, or float32 beside one of 16 bits"
        raise ArgumentError(f"{other}: expected {expected} as {first}, got {got} ({allowed})")
    return found[0] if found else torch.float32


def working_dtype(mixer: Mixer, tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype that kernels multiply in; ArgumentError where they lack it or inputs clash."""
    dtype = common_dtype(mixer, tensors)
    if dtype not in (torch.float32, *_NARROW):
        raise ArgumentError(
            f"{mixer.name}: kernels take float32, float16 or bfloat16, got {dtype}; the "
            "reference takes float64"
        )
    return dtype


def with_own_dtypes(mixer: Mixer, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Mixer:
    """The mixer with float32 inputs of a 16-bit call declared so: they are read as they are."""
    if dtype not in _NARROW:
        return mixer
    wide = [
        entry.name
        for entry in mixer.inputs
        if entry.kind is Kind.REAL and entry.dtype is None
        if tensors[entry.name].dtype is torch.float32
    ]
    if not wide:
        return mixer
    inputs = (replace(e, dtype="float32") if e.name in wide else e for e in mixer.inputs)
    return replace(mixer, inputs=tuple(inputs))


__all__ = ["common_dtype", "with_own_dtypes", "working_dtype"]
