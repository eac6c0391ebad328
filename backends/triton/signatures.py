"""How the kernels of a plan are typed at a launch, for compiling them without one.

Stands for contiguous tensors: the last dim has stride 1, which Triton compiles in, and a stride is
a multiple of 16 where the known sizes inside it make it one; lengths of sequences are taken to be.
"""

from __future__ import annotations

from math import prod

from ...ir.mixer import Layout
from ...ir.plan import Kernel, Plan
from ...ir.tile import BufferArgument, DType, HostArgument, ParamArgument, SizeArgument
from .cross_compile import Argument, KernelSignature

_TRITON_TYPES = {
    DType.BOOL: "i1",
    DType.INT32: "i32",
    DType.INT64: "i64",
    DType.FLOAT16: "fp16",
    DType.BFLOAT16: "bf16",
    DType.FLOAT32: "fp32",
}
# Numbers are passed as Python passes them: a float is fp32 whatever the tensors are.
_SCALAR_TYPES = _TRITON_TYPES | {DType.BFLOAT16: "fp32", DType.FLOAT16: "fp32"}


def kernel_signatures(plan: Plan) -> tuple[KernelSignature, ...]:
    """The signature of each kernel in the module that ``emit_module`` writes for ``plan``."""
    return tuple(_signature(plan, kernel) for kernel in plan.kernels)


def _signature(plan: Plan, kernel: Kernel) -> KernelSignature:
    program = kernel.program
    params = dict(plan.params)
    arguments = []
    for buffer in program.buffers.values():
        arguments.append(Argument(buffer.name, f"*{_TRITON_TYPES[buffer.dtype]}", None, True))
        arguments += _strides(plan, buffer)
    for argument in program.arguments:
        match argument:
            case SizeArgument(dim):
                arguments.append(Argument(dim, "i32"))
            case HostArgument(name, dtype, _) | ParamArgument(name, dtype, True):
                arguments.append(Argument(name, _SCALAR_TYPES[dtype]))
            case ParamArgument(name):
                arguments.append(Argument(name, "constexpr", params[name]))
            case BufferArgument():
                pass
    arguments += [Argument(tile.symbol, "constexpr", tile.block) for tile in program.tiles]
    launch = dict(program.launch)
    return KernelSignature(
        f"{program.name}_kernel",
        tuple(arguments),
        launch.get("num_warps", 4),
        launch.get("num_stages", 3),
        launch.get("maxnreg"),
    )


def _strides(plan: Plan, buffer: BufferArgument) -> list[Argument]:
    order = [dim for product in _layout(plan, buffer) for dim in product]
    sequences = {dim for pair in plan.mixer.sequences for dim in pair}
    sizes = dict.fromkeys(sequences, 16) | dict(plan.sizes)
    strides = []
    for dim in buffer.dims:
        inner = order[order.index(dim) + 1 :]
        name = f"{buffer.name}_stride_{dim}"
        if inner:
            aligned = prod(sizes.get(other, 1) for other in inner) % 16 == 0
            strides.append(Argument(name, "i32", None, aligned))
        else:
            strides.append(Argument(name, "constexpr", 1))
    return strides


def _layout(plan: Plan, buffer: BufferArgument) -> Layout:
    for given in plan.mixer.inputs:
        if given.name == buffer.name:
            return given.layout
    return tuple((dim,) for dim in buffer.dims)
