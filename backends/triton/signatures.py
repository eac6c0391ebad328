"""What a kernel's parameters are, for compiling it where there is no tensor to look at."""

from __future__ import annotations

from ...ir.host import evaluate_host
from ...ir.plan import Kernel, Plan
from ...ir.tile import DType, HostArgument, ParamArgument, Program, SizeArgument
from .cross_compile import Argument, KernelSignature
from .free_strides import free_strides
from .names import with_plain_names

_POINTER = {
    DType.BOOL: "*i1",
    DType.INT32: "*i32",
    DType.INT64: "*i64",
    DType.FLOAT16: "*fp16",
    DType.BFLOAT16: "*bf16",
    DType.FLOAT32: "*fp32",
}
_NUMBER = {DType.BOOL: "i1", DType.INT32: "i32", DType.INT64: "i64", DType.FLOAT32: "fp32"}


def kernel_signatures(plan: Plan) -> list[KernelSignature]:
    """One signature per emitted kernel of the plan, as its host function would call it.

    Tensors are taken as contiguous and aligned to 16 bytes, strides as multiples of 16 elements.
    """
    plan = with_plain_names(plan)
    return [_signature(plan, kernel) for kernel in plan.emitted]


def _signature(plan: Plan, kernel: Kernel) -> KernelSignature:
    program = kernel.program
    arguments = [
        Argument(b.name, _POINTER[b.dtype], divisible_by_16=True) for b in program.buffers.values()
    ]
    free = free_strides(program)
    for buffer in program.buffers.values():
        for place, dim in enumerate(buffer.dims):
            name = f"{buffer.name}_stride_{dim}"
            if place == len(buffer.dims) - 1:
                arguments.append(Argument(name, "constexpr", value=1))
            else:
                arguments.append(Argument(name, "i32", divisible_by_16=name not in free))
    arguments += _numbers(plan, program)
    arguments += [Argument(t.symbol, "constexpr", value=t.block) for t in program.blocks]
    launch = dict(program.launch)
    return KernelSignature(
        f"{program.name}_kernel",
        tuple(arguments),
        num_warps=launch.get("num_warps", 4),
        num_stages=launch.get("num_stages", 2),
    )


def _numbers(plan: Plan, program: Program) -> list[Argument]:
    params, sizes = dict(plan.params), dict(plan.sizes)
    made: list[Argument] = []
    for argument in program.arguments:
        match argument:
            case SizeArgument(dim):
                made.append(Argument(dim, "i32"))
            case HostArgument(name, dtype, value):
                if argument.fixed:
                    number = evaluate_host(value, sizes, params)
                    made.append(Argument(name, "constexpr", value=number))
                else:
                    made.append(Argument(name, _NUMBER[dtype]))
            case ParamArgument(name, dtype, runtime):
                if runtime:
                    made.append(Argument(name, _NUMBER[dtype]))
                else:
                    made.append(Argument(name, "constexpr", value=params[name]))
            case _:
                pass
    return made
