"""Fourier transforms by torch, of real numbers at half the cost of complex ones.

``fourier`` and what it calls stand in emitted modules too, as they are here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable


def fourier(real, imaginary, results, axes):  # type: ignore[no-untyped-def]
    """Fill (re, im), each a tensor or None, with sums of (real + i imaginary) e^(i angle).

    ``axes``: (axis, sign) where the angle of places j and k has sign * 2 pi j k / n. Tensors
    have one order of axes; ``imaginary`` is None where what is transformed is real.
    """
    import torch

    if real.numel() == 0:
        return
    real = real if real.dtype == torch.float64 else real.float()
    if imaginary is not None:
        made = torch.complex(real, imaginary.to(real.dtype))
        for sign, transform in ((-1, torch.fft.fftn), (1, torch.fft.ifftn)):
            if dims := [axis for axis, own in axes if own == sign]:
                made = transform(made, dim=dims, norm="backward" if sign < 0 else "forward")
        for result, part in zip(results, (made.real, made.imag), strict=True):
            if result is not None:
                result.copy_(part)
        return
    # Of a real number the transform at -k is the conjugate: half of one axis has all of it.
    halved, first = min(axes, key=lambda axis: real.stride(axis[0]))
    others = [axis for axis, _ in axes if axis != halved]
    alike = [axis for axis, sign in axes if sign == first and axis != halved]
    made = torch.fft.rfftn(real, dim=[*alike, halved])
    if len(alike) < len(others):
        rest = [axis for axis in others if axis not in alike]
        made = torch.fft.ifftn(made, dim=rest, norm="forward")
    re, im = results
    if re is not None:
        spread(re, made.real, halved, others, False)  # type: ignore[no-untyped-call]
    if im is not None:
        part = made.imag if first < 0 else -made.imag
        spread(im, part, halved, others, True)  # type: ignore[no-untyped-call]


def spread(result, half, axis, others, odd):  # type: ignore[no-untyped-def]
    """Fill a part of a real transform from the half of ``axis`` that it was made of.

    What is at -k, along all axes of the transform, is the same, or the negative (``odd``).
    """
    count, length = half.shape[axis], result.shape[axis]
    result.narrow(axis, 0, count).copy_(half)
    if count == length:
        return
    rest = result.narrow(axis, count, length - count)
    mirrored = half.narrow(axis, 1, length - count)
    if odd:
        mirrored = -mirrored
    # Place 0 is its own mirror; all others go from the end.
    parts = [(rest, mirrored, [axis])]
    for other in others:
        last = half.shape[other] - 1
        first = [(to.narrow(other, 0, 1), x.narrow(other, 0, 1), turned) for to, x, turned in parts]
        parts = first + [
            (to.narrow(other, 1, last), x.narrow(other, 1, last), [*turned, other])
            for to, x, turned in parts
        ]
    for to, x, turned in parts:
        to.copy_(x.flip(turned))


def source(standalone: bool = False) -> str:
    """The functions as emitted modules have them, or a file that has torch imported."""
    texts = [inspect.getsource(function).rstrip() for function in (fourier, spread)]
    text = re.sub("  # type: ignore.*", "", "\n\n\n".join(texts))
    return text.replace(_IMPORT, "") if standalone else text


_IMPORT = "    import torch\n\n"

by_torch: Callable[..., None] = fourier

NAMES = frozenset({"fourier", "spread"})

__all__ = ["NAMES", "by_torch", "fourier", "source", "spread"]
