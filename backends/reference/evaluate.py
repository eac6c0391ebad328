"""The meaning of a mixer: its equations executed by torch as they stand, in float64.

Dense and differentiable. In a lower precision it is what plain PyTorch would give, which is the
yardstick for the tolerances of kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...ir.binding import Number, bind_sizes, param_values
from ...ir.expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
)
from ...ir.host import evaluate_host, is_host
from ...ir.mixer import Attention, Equation, Input, Map, Mixer, Output
from ...ir.optional import expressions, without_inputs
from .attention import attend
from .axes import contract, is_finite, read, reduce, running_sum
from .elementwise import apply
from .values import Setting, Value


def run(
    mixer: Mixer,
    tensors: Mapping[str, Tensor],
    params: Mapping[str, Number] = {},
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """Compute the mixer's outputs, in their declared layouts.

    Args:
        tensors: the inputs by name; those with a default may be missing.
        params: values that override the params' defaults.
        dtype: the precision of all real values; integers are int64.

    Raises:
        ArgumentError: the tensors or params do not fit the spec.
    """
    sizes = bind_sizes(mixer, {n: tuple(t.shape) for n, t in tensors.items()}, params)
    mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.name not in tensors])
    device = next((t.device for t in tensors.values()), torch.device("cpu"))
    setting = Setting(sizes, param_values(mixer, sizes, params), dtype, device)
    scope = Scope(setting, lets={e.name: e for e in mixer.lets}, shared=_shared_nodes(mixer))
    for declared in mixer.inputs:
        scope.names[declared.name] = _named_axes(setting, declared, tensors[declared.name])
    for table in mixer.tables:
        real = torch.float64 if dtype == torch.float64 else setting.position_dtype
        values = torch.tensor(
            table.values, dtype=real if table.kind is Kind.REAL else torch.int64, device=device
        )
        value = Value(values.reshape(table.shape), table.dims)
        scope.names[table.name] = setting.reordered(setting.of_kind(value, table.kind))
    for stage in mixer.stages:
        match stage:
            case Map(equations):
                for equation in equations:
                    scope.names[equation.name] = scope.value(equation.value)
            case Attention():
                scope.names.update(attend(setting, stage, scope.value_with))
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


@dataclass
class Scope:
    """Names with values so far; lets are computed when first needed, shared terms once."""

    setting: Setting
    names: dict[str, Value] = field(default_factory=dict)
    lets: Mapping[str, Equation] = field(default_factory=dict)
    shared: frozenset[int] = frozenset()  # ids of nodes with several parents
    done: dict[int, Value] = field(default_factory=dict)

    def value_with(self, expr: Expr, names: Mapping[str, Value]) -> Value:
        """The value of ``expr`` with some names more, or other ones."""
        if not names:
            return self.value(expr)
        return Scope(self.setting, {**self.names, **names}, self.lets).value(expr)

    def named(self, name: str) -> Value:
        """The value of an input, table, let or stage result."""
        if name not in self.names:
            self.names[name] = self.value(self.lets[name].value)
        return self.names[name]

    def value(self, expr: Expr) -> Value:
        """The value of ``expr``."""
        if id(expr) in self.done:
            return self.done[id(expr)]
        value = self._compute(expr)
        if id(expr) in self.shared:
            self.done[id(expr)] = value
        return value

    def _compute(self, expr: Expr) -> Value:
        setting = self.setting
        match expr:
            case Ref(name):
                return self.named(name)
            case Index(dim):
                return setting.positions(dim)
            case Literal() | Size() | Scalar():
                return setting.number(evaluate_host(expr, setting.sizes, setting.params))
            case Call(_, args):
                if is_host(expr):
                    return setting.number(evaluate_host(expr, setting.sizes, setting.params))
                return apply(setting, expr, [self.value(a) for a in args])
            case Reduce():
                return self._reduce(expr)
            case Read(x, at, fill):
                places = {dim: self.value(index) for dim, index in at}
                return read(setting, self.value(x), places, fill)
            case Cumsum(x, over, reverse, exclusive):
                return running_sum(setting, self.value(x), over, reverse, exclusive)
            case _:
                raise TypeError(f"no term of the mixer level: {type(expr).__name__}")

    def _reduce(self, expr: Reduce) -> Value:
        where = None if expr.where is None else self.value(expr.where)
        group = [(dim, self.value(index)) for dim, index in expr.group]
        factors = [self.value(f) for f in _factors(expr.x)] if expr.op == "sum" else []
        if len(factors) > 1 and is_finite(factors) and not group:
            if where is not None:
                factors.append(self.setting.of_kind(where, Kind.BOOL))
            return contract(self.setting, factors, expr.over)
        return reduce(self.setting, expr.op, self.value(expr.x), expr.over, where, group)


def _factors(expr: Expr) -> list[Expr]:
    """The factors of a product, which a sum over it can contract; else the term itself."""
    match expr:
        case Call("mul", (a, b)) if not is_host(expr):
            return [*_factors(a), *_factors(b)]
        case _:
            return [expr]


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
        tensor = tensor.to(setting.dtype)
    shape = [_extent(setting, product) for product in declared.layout]
    return tensor.reshape(shape)


def _extent(setting: Setting, product: Sequence[str]) -> int:
    extent = 1
    for size in setting.shape(product):
        extent *= size
    return extent


def _shared_nodes(mixer: Mixer) -> frozenset[int]:
    """The nodes that several terms share as one object; expansions of the loader do."""
    seen, shared = set[int](), set[int]()
    pending = list(expressions(mixer))
    while pending:
        node = pending.pop()
        if not node.children:
            continue
        if id(node) in seen:
            shared.add(id(node))
            continue
        seen.add(id(node))
        pending += node.children
    return frozenset(shared)
