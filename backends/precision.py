"""The dtype that generated kernels work in, from the tensors of a call."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..ir.errors import ArgumentError
from ..ir.expression import Kind
from ..ir.mixer import Mixer


def working_dtype(mixer: Mixer, tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The one dtype of all real inputs; ArgumentError where they differ or kernels lack it."""
    real = [tensors[i.name] for i in mixer.inputs if i.kind is Kind.REAL and i.dtype is None]
    found = {t.dtype for t in real}
    if len(found) > 1:
        listed = ", ".join(sorted(str(d) for d in found))
        raise ArgumentError(f"{mixer.name}: real inputs have to share one dtype, got {listed}")
    dtype = found.pop() if found else torch.float32
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ArgumentError(
            f"{mixer.name}: kernels take float32, float16 or bfloat16, got {dtype}; the "
            "reference takes float64"
        )
    return dtype
