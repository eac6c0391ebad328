"""The tensors of a call, by name, checked against the spec before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from ..ir.binding import Number, check_params, expected_layout_text, suggestion
from ..ir.errors import ArgumentError
from ..ir.expression import Kind
from ..ir.mixer import Input, Mixer

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def by_name(
    mixer: Mixer, given: Sequence[object], named: Mapping[str, object]
) -> tuple[dict[str, Tensor], dict[str, Number]]:
    """Arguments, positional ones in the spec's order --> (tensors, run-time params) by name."""
    names = [entry.name for entry in mixer.inputs]
    if len(given) > len(names):
        raise ArgumentError(
            f"{mixer.name} takes {len(names)} inputs ({', '.join(names)}), got {len(given)}"
        )
    values = dict(zip(names, given, strict=False))
    for name, value in named.items():
        if name in values:
            raise ArgumentError(f"{name} is given twice, by position and by name")
        values[name] = value
    runtime = [param.name for param in mixer.params if param.runtime]
    _known(mixer, values, names, runtime)
    params = {name: values.pop(name) for name in runtime if name in values}
    check_params(mixer, params)
    given_inputs = [entry for entry in mixer.inputs if _has(entry, values)]
    like = _first_real(given_inputs, values)
    tensors = {entry.name: _tensor(entry, values[entry.name], like) for entry in given_inputs}
    return tensors, cast("dict[str, Number]", params)


def tensor_params(names: Iterable[str], named: dict[str, object]) -> dict[str, Tensor]:
    """Take the run-time params among ``names`` that are given as tensors out of ``named``.

    Kernels read them in float32, or wider.
    """
    import torch

    given = {name: named[name] for name in names if isinstance(named.get(name), torch.Tensor)}
    found = {}
    for name in given:
        value = cast("Tensor", named.pop(name))
        found[name] = value.float() if value.dtype.itemsize < 4 else value
    return found


def _first_real(entries: Sequence[Input], values: Mapping[str, object]) -> Tensor | None:
    """The tensor whose dtype and device a plain number takes on."""
    import torch

    given = (values[entry.name] for entry in entries if entry.kind is Kind.REAL)
    return next((value for value in given if isinstance(value, torch.Tensor)), None)


def _has(entry: Input, values: Mapping[str, object]) -> bool:
    """Whether an input is given; one that is left out, or None, must have a default."""
    if values.get(entry.name) is not None:
        return True
    if entry.default is None:
        axes = expected_layout_text(entry)
        raise ArgumentError(f"{entry.name}: expected a tensor {axes}, got none")
    return False


def _known(mixer: Mixer, values: Iterable[str], names: list[str], runtime: list[str]) -> None:
    fixed = {p.name for p in mixer.params if not p.runtime} | {t.name for t in mixer.tables}
    for name in values:
        if name in fixed:
            raise ArgumentError(
                f"{name} is fixed when the mixer is loaded: mixc.load(..., {name}=...)"
            )
        if name not in names and name not in runtime:
            hint = suggestion(name, names + runtime)
            raise ArgumentError(f"{mixer.name} has no input {name!r}{hint}")


def _tensor(entry: Input, value: object, like: Tensor | None) -> Tensor:
    """``value`` as a tensor of a dtype that the input admits; a plain number has no axes."""
    import torch

    if isinstance(value, bool | int | float) and not entry.layout:
        value = torch.tensor(value, device=None if like is None else like.device)
        value = value.to(like.dtype) if like is not None and entry.kind is Kind.REAL else value
    if not isinstance(value, torch.Tensor):
        axes, found = expected_layout_text(entry), type(value).__name__
        raise ArgumentError(f"{entry.name}: expected a tensor {axes}, got {found}")
    if value.layout is not torch.strided:
        raise ArgumentError(
            f"{entry.name}: expected a dense tensor, got one in the layout {_name(value.layout)}"
        )
    wanted = _dtype_error(entry, value.dtype)
    if wanted:
        hint = ""
        if entry.kind is Kind.REAL and not value.dtype.is_complex:
            axes = expected_layout_text(entry)
            declared = "bool" if value.dtype is torch.bool else "int32"
            hint = f"; or declare `{entry.name}: {{dims: {axes}, dtype: {declared}}}`"
        raise ArgumentError(f"{entry.name}: expected {wanted}, got {_name(value.dtype)}{hint}")
    if not entry.grad and value.requires_grad and torch.is_grad_enabled():
        raise ArgumentError(
            f"{entry.name}: the spec says `grad: false`, and this tensor wants a gradient: give "
            f"{entry.name}.detach(), or take `grad: false` out of the spec"
        )
    return value.resolve_neg()  # kernels read memory, and a bit would say that its signs are wrong


def _dtype_error(entry: Input, dtype: torch.dtype) -> str | None:
    """What the input takes, where that isn't ``dtype``; None where it is."""
    import torch

    match entry.kind:
        case Kind.BOOL:
            good, wanted = dtype is torch.bool, "bool"
        case Kind.INT:
            good, wanted = not dtype.is_floating_point, "integers"
        case Kind.REAL:
            admitted = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
            good, wanted = dtype in admitted, "float16, bfloat16, float32 or float64"
    return None if good and not dtype.is_complex else wanted


def _name(what: torch.dtype | torch.layout) -> str:
    return str(what).removeprefix("torch.")


def in_autocast(names: frozenset[str], tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors of a call as ``torch.autocast`` wants them: those of ``names`` in its dtype."""
    import torch

    device = next((tensor.device.type for tensor in tensors.values()), "cpu")
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return {
        name: t.to(dtype) if name in names and t.dtype is not torch.float64 else t
        for name, t in tensors.items()
    }


def device_of(tensors: Mapping[str, Tensor]) -> torch.device:
    """The one device that all tensors are on; the cpu where there are none."""
    import torch

    devices = {name: tensor.device for name, tensor in tensors.items()}
    first = next(iter(devices), "")
    for name, device in devices.items():
        if device != devices[first]:
            raise ArgumentError(f"{name}: expected {devices[first]} as {first}, got {device}")
    return devices[first] if devices else torch.device("cpu")


def working_dtype(mixer: Mixer, tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of the results; see ``common_dtype``."""
    from ..backends.precision import common_dtype

    return common_dtype(mixer, tensors)
