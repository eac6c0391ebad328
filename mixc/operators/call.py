"""A call of a mixer as one call of its operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..ir.binding import Number
from .definitions import forward
from .signature import Call
from .transforms import Forward, wants_gradient


def call_operator(
    mixer: str,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number],
    cu_seqlens: Tensor | Mapping[str, Tensor] | None,
) -> list[Tensor]:
    """The outputs in order, and what is kept behind them; ``mixer`` is the text that tells it."""
    recorded = torch.is_grad_enabled() and not torch.compiler.is_exporting()
    wanted = tuple(name for name, t in tensors.items() if recorded and wants_gradient(t))
    cuts = cu_seqlens if isinstance(cu_seqlens, Mapping) else {"*": cu_seqlens}
    cuts = {name: cut for name, cut in cuts.items() if cut is not None}
    call = str(Call(tuple(tensors), tuple(cuts), tuple(params), wanted))
    given, numbers = [*tensors.values(), *cuts.values()], [float(v) for v in params.values()]
    if torch._C._functorch.maybe_current_level() is not None:
        apply: Callable[..., tuple[Tensor, ...]] = Forward.apply
        return list(apply(mixer, call, numbers, *given))
    made: list[Tensor] = forward(mixer, call, given, numbers)
    return made


__all__ = ["call_operator"]
