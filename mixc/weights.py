"""What the weights and buffers of a mixer start from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .ir.binding import expected_layout_text, needed_sizes, params_in, shape_of, solve_sizes
from .ir.errors import ArgumentError
from .ir.host import evaluate_host
from .ir.mixer import Input, Mixer

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def held_sizes(mixer: Mixer, given: Mapping[str, int]) -> dict[str, int]:
    """The sizes of all that a module of the mixer keeps.

    Raises:
        ArgumentError: one that is neither given nor follows, or that is not the spec's.
    """
    sizes = solve_sizes(mixer, given)
    held = [entry for entry in mixer.inputs if entry.held is not None]
    missing = dict.fromkeys(
        dim for entry in held for dim in _dims(mixer, entry) if dim not in sizes
    )
    if missing:
        named = ", ".join(f"{entry.name} {expected_layout_text(entry)}" for entry in held)
        example = ", ".join(f'"{dim}": 64' for dim in missing)
        raise ArgumentError(
            f"{mixer.name} keeps {named}, and the size of {' and '.join(missing)} is not known: "
            f"mixc.nn.Mixer(..., sizes={{{example}}})"
        )
    return sizes


def _dims(mixer: Mixer, entry: Input) -> tuple[str, ...]:
    """The dims whose size has to be known to make an input."""
    values = list(entry.range or ())
    values += [entry.held.start] if entry.held is not None and entry.held.start else []
    return (*entry.dims, *(dim for v in values for dim in sorted(needed_sizes(mixer, v))))


def start(mixer: Mixer, entry: Input, sizes: Mapping[str, int]) -> Tensor:
    """The values of a held input at first, in float64 or as integers.

    Where the spec does not say: its default; within its range; else uniform up to the square root
    of 1 / n, n the length of the last axis, as ``torch.nn`` does.
    """
    import torch

    from .backends.reference.evaluate import constant

    shape = shape_of(entry.layout, sizes)
    if entry.held is not None and entry.held.start is not None:
        return constant(mixer, entry.held.start, sizes, entry.layout)
    if entry.default is not None:
        return torch.full(shape, entry.default)
    bound = shape[-1] ** -0.5 if shape and shape[-1] else 1.0
    low, high = -bound, bound
    if entry.range is not None:
        ends = [
            float(evaluate_host(end, sizes, params_in(mixer, end, sizes))) for end in entry.range
        ]
        low, high = (b if math.isinf(e) else e for e, b in zip(ends, (-bound, bound), strict=True))
    return torch.empty(shape, dtype=torch.float64).uniform_(low, max(low, high))


def of_dtype(entry: Input, values: Tensor, dtype: torch.dtype) -> Tensor:
    """The values as the input takes them, in ``dtype`` where it has none of its own."""
    import torch

    own = dtype if entry.dtype is None else getattr(torch, entry.dtype)
    return values.to(own)


__all__ = ["held_sizes", "of_dtype", "start"]
