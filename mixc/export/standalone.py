"""What every exported file carries, word for word: ``exporting`` copies these functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch


def mend_interpreter() -> None:
    """What Triton's interpreter lacks: products of bfloat16, and truth values of comparisons.

    It keeps bfloat16 as bits, and multiplies those; and the truth of a comparison of real numbers
    is a real number to it. Scans with a function of the kernel's own go slice by slice.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, ScanOps, TensorHandle

    dot, binary = InterpreterBuilder.create_dot, InterpreterBuilder.binary_op

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(builder: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(builder, widened(a), widened(b), *rest)

    def binary_op(builder: Any, left: Any, right: Any, op: Any) -> Any:
        made = binary(builder, left, right, op)
        if made.data.dtype == bool:
            made.dtype = tl.int1
        return made

    def row(scan: Any, data: Any, dtype: Any) -> Any:
        return scan.to_tensor(data if data.shape else data.item(), dtype)

    def generic_scan(scan: Any, inputs: Any) -> list[Any]:
        data = [np.moveaxis(x.handle.data, scan.axis, 0) for x in inputs]
        made = [np.empty_like(d) for d in data]
        so_far: Any = ()
        for n in range(len(data[0])):
            here = [row(scan, d[n], x.dtype) for d, x in zip(data, inputs, strict=True)]
            so_far = scan.combine_fn.fn(*so_far, *here) if n else here
            so_far = so_far if isinstance(so_far, list | tuple) else (so_far,)
            for out, value in zip(made, so_far, strict=True):
                out[n] = value.handle.data.reshape(out[n].shape)
        moved = [np.moveaxis(out, 0, scan.axis) for out in made]
        return [scan.to_tensor(out, x.dtype) for out, x in zip(moved, inputs, strict=True)]

    InterpreterBuilder.create_dot, InterpreterBuilder.binary_op = create_dot, binary_op
    ScanOps.generic_scan = generic_scan


def architecture_of(device: torch.device) -> tuple[str, str]:
    """What kernels for a device are compiled for, and the device's name."""
    if device.type != "cuda":
        return "cpu", "cpu"
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip is not None:
        return f"hip:{properties.gcnArchName.partition(':')[0]}", properties.name
    return f"cuda:{properties.major}{properties.minor}", properties.name


@lru_cache(maxsize=1024)
def tuned(table: tuple[Any, ...], device: torch.device, *lengths: int) -> dict[str, int]:
    """The blocks and launch settings for a call: of the tuned result that fits best, or defaults.

    Of one architecture, the nearest sizes go first (in octaves, none further than two), then the
    very device.
    """
    default, rows = table
    architecture, name = architecture_of(device)
    found: list[tuple[tuple[float, float, bool], Any]] = []
    for target, model, octaves, stored, numbers in rows:
        pairs = zip(lengths, stored, strict=True)
        apart = [abs(max(a - 1, 0).bit_length() - math.log2(max(b, 1))) for a, b in pairs]
        if target == architecture and max(apart, default=0.0) <= 2:
            found.append(((octaves, sum(apart), model != name), numbers))
    return dict(min(found, key=lambda one: one[0])[1] if found else default)


def largest_of(tensor: torch.Tensor) -> float:
    """The largest finite magnitude; 0 where there is none."""
    finite = tensor.detach()[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def error_of(found: torch.Tensor, wanted: torch.Tensor, scale: float) -> float:
    """The largest difference, by ``scale``."""
    found, wanted = found.detach().double(), wanted.detach().double()
    finite = wanted.isfinite()
    if not torch.equal(torch.where(finite, 0, found), torch.where(finite, 0, wanted)):
        return float("inf")  # an infinity that is not in both, or a nan
    if not finite.any():
        return 0.0
    error = float((found - wanted)[finite].abs().max()) / scale
    return error if error == error else float("inf")


def differentiated(
    function: Callable[..., Any], inputs: Sequence[torch.Tensor], wanted: Sequence[int]
) -> list[torch.Tensor]:
    """The results of a function, then the gradients of the inputs at the places ``wanted``."""
    own = [x.detach().requires_grad_(n in wanted) for n, x in enumerate(inputs)]
    made = function(*own)
    made = list(made) if isinstance(made, tuple) else [made]
    active, above = [], []
    for n, x in enumerate(made):
        # One cotangent for every precision: bfloat16 numbers are numbers of all of them.
        random = torch.randn(x.shape, generator=torch.Generator().manual_seed(n)).bfloat16()
        if x.requires_grad:
            active.append(x)
            above.append(random.to(x))
    leaves = [own[n] for n in wanted]
    if not active or not leaves:
        return made + [torch.zeros_like(x) for x in leaves]
    found = torch.autograd.grad(active, leaves, above, allow_unused=True)
    zeros = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]
    return made + zeros


def rounded_again(x: torch.Tensor, eps: float) -> torch.Tensor:
    """A float64 tensor as if it had been rounded once more."""
    return x + x * eps * (torch.rand_like(x) - 0.5) if x.is_floating_point() else x


def compare(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    inputs: Sequence[torch.Tensor],
    wanted: Sequence[int],
    eps: float,
) -> list[tuple[float, float]]:
    """Error and limit of each result, then of each gradient.

    The limit is eight times what one more rounding of the inputs changes, and a few roundings. By
    the largest number of each; a gradient that cancels, by the largest of all gradients.
    """
    found = differentiated(function, inputs, wanted)
    exact_inputs = [x.double() if x.is_floating_point() else x for x in inputs]
    exact = differentiated(reference, exact_inputs, wanted)
    moved = [rounded_again(x, eps) for x in exact_inputs]
    moved = differentiated(reference, moved, wanted)
    floor = 32 * eps if eps < 1e-6 else 2 * eps
    scales = [largest_of(x) for x in exact]
    outputs = len(exact) - len(wanted)
    most = max(scales[outputs:], default=0.0)
    scales[outputs:] = [x if x >= eps**0.5 * most else most for x in scales[outputs:]]
    scales = [x or 1.0 for x in scales]
    errors = [error_of(*each) for each in zip(found, exact, scales, strict=True)]
    changes = [error_of(*each) for each in zip(moved, exact, scales, strict=True)]
    changes = [change if change < float("inf") else 0.0 for change in changes]
    return [(e, floor + 8 * c) for e, c in zip(errors, changes, strict=True)]
