"""The elementwise functions in torch, and the rule that nothing comes back from nothing.

Where the gradient of a result is 0, the gradient of what it was computed from is 0, even if the
derivative there is infinite or no number: masked pairs may hold any score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ...ir.expression import TRANSCENDENTAL, Call, Kind
from .values import Setting, Value

_COMPARISONS = frozenset("lt le gt ge eq ne".split())
_LOGIC = frozenset("and or not".split())
# Functions of real numbers; what they get is made real first.
_REAL = TRANSCENDENTAL | {"div", "floor", "ceil", "round"}
# Functions with derivatives that may be infinite where the value is masked.
_SINGULAR = TRANSCENDENTAL | {"div", "pow"}


def _softplus(x: Tensor) -> Tensor:
    return -functional.logsigmoid(-x)  # functional.softplus is x itself from 20 on


def _floordiv(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, 0, torch.div(a, torch.where(b == 0, 1, b), rounding_mode="floor"))


def _mod(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, 0, torch.remainder(a, torch.where(b == 0, 1, b)))


FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "floordiv": _floordiv,
    "mod": _mod,
    "pow": torch.pow,
    "min": torch.minimum,
    "max": torch.maximum,
    "logaddexp": torch.logaddexp,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "eq": torch.eq,
    "ne": torch.ne,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "relu": torch.relu,
    "detach": torch.detach,
    "where": torch.where,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": torch.log,
    "log2": torch.log2,
    "log1p": torch.log1p,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "logsigmoid": functional.logsigmoid,
    "softplus": _softplus,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "elu": functional.elu,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "acos": torch.acos,
}


def apply(setting: Setting, node: Call, values: Sequence[Value]) -> Value:
    """``node.fn`` of values that align by name, of the kind that the node has."""
    wanted = [_wanted_kind(node, position, values) for position in range(len(values))]
    values = [setting.of_kind(v, kind) for v, kind in zip(values, wanted, strict=True)]
    values = setting.in_one_precision(values)
    tensors = setting.aligned(values)
    result = _guarded(node.fn, tensors)
    dims = setting.ordered({dim for v in values for dim in v.dims})
    return setting.of_kind(Value(result, dims), node.kind)


def _wanted_kind(node: Call, position: int, values: Sequence[Value]) -> Kind:
    """The kind that an argument must have before torch sees it."""
    if node.fn in _LOGIC or (node.fn == "where" and position == 0):
        return Kind.BOOL
    if node.fn in _COMPARISONS:
        return max(Kind.INT, *(kind_of(v.tensor) for v in values))
    return Kind.REAL if node.fn in _REAL else node.kind


def kind_of(tensor: Tensor) -> Kind:
    """The kind that a tensor's dtype stands for."""
    if tensor.dtype == torch.bool:
        return Kind.BOOL
    return Kind.REAL if tensor.is_floating_point() else Kind.INT


def _guarded(fn: str, tensors: Sequence[Tensor]) -> Tensor:
    if not any(t.requires_grad for t in tensors) or not torch.is_grad_enabled():
        return FUNCTIONS[fn](*tensors)
    infinite = fn == "mul" and not all(bool(torch.isfinite(t).all()) for t in tensors)
    if fn not in _SINGULAR and not infinite:
        return FUNCTIONS[fn](*tensors)
    return nothing_from_nothing(FUNCTIONS[fn], tensors)


def nothing_from_nothing(fn: Callable[..., Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """``fn(*tensors)``, elementwise, whose gradient is 0 wherever that of the result is."""
    idle: list[Tensor] = []

    # Autograd hands over None where no gradient is defined at all.
    def remember(gradient: Tensor | None) -> None:
        idle[:] = [] if gradient is None else [gradient == 0]

    def silence(gradient: Tensor | None) -> Tensor | None:
        return gradient if gradient is None or not idle else torch.where(idle[0], 0, gradient)

    together = torch.broadcast_tensors(*tensors)  # type: ignore[no-untyped-call]
    inner = [t.view_as(t) for t in together]
    for tensor in inner:
        if tensor.requires_grad:
            tensor.register_hook(silence)
    result = fn(*inner)
    if result.requires_grad:
        result.register_hook(remember)  # type: ignore[no-untyped-call]
    return result
