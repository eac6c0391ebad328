"""A mixer's call as ``torch.compile`` traces it: one call of an operator, in plain Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..ir.errors import ArgumentError
from ..runtime.arguments import in_autocast
from .definitions import forward


def traced(
    text: str,
    names: tuple[str, ...],
    multiplied: frozenset[str],
    runtime: tuple[str, ...],
    given: Mapping[str, Any],
    cu_seqlens: Tensor | Mapping[str, Tensor] | None,
) -> list[Tensor]:
    """The outputs of the mixer that ``text`` tells, and behind them what is kept for gradients.

    An exported program keeps nothing: it is mostly run, and else goes forward once more.

    ``names`` are its inputs, ``multiplied`` those that autocast takes in 16 bits,
    ``runtime`` its params of each call. What does not fit is said by the
    operator, which sees the shapes.
    """
    for name in given:
        if name not in names and name not in runtime:
            raise ArgumentError(f"there is no input {name!r}; there is {', '.join(names)}")
    tensors = {name: given[name] for name in names if given.get(name) is not None}
    tensors = dict(in_autocast(multiplied, tensors))
    params = {name: given[name] for name in runtime if name in given}
    cuts = cu_seqlens if isinstance(cu_seqlens, Mapping) else {"*": cu_seqlens}
    cuts = {name: cut for name, cut in cuts.items() if cut is not None}
    recorded = torch.is_grad_enabled() and not torch.compiler.is_exporting()
    wanted = [name for name, tensor in tensors.items() if recorded and tensor.requires_grad]
    call = "; ".join(" ".join(words) for words in (tensors, cuts, params, wanted))
    numbers = [float(value) for value in params.values()]
    made: list[Tensor] = torch.ops.mixc.forward(
        text, call, [*tensors.values(), *cuts.values()], numbers
    )
    return made


__all__ = ["forward", "traced"]
