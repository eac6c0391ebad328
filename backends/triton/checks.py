"""What an emitted function asks of its tensors before it launches kernels."""

from __future__ import annotations

from collections.abc import Iterator

from ...ir.binding import expected_layout_text
from ...ir.plan import Plan
from ...ir.tile import Dot, DType, all_ops
from ..statements import Spellings

# In every emitted module, as it stands. Strides need no check: kernels are passed them.
CHECKS = '''
def expect(name, tensor, axes, dtype, device):
    """Refuse a tensor of another kind than the kernels are compiled for."""
    if len(tensor.shape) != axes:
        raise ValueError(f"{name}: expected {axes} axes, got the shape {list(tensor.shape)}")
    if tensor.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype}, got {tensor.dtype}")
    if tensor.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, got one on {tensor.device}")


def expect_shape(name, tensor, layout, shape):
    """Refuse a tensor that does not fit the others, or the sizes that kernels are compiled for."""
    if list(tensor.shape) != shape:
        raise ValueError(f"{name}: expected {layout} = {shape}, got {list(tensor.shape)}")
'''
NAMES = frozenset({"expect", "expect_shape"})


def kind_checks(plan: Plan, wide_dots: bool) -> Iterator[str]:
    """Lines on axes, dtypes and devices; the first input says which device."""
    buffers = {buffer.name: buffer for buffer in plan.buffers}
    given = plan.mixer.inputs
    for entry in given:
        if entry.name in buffers:
            dtype = f"torch.{buffers[entry.name].dtype.value}"
            axes, device = len(entry.layout), f"{given[0].name}.device"
            yield f'expect("{entry.name}", {entry.name}, {axes}, {dtype}, {device})'
    if given and not wide_dots and _multiplies_bfloat16(plan):
        yield f'if {given[0].name}.device.type == "cpu":'
        yield (
            "    raise RuntimeError(\"Triton's interpreter multiplies bfloat16 wrongly: "
            'compile for float32")'
        )


def shape_checks(plan: Plan, names: Spellings) -> Iterator[str]:
    """Lines on shapes, once all sizes are known; ``names``: how the function calls a size."""
    for entry in plan.mixer.inputs:
        shape = ", ".join(
            " * ".join(names.get(dim, dim) for dim in product) or "1" for product in entry.layout
        )
        layout = expected_layout_text(entry)
        yield f'expect_shape("{entry.name}", {entry.name}, "{layout}", [{shape}])'
    for small, large in plan.mixer.heads:
        groups, heads = names.get(small, small), names.get(large, large)
        yield f"if {heads} % max({groups}, 1):"
        yield (
            f'    raise ValueError(f"heads: {small} must divide {large}, got {{{groups}}} and '
            f'{{{heads}}}")'
        )
    for dim, most in plan.limits:
        size = names.get(dim, dim)
        yield f"if {size} > {most}:"
        yield (
            f'    raise ValueError(f"expected {dim} of at most {most}, got {{{size}}}: beyond, '
            'integers take more than 64 bits")'
        )


def _multiplies_bfloat16(plan: Plan) -> bool:
    return any(
        isinstance(op, Dot) and DType.BFLOAT16 in (op.a.dtype, op.b.dtype)
        for kernel in plan.kernels
        for op in all_ops(kernel.program.body)
    )


__all__ = ["CHECKS", "NAMES", "kind_checks", "shape_checks"]
