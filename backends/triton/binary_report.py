"""What a compiled kernel costs, read from its binary: registers, spills, tensor cores, copies.

Counts are of instructions in the text of the program, not of executed ones: they show whether the
dots reached the tensor cores and the loads are pipelined at all.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...ir.targets import Target

# mma.sync is HMMA, IMMA, DMMA, QMMA or OMMA, wgmma is HGMMA, QGMMA ..., tcgen05 is UTC*MMA.
_SASS_OPCODE = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)
_SASS_TENSOR_CORE = re.compile(r"(UTC\w*|[A-Z]G?)MMA")
_SASS_ASYNC_COPY = re.compile(r"LDGSTS|UTMALDG|UBLKCP")
_PTXAS_REGISTERS = re.compile(r"\bUsed (\d+) registers")
_PTXAS_SPILLS = re.compile(r"\b(\d+) bytes spill stores, (\d+) bytes spill loads")
_PTX_TENSOR_CORE = re.compile(r"\b(?:mma\.sync|wgmma\.mma_async|tcgen05\.mma)\b")
_PTX_ASYNC_COPY = re.compile(r"\bcp\.async(?:\.c[ag]|\.bulk(?:\.tensor\S*)?)\.shared\b")
_AMD_TENSOR_CORE = re.compile(r"^\s+v_(?:mfma|smfmac|wmma)_", re.MULTILINE)
_AMD_ASYNC_COPY = re.compile(
    r"^\s+(?:(?:global|buffer)_load_lds_\w+|buffer_load_\w+ .*\blds\b)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class KernelReport:
    """One kernel compiled for one target; with ``error`` set it can't run there.

    A number is None where it is not known: the compiler failed, or the tool that reads it is absent
    (``note`` says which).
    """

    name: str
    target: str
    registers: int | None = None  # per thread
    spilled_bytes: int | None = None  # per thread
    shared_bytes: int | None = None  # per block
    tensor_core_instructions: int | None = None
    async_copies: int | None = None  # from global to shared memory, past the registers
    error: str | None = None
    note: str | None = None
    # The machine code with its control codes and the lines of the source, where it could be read.
    sass: str | None = field(default=None, repr=False, compare=False)

    def as_dict(self) -> dict[str, str | int | None]:
        """Give the form for JSON; ``error`` and ``note`` appear only where there is one."""
        numbers: dict[str, str | int | None] = {
            "name": self.name,
            "target": self.target,
            "registers": self.registers,
            "spilled_bytes": self.spilled_bytes,
            "shared_bytes": self.shared_bytes,
            "tensor_core_instructions": self.tensor_core_instructions,
            "async_copies": self.async_copies,
        }
        said = {"error": self.error, "note": self.note}
        return numbers | {key: text for key, text in said.items() if text is not None}


def read_binary(
    name: str,
    target: Target,
    shared_bytes: int,
    asm: Mapping[str, str | bytes],
    log: str,
    disassembler: Path | None,
) -> KernelReport:
    """Read the report of a compiled kernel.

    ``asm`` is what Triton keeps of its stages (``ptx`` and ``cubin``, or ``amdgcn``), ``log`` what
    ``ptxas -v`` said, ``disassembler`` the path of ``nvdisasm``; without one the PTX is counted.
    """
    report = KernelReport(name, target.name, shared_bytes=shared_bytes)
    if target.backend == "hip":
        report = _read_amdgcn(report, str(asm["amdgcn"]))
    else:
        report = _read_log(report, log)
        sass = _disassembled(asm["cubin"], disassembler)
        report = _count_instructions(report, sass, str(asm["ptx"]))
    return replace(report, error=_over_the_limit(report, target))


def _over_the_limit(report: KernelReport, target: Target) -> str | None:
    shared = report.shared_bytes or 0
    if shared <= target.shared_memory_bytes:
        return None
    return (
        f"{report.name} needs {shared} bytes of shared memory, {target} has "
        f"{target.shared_memory_bytes} per block: use smaller blocks or fewer stages"
    )


def _read_amdgcn(report: KernelReport, text: str) -> KernelReport:
    def field(key: str) -> int | None:
        found = re.search(rf"^\s+\.{key}:\s+(\d+)", text, re.MULTILINE)
        return int(found.group(1)) if found else None

    spilled_registers = field("vgpr_spill_count")
    return replace(
        report,
        registers=field("vgpr_count"),
        spilled_bytes=None if spilled_registers is None else 4 * spilled_registers,
        tensor_core_instructions=len(_AMD_TENSOR_CORE.findall(text)),
        async_copies=len(_AMD_ASYNC_COPY.findall(text)),
    )


def _read_log(report: KernelReport, log: str) -> KernelReport:
    """Registers and spills; a stack frame may also hold arrays, which are no spills."""
    registers = [int(found) for found in _PTXAS_REGISTERS.findall(log)]
    spills = [max(map(int, found)) for found in _PTXAS_SPILLS.findall(log)]
    if not registers or not spills:
        return replace(report, note="no log of ptxas: registers and spills unknown")
    return replace(report, registers=max(registers), spilled_bytes=sum(spills))


def _count_instructions(report: KernelReport, sass: str | None, ptx: str) -> KernelReport:
    if sass is None:
        said = "no nvdisasm: instructions counted in the PTX text"
        return replace(
            report,
            tensor_core_instructions=len(_PTX_TENSOR_CORE.findall(ptx)),
            async_copies=len(_PTX_ASYNC_COPY.findall(ptx)),
            note=said if report.note is None else f"{report.note}; {said}",
        )
    opcodes = _SASS_OPCODE.findall(sass)
    return replace(
        report,
        sass=sass,
        tensor_core_instructions=sum(bool(_SASS_TENSOR_CORE.fullmatch(op)) for op in opcodes),
        async_copies=sum(bool(_SASS_ASYNC_COPY.fullmatch(op)) for op in opcodes),
    )


def _disassembled(cubin: str | bytes, disassembler: Path | None) -> str | None:
    """Give the SASS text; None where the tool is absent or can't read the binary."""
    if disassembler is None or isinstance(cubin, str):
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(disassembler), "-c", "-ndf", "-hex", "-g", str(file.name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
