"""Calls like an earlier one, straight to its kernels: what has to be looked at, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..backends.prepared import compiled
from ..ir.expression import Kind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..backends.cpu.run import CpuRunner, Prepared
    from ..ir.mixer import Mixer


@dataclass(frozen=True)
class Again:
    """A call of kernels, for tensors that are plain ones of its dtypes."""

    is_plain: Callable[..., bool]
    call: Prepared


def again_like(mixer: Mixer, runner: CpuRunner, tensors: Mapping[str, Tensor]) -> Again | None:
    """Calls like one on ``tensors``, where that one was by kernels alone."""
    is_plain = plain_check(tuple(tensor.dtype for tensor in tensors.values()))
    call = runner.prepared_for(tensors)
    if call is None or not is_plain(*tensors.values()):
        return None
    wide = {output.name for output in mixer.outputs if output.dtype or output.kind is not Kind.REAL}
    made = dict(zip(call.outputs, call.dtypes, strict=True))
    if any(dtype is not call.dtype for name, dtype in made.items() if name not in wide):
        return None  # the face gives them another dtype
    return Again(is_plain, call)


def plain_check(dtypes: tuple[torch.dtype, ...]) -> Callable[..., bool]:
    """Whether values are tensors of these dtypes whose memory kernels for the CPU may read.

    They are not where a gradient is wanted, or tangents may be carried along, in a mode of torch
    that looks at every call (fake tensors), inside a transform of torch.func, and where autocast
    wants another dtype.
    """
    import torch

    names = [f"x{place}" for place in range(len(dtypes))]
    known = {f"d{place}": dtype for place, dtype in enumerate(dtypes)}
    lines = [
        f"if (type({x}) is not Tensor and type({x}) is not Parameter) or {x}.dtype is not "
        f"d{place} or not {x}.is_cpu or {x}.layout is not strided or {x}.is_neg(): return False"
        for place, x in enumerate(names)
    ]
    wanting = " or ".join(f"{x}.requires_grad" for x in names) or "False"
    lines.append(f"if ({wanting}) and is_grad_enabled(): return False")
    lines.append("if forward_ad._current_level >= 0: return False")
    lines.append("return not dispatching() and transforming() is None and not casting('cpu')")
    check: Callable[..., bool] = compiled(
        names,
        lines,
        {
            **known,
            "Tensor": torch.Tensor,
            "Parameter": torch.nn.Parameter,
            "strided": torch.strided,
            "is_grad_enabled": torch.is_grad_enabled,
            "forward_ad": torch.autograd.forward_ad,
            "casting": torch.is_autocast_enabled,
            "dispatching": torch._C._len_torch_dispatch_stack,
            "transforming": torch._C._functorch.maybe_current_level,
        },
    )
    return check


__all__ = ["Again", "again_like", "plain_check"]
