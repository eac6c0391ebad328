"""Why a call goes through torch where kernels were to be expected, and how the user is told."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from ..ir.errors import MixcWarning

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def obstacle_of_tensors(given: Mapping[str, Tensor], dtype: torch.dtype) -> str | None:
    """What keeps these tensors from kernels for the CPU; None where nothing does."""
    import torch

    if dtype is torch.float64:
        return "kernels take float32, float16 or bfloat16, and the inputs are float64"
    for name, tensor in given.items():
        if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
            return f"{name} is a {type(tensor).__name__}, and kernels take plain tensors"
    if torch._C._functorch.maybe_current_level() is not None:
        return "kernels take plain tensors, not those inside a transform of torch.func"
    if (carrier := with_tangent(given)) is not None:
        return f"kernels give values and no tangents, and {carrier} carries one"
    return None


def with_tangent(given: Mapping[str, Tensor]) -> str | None:
    """The first input with a tangent, of a derivative in forward mode."""
    from torch.autograd import forward_ad

    if forward_ad._current_level < 0:
        return None
    unpack: Callable[[Tensor], tuple[Tensor, Tensor | None]] = forward_ad.unpack_dual
    return next((name for name, tensor in given.items() if unpack(tensor)[1] is not None), None)


def is_recorded(given: Mapping[str, Tensor], backend: str) -> bool:
    """Whether somebody looks at a call instead of computing it at once, or beside that: tensors
    without values, a mode of torch that sees every call, a transform of torch.func."""
    import torch
    from torch._C._functorch import TransformType
    from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
    from torch._guards import detect_fake_mode

    if torch._C._len_torch_dispatch_stack() or any(t.is_meta for t in given.values()):
        return True
    if detect_fake_mode(list(given.values())) is not None:
        return True
    if torch._C._functorch.maybe_current_level() is None or backend == "reference":
        return False
    levels = retrieve_all_functorch_interpreters()
    return all(level.key() != TransformType.Jvp for level in levels)  # no operator has a jvp


def wanting_gradient(given: Mapping[str, Tensor]) -> str | None:
    """The first input for which a call has to be recorded for a backward pass."""
    import torch

    if not torch.is_grad_enabled():
        return None
    return next((name for name, tensor in given.items() if tensor.requires_grad), None)


def warn_of_torch(mixer: str, reason: str, trained: bool = False) -> None:
    """Say that a mixer's calls run by torch: once in a process for each mixer and reason.

    ``trained``: the call wants gradients, without which kernels might do.
    """
    advice = "load it with backend='reference' where that is meant"
    if trained:
        advice = f"call under torch.no_grad() where no gradient is needed, or {advice}"
    reason = reason.partition("\n")[0]  # without the line of the spec under it
    warn_once(
        f"{mixer} runs by torch, often 10 to 1000 times slower than its kernels: {reason}; {advice}"
    )


@lru_cache(maxsize=1024)
def warn_once(sentence: str) -> None:
    """Warn of something, at the line of the user's that called mixc, once in a process."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("mixc."):
        frame, level = frame.f_back, level + 1
    warnings.warn(sentence, MixcWarning, stacklevel=level)


__all__ = [
    "is_recorded",
    "obstacle_of_tensors",
    "wanting_gradient",
    "warn_of_torch",
    "warn_once",
    "with_tangent",
]
