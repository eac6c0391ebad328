"""How wrong a kernel may be: one measure and one table for every check of the project.

The error of a result is its largest absolute difference from the float64 reference, divided by
the largest finite magnitude in the reference (by 1 where that is 0). Infinities and nans must
stand in the same places with the same signs: else the error is infinite.

The limit is twice the error that plain PyTorch makes in the same precision, that is, the
reference evaluator run in that dtype on the same inputs, plus a floor per dtype. A gradient may be
a sum that cancels (of a bias that moves all scores of a softmax alike, it is 0), and what rounding
leaves of it is as large as its terms: where it has lost half of the digits, its error is relative
to the largest gradient there is. A recurrence
counts as PyTorch code that keeps its states in float32, as everybody's does: an error that grows
from row to row in a half precision is none that kernels may make. A gradient beyond that limit has
another one, from the equations of its backward pass: see ``rounding``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

# A result that is rounded once, to nearest, is off by half of eps at most. A kernel in a half
# precision also rounds the weights before it multiplies values with them, which plain PyTorch
# may not do at the same place: one eps in all. In single and double precision sums of a hundred
# terms in another order differ by a few eps.
FLOORS: Mapping[torch.dtype, float] = {
    torch.float64: 16 * torch.finfo(torch.float64).eps,
    torch.float32: 16 * torch.finfo(torch.float32).eps,
    torch.float16: torch.finfo(torch.float16).eps,
    torch.bfloat16: torch.finfo(torch.bfloat16).eps,
}
PYTORCH_FACTOR = 2.0


def scales_of(
    dtype: torch.dtype, reference: Mapping[str, Tensor], gradients: bool = False
) -> dict[str, float]:
    """What the error in ``dtype`` of each result is relative to, by the measure above."""
    scales = {name: _largest(tensor) for name, tensor in reference.items()}
    if gradients:
        most = max(scales.values(), default=0.0)
        lost = math.sqrt(torch.finfo(dtype).eps) * most
        scales = {name: scale if scale >= lost else most for name, scale in scales.items()}
    return {name: scale or 1.0 for name, scale in scales.items()}


def _largest(reference: Tensor) -> float:
    """The largest finite magnitude of real numbers; 0 where there is none, or of others."""
    if not reference.is_floating_point():
        return 0.0
    magnitudes = reference.detach()[reference.isfinite()].abs()
    return float(magnitudes.max()) if magnitudes.numel() else 0.0


def error_of(result: Tensor, reference: Tensor, scale: float | None = None) -> float:
    """The error of ``result`` by the measure above; integers and booleans must be equal.

    Args:
        scale: what it is relative to (see ``scales_of``); by itself, the largest there is.

    Both tensors have the same shape; 0.0 where they are empty.
    """
    if not reference.is_floating_point():
        return 0.0 if torch.equal(result.to(reference.dtype), reference) else math.inf
    found = result.detach().to("cpu", torch.float64)
    wanted = reference.detach().to("cpu", torch.float64)
    finite = torch.isfinite(wanted)
    same = torch.equal(found.isnan(), wanted.isnan())
    same = same and torch.equal(found[found.isinf()], wanted[found.isinf()])
    if not same or not torch.equal(found.isfinite(), finite):
        return math.inf
    if not finite.any():
        return 0.0
    relative_to = (_largest(wanted) or 1.0) if scale is None else scale
    return float((found - wanted)[finite].abs().max()) / relative_to


def errors_of(
    dtype: torch.dtype,
    results: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    gradients: bool = False,
) -> dict[str, float]:
    """The error in ``dtype`` of each result; both hold the same names."""
    scales = scales_of(dtype, reference, gradients)
    return {name: error_of(results[name], reference[name], scales[name]) for name in reference}


def error_limit(dtype: torch.dtype, pytorch_error: float) -> float:
    """The largest error allowed in ``dtype``, where plain PyTorch makes ``pytorch_error``.

    Where PyTorch's own result is no use (it overflowed, say), the floor alone counts.
    """
    own = pytorch_error if math.isfinite(pytorch_error) else 0.0
    return PYTORCH_FACTOR * own + FLOORS[dtype]
