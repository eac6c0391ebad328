"""The meaning of a mixer: its equations executed by torch as they stand, in float64.

Dense and differentiable. In a lower precision it is what plain PyTorch would give, which is the
yardstick for the tolerances of kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...ir.binding import Number, bind_sizes, param_values, params_in
from ...ir.expression import Expr, Kind
from ...ir.mixer import Attention, Input, Layout, Map, Mixer, Output, Recurrence, Select
from ...ir.optional import expressions, without_inputs
from .attention import attend
from .recurrence import recur
from .scope import Scope, Sums, shared_nodes
from .select import select
from .values import Setting, Value


def run(
    mixer: Mixer,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number] = {},
    dtype: torch.dtype = torch.float64,
    sums: Sums | None = None,
) -> dict[str, Tensor]:
    """Compute the mixer's outputs, in their declared layouts.

    Args:
        tensors: the inputs by name; those with a default may be missing.
        params: values that override the params' defaults.
        dtype: the precision of all real values; integers are int64.
        sums: how sums are made that are not made as they stand.

    Raises:
        ArgumentError: the tensors or params do not fit the spec.
    """
    sizes = bind_sizes(mixer, {n: tuple(t.shape) for n, t in tensors.items()}, params)
    mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.name not in tensors])
    device = next((t.device for t in tensors.values()), torch.device("cpu"))
    setting = Setting(sizes, param_values(mixer, sizes, params), dtype, device)
    lets = {e.name: e for e in mixer.lets}
    scope = Scope(setting, lets=lets, shared=shared_nodes(expressions(mixer)), sums=sums)
    for declared in mixer.inputs:
        scope.names[declared.name] = _named_axes(setting, declared, tensors[declared.name])
    scope.names.update(_tables(setting, mixer))
    for stage in mixer.stages:
        match stage:
            case Map(equations):
                for equation in equations:
                    scope.names[equation.name] = scope.value(equation.value)
            case Attention():
                scope.names.update(attend(setting, stage, scope.value_with))
            case Recurrence():
                scope.names.update(recur(stage, scope))
            case Select():
                scope.names.update(select(setting, stage, scope.value))
    return {o.name: _laid_out(setting, o, scope.named(o.name)) for o in mixer.outputs}


def evaluate(
    expr: Expr,
    sizes: Mapping[str, int],
    values: Mapping[str, Value] = {},
    params: Mapping[str, Number] = {},
    dtype: torch.dtype = torch.float64,
) -> Value:
    """One expression, with ``values`` for its references; for tests and analyses.

    A mask without references gives the truth of every pair, with the axes in the order of
    ``sizes``.
    """
    setting = Setting(sizes, dict(params), dtype, torch.device("cpu"))
    return Scope(setting, names=dict(values)).value(expr)


def constant(mixer: Mixer, value: Expr, sizes: Mapping[str, int], layout: Layout) -> Tensor:
    """An expression in sizes, params and positions, laid out as a tensor of its own."""
    setting = Setting(sizes, params_in(mixer, value, sizes), torch.float64, torch.device("cpu"))
    found = Scope(setting, names=_tables(setting, mixer)).value(value)
    return _laid_out(setting, Output("", layout, value.kind), found).clone()


def _tables(setting: Setting, mixer: Mixer) -> dict[str, Value]:
    """The tables of params by name."""
    found = {}
    for table in mixer.tables:
        dtype = setting.position_dtype if table.kind is Kind.REAL else torch.int64
        values = torch.tensor(table.values, dtype=dtype, device=setting.device)
        value = Value(values.reshape(table.shape), table.dims)
        found[table.name] = setting.reordered(setting.of_kind(value, table.kind))
    return found


def _named_axes(setting: Setting, declared: Input, tensor: Tensor) -> Value:
    """An input as a value: products taken apart, in the precision of the run."""
    if declared.kind is Kind.REAL:
        # An input with a dtype of its own keeps it until it meets others, as positions do.
        tensor = tensor.to(setting.position_dtype if declared.dtype else setting.dtype)
    value = Value(tensor.reshape(setting.shape(declared.dims)), declared.dims)
    return setting.reordered(setting.of_kind(value, declared.kind))


def _laid_out(setting: Setting, declared: Output, value: Value) -> Tensor:
    """A value as an output: its axes in the declared order, products put together."""
    value = setting.expanded(setting.of_kind(value, declared.kind), declared.dims)
    tensor = value.tensor.permute([value.dims.index(dim) for dim in declared.dims])
    if declared.kind is Kind.REAL:
        own = None if setting.dtype == torch.float64 else declared.dtype
        tensor = tensor.to(setting.dtype if own is None else getattr(torch, own))
    shape = [_extent(setting, product) for product in declared.layout]
    return tensor.reshape(shape)


def _extent(setting: Setting, product: Sequence[str]) -> int:
    extent = 1
    for size in setting.shape(product):
        extent *= size
    return extent
