"""What an emitted function asks of its tensors before it launches kernels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ...ir.binding import expected_layout_text
from ...ir.expression import Size
from ...ir.mixer import Mixer
from ...ir.plan import Plan
from ...ir.rewriting import walk
from ...ir.tile import Dot, DType, all_ops
from ..host_text import host_text
from ..python_text import Text, call, chain, infix, listed, name
from ..statements import Statement, written

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


def kind_checks(plan: Plan, wide_dots: bool) -> Iterator[Statement]:
    """Statements on axes, dtypes and devices; the first input says which device."""
    buffers = {buffer.name: buffer for buffer in plan.buffers}
    given = plan.mixer.inputs
    for entry in given:
        if entry.name in buffers:
            dtype = f"torch.{buffers[entry.name].dtype.value}"
            device = name(given[0].name).then(".device")
            tensor = name(entry.name)
            axes = len(entry.layout)
            yield written(call("expect", f'"{entry.name}"', tensor, axes, dtype, device))
    if given and not wide_dots and _multiplies_bfloat16(plan):
        yield written(name(given[0].name), 1, "if ", '.device.type == "cpu":')
        words = '"Triton\'s interpreter multiplies bfloat16 wrongly: compile for float32"'
        yield written(call("RuntimeError", words), 2, "raise ")


def shape_checks(
    plan: Plan, names: Mapping[str, str], derived: Collection[str] = ()
) -> Iterator[Statement]:
    """Statements on shapes, once all sizes are known.

    ``names``: how the function calls a size; ``derived``: the sizes that it has from others.
    """

    def size(dim: str) -> Text:
        return name(names.get(dim, dim))

    for entry in plan.mixer.inputs:
        products = [chain("*", [size(d) for d in p] or [Text("1")]) for p in entry.layout]
        layout = f'"{expected_layout_text(entry)}"'
        shape = listed(products, "[", "]")
        yield written(call("expect_shape", f'"{entry.name}"', name(entry.name), layout, shape))
    for small, large in plan.mixer.heads:
        groups, heads = size(small), size(large)
        yield written(infix(heads, "%", call("max", groups, 1)), 1, "if ", ":")
        found = f"got {{{groups.code}}} and {{{heads.code}}}"
        yield _refusal(f"heads: {small} must divide {large}, {found}")
    yield from _relations(plan, names, derived)
    for dim, most in plan.limits:
        yield written(infix(size(dim), ">", Text(f"{most}")), 1, "if ", ":")
        found = f"got {{{size(dim).code}}}: beyond, integers take more than 64 bits"
        yield _refusal(f"expected {dim} of at most {most}, {found}")


def _relations(
    plan: Plan, names: Mapping[str, str], derived: Collection[str]
) -> Iterator[Statement]:
    """Statements on what the spec says of sizes that tensors give each by itself."""
    mixer = plan.mixer
    given: dict[str, tuple[str, int]] = {}  # dim -> the first axis that is as long
    for entry in mixer.inputs:
        for axis, product in enumerate(entry.layout):
            if len(product) == 1:
                given.setdefault(product[0], (entry.name, axis))
    firsts: dict[str, str] = {}
    for dim, (tensor, axis) in given.items():
        first = firsts.setdefault(mixer.sequence(dim) or dim, dim)
        if first != dim and not {dim, first} <= names.keys():
            ours, theirs = (name(names.get(d, d)) for d in (dim, first))
            yield written(infix(ours, "!=", theirs), 1, "if ", ":")
            other, place = given[first]
            yield _refusal(
                f"{tensor}: expected {dim}, axis {axis}, as long as {first}, axis {place} of "
                f"{other}: {{{theirs.code}}}, got {{{ours.code}}}"
            )
    for dim, value in mixer.sizes:
        read = {node.dim for node in walk(value) if isinstance(node, Size)}
        if dim not in derived and not {dim, *read} <= names.keys():
            ours, theirs = name(names.get(dim, dim)), host_text(value, names)
            yield written(infix(ours, "!=", theirs), 1, "if ", ":")
            where = next(_having(mixer, dim), "dims")
            yield _refusal(f"{where}: expected {dim} = {value}, got {{{ours.code}}}")


def _having(mixer: Mixer, dim: str) -> Iterator[str]:
    """The axes that tell a dim."""
    alike = {dim} | {d for d, s in mixer.sequences if s == (mixer.sequence(dim) or dim)}
    for entry in mixer.inputs:
        yield from (
            f"{entry.name}, axis {axis}" for axis, p in enumerate(entry.layout) if alike & {*p}
        )


def _refusal(words: str) -> Statement:
    """An error whose words read no more than the condition before it."""
    return written(call("ValueError", f'f"{words}"'), 2, "raise ")


def _multiplies_bfloat16(plan: Plan) -> bool:
    return any(
        isinstance(op, Dot) and DType.BFLOAT16 in (op.a.dtype, op.b.dtype)
        for kernel in plan.kernels
        for op in all_ops(kernel.program.body)
    )


__all__ = ["CHECKS", "NAMES", "kind_checks", "shape_checks"]
