"""A plan as one Python module: kernels that read as if written by hand, and their host function."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version

from ...ir.errors import PromiseError
from ...ir.plan import Plan
from ...ir.targets import EVERY_GPU
from ...ir.tile import DType, HostArgument, Program, SizeArgument
from ...ir.verify_plan import verify_plan
from ..fourier import source as fourier_source
from ..python_text import WIDEST, comment, fill
from .checks import CHECKS
from .device_functions import DEVICE_FUNCTIONS
from .free_strides import free_strides
from .host import HostText
from .kernel_text import KernelText
from .names import with_plain_names
from .own_loads import with_own_loads
from .reread import reread_weights


def emit_module(plan: Plan, wide_dots: bool = False) -> str:
    """The source of a module with one Triton kernel per kernel of the plan.

    Its function ``<mixer>`` takes the inputs in the spec's order and gives the outputs in theirs.
    The text is the same for equal plans. A name that the module needs for itself gets an
    underscore: ``range`` --> ``range_``. ``wide_dots`` is for Triton's interpreter, which can't
    multiply bfloat16.
    """
    plan = with_plain_names(final_form(plan))
    own: dict[str, str] = {}
    kernels = kernel_texts(plan, own, wide_dots)
    parts = device_functions(kernels, own)
    for kernel, text in zip(plan.emitted, kernels, strict=True):
        about = comment(kernel.program.about)
        parts.append("\n".join([*about, *decorator(kernel.program), text.text]))
    host = HostText(plan, wide_dots).text
    transforms = [fourier_source()] if len(plan.emitted) < len(plan.kernels) else []
    parts += [CHECKS.strip(), *transforms, host]
    imports = ["import math"] if "math." in host else []
    if kernels:
        imports += [*([""] if imports else []), "import triton", "import triton.language as tl"]
    head = "\n".join(imports) + "\n\n\n" if imports else "\n"
    body = head + "\n\n\n".join(parts) + "\n"
    return _header(plan, body) + "\n" + _lint(plan) + body


def kernel_texts(plan: Plan, own: dict[str, str], wide_dots: bool = False) -> list[KernelText]:
    """The kernels of a plan as text; ``own`` takes the functions that are made for them."""
    return [
        KernelText(
            k.program, f"{k.program.name}_kernel", wide_dots, own, dict(plan.sizes), k.schedule
        )
        for k in plan.emitted
    ]


def device_functions(kernels: Iterable[KernelText], own: Mapping[str, str]) -> list[str]:
    """The functions that kernels call."""
    device = {name for kernel in kernels for name in kernel.device}
    functions = [
        "@triton.jit" + text.rstrip() for name, text in DEVICE_FUNCTIONS.items() if name in device
    ]
    return functions + [
        "@triton.jit\n" + text.replace("FUNCTION", name, 1) for name, text in own.items()
    ]


def final_form(plan: Plan) -> Plan:
    """The plan as its text says it: late rewrites done, and every rule checked once more.

    Raises:
        PromiseError: blocks for which bounds were left out that they need, or that Triton lacks.
    """
    for program in (kernel.program for kernel in plan.kernels):
        for tile in program.tiles:
            if tile.block & (tile.block - 1):
                raise PromiseError(
                    f"{program.name}: a block of {tile.block} positions of {tile.dim}; Triton has "
                    f"powers of two"
                )
    programs = [reread_weights(kernel.program) for kernel in plan.kernels]
    if plan.target == EVERY_GPU or getattr(plan.target, "products_from_shared", False):
        programs = [with_own_loads(program) for program in programs]
    kernels = (replace(k, program=p) for k, p in zip(plan.kernels, programs, strict=True))
    made = replace(plan, kernels=tuple(kernels))
    verify_plan(made)
    return made


def _lint(plan: Plan) -> str:
    """Names stay what they are in the spec, whatever a linter thinks of ``I`` and ``l``."""
    dims = {d for b in plan.buffers for d in b.dims}
    names = {*(b.name for b in plan.buffers), *dims, *(d.lower() for d in dims)}
    return "# ruff: noqa: E741\n\n" if names & {"I", "O", "l"} else ""


def decorator(program: Program) -> list[str]:
    """Lengths must not be specialised: a new length would compile anew."""
    names = [*free_strides(program)]
    names += [a.dim for a in program.arguments if isinstance(a, SizeArgument)]
    hosts = [a for a in program.arguments if isinstance(a, HostArgument) and not a.fixed]
    names += [a.name for a in hosts if a.dtype in (DType.INT32, DType.INT64)]
    if not names:
        return ["@triton.jit"]
    listed = [f'"{n}"' for n in names]
    line = f"@triton.jit(do_not_specialize=[{', '.join(listed)}])"
    if len(line) <= WIDEST:
        return [line]
    return ["@triton.jit(", "    do_not_specialize=[", *fill(listed, 8), "    ]", ")"]


def _header(plan: Plan, body: str) -> str:
    mixer = plan.mixer
    fixed = ", ".join(f"{dim} = {size}" for dim, size in plan.sizes)
    made_by = f"generated by mixc {version('mixc')}; edit the spec, not this file."
    lines = [f'"""{mixer.name}: {made_by}', ""]
    compiled = f"Compiled for {plan.dtype.value}" + (f" with {fixed}." if fixed else ".")
    lines.extend(textwrap.wrap(compiled, WIDEST))
    for kernel in plan.emitted:
        blocks = [f"{t.symbol} = {t.block}" for t in kernel.program.blocks if not t.whole]
        launch = [f"{name} = {value}" for name, value in kernel.program.launch]
        line = f"{kernel.program.name}: {', '.join([*blocks, *launch])}."
        lines.extend(textwrap.wrap(line, WIDEST, subsequent_indent="    "))
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    lines.append(f"Content: {digest}.")
    return "\n".join([*lines, '"""', ""])
