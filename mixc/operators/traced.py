"""A mixer's call as ``torch.compile`` traces it: one call of an operator, in plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..ir.errors import ArgumentError
from ..runtime.arguments import in_autocast
from .definitions import forward
from .documents import packed_form


def traced(
    text: str,
    names: tuple[str, ...],
    multiplied: frozenset[str],
    runtime: tuple[str, ...],
    given: Mapping[str, Any],
    cu_seqlens: Tensor | Mapping[str, Tensor] | None,
) -> list[Tensor]:
    """The outputs of the mixer that ``text`` tells, and behind them what is kept for gradients.

    ``names`` are its inputs, ``multiplied`` those that autocast takes in 16 bits,
    ``runtime`` its params of each call. What does not fit is said by the
    operator, which sees the shapes.
    """
    tensors, params = split(names, runtime, given)
    cuts = cu_seqlens if isinstance(cu_seqlens, Mapping) else {"*": cu_seqlens}
    cuts = {name: cut for name, cut in cuts.items() if cut is not None}
    device = next((tensor.device.type for tensor in tensors.values()), "cpu")
    packed = packed_form(text, " ".join(tensors), device) if cuts else None
    if packed is None:
        return called(text, multiplied, tensors, cuts, params)
    call = "; ".join(" ".join(words) for words in (tensors, cuts, params))
    where = [tensor.detach() for tensor in tensors.values()] + [*cuts.values()]
    tables = torch.ops.mixc.documents(text, call, where, _numbers(params))
    tensors = {**tensors, **dict(zip(packed.tables, tables, strict=True))}
    return called(packed.text, multiplied, tensors, {}, params)


def split(
    names: Iterable[str], runtime: Iterable[str], given: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What is given of the inputs ``names`` and of the params of each call."""
    for name in given:
        if name not in names and name not in runtime:
            raise ArgumentError(f"there is no input {name!r}; there is {', '.join(names)}")
    tensors = {name: given[name] for name in names if given.get(name) is not None}
    return tensors, {name: given[name] for name in runtime if name in given}


def called(
    text: str,
    multiplied: frozenset[str],
    tensors: Mapping[str, Tensor],
    cuts: Mapping[str, Tensor],
    params: Mapping[str, Any],
) -> list[Tensor]:
    """What the operator makes of tensors and numbers that have names.

    An exported program keeps nothing: it is mostly run, and else goes forward once more.
    """
    tensors = dict(in_autocast(multiplied, tensors))
    recorded = torch.is_grad_enabled() and not torch.compiler.is_exporting()
    wanted = [name for name, tensor in tensors.items() if recorded and tensor.requires_grad]
    call = "; ".join(" ".join(words) for words in (tensors, cuts, params, wanted))
    given = [*tensors.values(), *cuts.values()]
    made: list[Tensor] = torch.ops.mixc.forward(text, call, given, _numbers(params))
    return made


def _numbers(params: Mapping[str, Any]) -> list[float]:
    return [float(value) for value in params.values()]


__all__ = ["called", "forward", "split", "traced"]
