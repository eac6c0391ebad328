"""The process that compiles: it imports triton once, then answers jobs until its pipe closes.

It is run as ``python -P -m mixc.backends.triton.worker FD`` and never imported by mixc itself: a
pass of the Triton compiler may abort or hang, and takes this process with it, not its caller's.
"""

from __future__ import annotations

import importlib.util
import io
import signal
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .binary_report import KernelReport, read_binary
from .cross_compile import CompileJob, KernelSignature

# A hanging compile outlives its time limit by this much where nobody is left to stop it.
_ORPHAN_GRACE_S = 10


def main() -> None:
    """Answer each ``CompileJob`` that comes with a ``KernelReport``."""
    connection: Connection[KernelReport, CompileJob] = Connection(int(sys.argv[1]))
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        signal.alarm(_ORPHAN_GRACE_S + int(job.time_limit_s))
        report = _answer(job)
        signal.alarm(0)
        connection.send(report)


def _answer(job: CompileJob) -> KernelReport:
    try:
        return compile_kernel(job)
    except Exception as error:  # whatever the compiler raises is this job's answer
        return KernelReport(job.kernel.name, job.target.name, error=_told(error))


def _told(error: BaseException) -> str:
    """Say what was raised and why: Triton puts the reason in the cause, the place before it."""
    text = f"{type(error).__name__}: {error}".strip()
    return text if error.__cause__ is None else f"{text}\n{_told(error.__cause__)}"


def compile_kernel(job: CompileJob) -> KernelReport:
    """Compile one kernel of the module at ``job.path`` for one target; raises as Triton does."""
    kernel, target = job.kernel, job.target
    source = _ast_source(_jit_function(_import_file(job.path), kernel.name), kernel)
    arch: int | str = int(target.arch) if target.backend == "cuda" else target.arch
    options: dict[str, int | None] = {
        "num_warps": kernel.num_warps,
        "num_stages": kernel.num_stages,
        "enable_fp_fusion": True,  # said aloud: the default changes after Triton 3.9
    }
    if target.backend == "cuda":
        options["maxnreg"] = kernel.max_registers
    gpu = GPUTarget(target.backend, arch, target.warp_size)
    with redirect_stdout(io.StringIO()) as log:
        compiled = triton.compile(source, target=gpu, options=options)
    shared_bytes = compiled.metadata.shared
    report = read_binary(
        kernel.name, target, shared_bytes, compiled.asm, log.getvalue(), _disassembler()
    )
    # Triton makes a trap of a kernel that asks for more, and refuses it when it is launched.
    columns, has = getattr(compiled.metadata, "tmem_size", None), target.tensor_memory_columns
    if columns is not None and has is not None and columns > has:
        said = f"{kernel.name} needs {columns} columns of tensor memory, {target} has {has}"
        return replace(report, error=said)
    return report


@lru_cache(maxsize=8)
def _import_file(path: str) -> ModuleType:
    """Import an emitted module from its file, where Triton's inspection finds the source."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _jit_function(module: ModuleType, name: str) -> triton.JITFunction[Any]:
    function = getattr(module, name, None)
    while function is not None and not isinstance(function, triton.JITFunction):
        function = getattr(function, "fn", None)  # below an autotuner or heuristics
    if function is None:
        raise LookupError(f"the source has no Triton kernel {name!r}")
    return function


def _ast_source(function: triton.JITFunction[Any], kernel: KernelSignature) -> ASTSource:
    by_name = {argument.name: argument for argument in kernel.arguments}
    if set(by_name) != set(function.arg_names):
        raise TypeError(
            f"{kernel.name} takes ({', '.join(function.arg_names)}), "
            f"its signature has ({', '.join(by_name)})"
        )
    arguments = [by_name[name] for name in function.arg_names]
    return ASTSource(
        function,
        {argument.name: argument.type for argument in arguments},
        {argument.name: argument.value for argument in arguments if argument.type == "constexpr"},
        {
            (position,): [["tt.divisibility", 16]]
            for position, argument in enumerate(arguments)
            if argument.divisible_by_16
        },
    )


def _disassembler() -> Path | None:
    """Find ``nvdisasm``, which comes with Triton."""
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    return path if path.exists() else None


if __name__ == "__main__":
    main()
