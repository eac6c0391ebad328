"""A mixer's call as ``torch.compile`` traces it: one call of an operator, in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.compiler import assume_constant_result

from ..ir.errors import ArgumentError
from ..runtime.arguments import in_autocast
from .definitions import forward
from .documents import packed_form
from .recording import execution_of
from .signature import Part, text_of, told


def traced(
    mixer: Part, given: Mapping[str, Any], cu_seqlens: Tensor | Mapping[str, Tensor] | None
) -> list[Tensor]:
    """The outputs of a mixer, and behind them what is kept for gradients.

    What does not fit is said by the operator, which sees the shapes.
    """
    tensors, params = split(mixer, given)
    cuts = cu_seqlens if isinstance(cu_seqlens, Mapping) else {"*": cu_seqlens}
    cuts = {name: cut for name, cut in cuts.items() if cut is not None}
    device = next((tensor.device.type for tensor in tensors.values()), "cpu")
    packed = packed_form(mixer.text, " ".join(tensors), device) if cuts else None
    if packed is None:
        return called(mixer, tensors, cuts, params)
    call = "; ".join(" ".join(words) for words in (tensors, cuts, params))
    where = [tensor.detach() for tensor in tensors.values()] + [*cuts.values()]
    tables = torch.ops.mixc.documents(mixer.text, call, where, _numbers(params))
    tensors = {**tensors, **dict(zip(packed.tables, tables, strict=True))}
    return called(mixer._replace(text=packed.text), tensors, {}, params)


def split(mixer: Part, given: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What is given of a mixer's inputs and of its params of each call."""
    names = mixer.inputs
    for name in given:
        if name not in names and name not in mixer.params:
            raise ArgumentError(f"there is no input {name!r}; there is {', '.join(names)}")
    tensors = {name: given[name] for name in names if given.get(name) is not None}
    return tensors, {name: given[name] for name in mixer.params if name in given}


def called(
    mixer: Part,
    tensors: Mapping[str, Tensor],
    cuts: Mapping[str, Tensor],
    params: Mapping[str, Any],
) -> list[Tensor]:
    """What the operator makes of tensors and numbers that have names.

    An exported program keeps nothing: it is mostly run, and else goes forward once more.
    """
    tensors = dict(in_autocast(mixer.multiplied, tensors))
    recorded = torch.is_grad_enabled() and not torch.compiler.is_exporting()
    wanted = [name for name, tensor in tensors.items() if recorded and tensor.requires_grad]
    call = "; ".join(" ".join(words) for words in (tensors, cuts, params, wanted))
    given = [*tensors.values(), *cuts.values()]
    made: list[Tensor] = torch.ops.mixc.forward(mixer.text, call, given, _numbers(params))
    return made


def _numbers(params: Mapping[str, Any]) -> list[float]:
    return [float(value) for value in params.values()]


@lru_cache(maxsize=256)
def _with_inputs(text: str, params: tuple[str, ...]) -> Part:
    """The mixer that ``text`` tells, with params as inputs."""
    from ..compiler.mixers.derivative.params_as_inputs import params_as_inputs

    execution = execution_of(text)
    mixer = params_as_inputs(execution.mixer, params)
    return told(mixer, text_of(mixer, execution.backend, kept=execution.kept))


# A tracer calls it, and takes what it returns.
_with_params: Callable[[str, tuple[str, ...]], Part] = assume_constant_result(  # type: ignore[no-untyped-call]
    lambda text, params: _with_inputs(text, params)
)


def with_params(mixer: Part, given: Mapping[str, Any]) -> tuple[Part, dict[str, Any]]:
    """The mixer with those params as inputs that are given as tensors, in float32 or wider."""
    names = [name for name in mixer.params if isinstance(given.get(name), Tensor)]
    if not names:
        return mixer, dict(given)
    wide = {n: given[n].float() if given[n].dtype.itemsize < 4 else given[n] for n in names}
    return _with_params(mixer.text, tuple(names)), {**given, **wide}


__all__ = ["called", "forward", "split", "traced", "with_params"]
