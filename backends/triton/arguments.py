"""The parameters of an emitted kernel, in order."""

from __future__ import annotations

from ...ir.tile import HostArgument, ParamArgument, Program, SizeArgument


def argument_groups(program: Program) -> list[list[str]]:
    """The kernel's parameters: tensors, their strides, numbers, compile-time numbers."""
    buffers = list(program.buffers.values())
    groups = [[b.name for b in buffers]]
    groups.extend([f"{b.name}_stride_{d}" for d in b.dims] for b in buffers)
    groups.append([a.dim for a in program.arguments if isinstance(a, SizeArgument)])
    hosts = [a for a in program.arguments if isinstance(a, HostArgument)]
    groups.append([a.name for a in hosts if not a.fixed])
    params = [a for a in program.arguments if isinstance(a, ParamArgument)]
    groups.append([p.name for p in params if p.runtime])
    fixed = [p.name for p in params if not p.runtime] + [a.name for a in hosts if a.fixed]
    groups.append([f"{name}: tl.constexpr" for name in fixed])
    groups.append([f"{t.symbol}: tl.constexpr" for t in program.blocks])
    return [g for g in groups if g]


def argument_names(program: Program) -> list[str]:
    """The parameters' names."""
    return [a.split(":")[0] for group in argument_groups(program) for a in group]
