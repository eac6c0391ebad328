"""What instructions take: a pipe, for how many cycles, and when their result is there.

The widths of pipes are those of the CUDA C++ Programming Guide (throughput of native instructions
per compute capability) at four quarters of a multiprocessor. Latencies were calibrated on an H100
together with all else; published ones are close (Jia et al. 2018, arXiv 1804.06826, for Volta;
Abdelkhalik et al. 2022, arXiv 2208.11174, for Ampere; Luo et al. 2024, arXiv 2402.13499, for
Hopper). Those of tensor memory (``cuda:100``) are guesses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .instructions import Instruction, constant_before
from .machines import Machine

FMA, HEAVY, TENSOR, SHARED, L2 = "fma", "heavy", "tensor cores", "shared memory", "L2 port"
TENSOR_OF_ALL = "tensor cores of all"
# Pipes of a multiprocessor; the others are a quarter's.
OF_ALL = (SHARED, L2, TENSOR_OF_ALL)
# Cycles of work that may wait in front of a pipe.
QUEUES: Mapping[str, float] = {
    SHARED: 12,
    "special functions": 8,
    L2: 600,
    TENSOR: 32,
    TENSOR_OF_ALL: 128,
}
GLOBAL_LATENCY, OPERANDS_LATENCY, BARRIER_LATENCY, BRANCH_STALL = 550, 12, 22, 6
SPINNING = 12  # instructions at most of a loop that waits for a barrier in memory


@dataclass(frozen=True, slots=True)
class Use:
    """A pipe, cycles that a warp's instruction takes it, cycles from then to its result."""

    pipe: str
    cycles: float
    latency: float


_CONTROL, _SPECIAL = Use("control", 1, 10), Use("special functions", 8, 20)
_USES: Mapping[str, Use] = {
    **dict.fromkeys("FADD FMUL FFMA HADD2 HMUL2 HFMA2".split(), Use(FMA, 2, 5)),
    **dict.fromkeys("IMAD IDP".split(), Use(HEAVY, 2, 5)),
    **dict.fromkeys("MUFU I2F F2I F2F I2I FCHK POPC FLO BREV FRND".split(), _SPECIAL),
    **dict.fromkeys("BRA EXIT BSSY BSYNC NOP WARPSYNC CALL RET YIELD BREAK BMOV".split(), _CONTROL),
    **dict.fromkeys("S2R S2UR".split(), Use("control", 2, 25)),
    **dict.fromkeys("FENCE MEMBAR".split(), Use("control", 1, 30)),
    **dict.fromkeys("R2UR VOTE REDUX".split(), Use("alu", 2, 13)),
    "CS2R": Use("control", 2, 15),
    "LDC": Use("constants", 2, 30),
    "SHFL": Use(SHARED, 1, 23),
}
_ELSE, _UNIFORM = Use("alu", 2, 6), Use("uniform", 2, 12)
_SHARED_ACCESS = "LDS STS LDSM STSM ATOMS LDL STL".split()  # spills stay in the first cache
_GLOBAL_ACCESS = "LDG STG LDGSTS ATOM ATOMG RED LD ST".split()
# Products of one mma.sync by the number in its name: rows * columns * depth.
_PRODUCTS = {16816: 16 * 8 * 16, 1688: 16 * 8 * 8, 1684: 16 * 8 * 4, 16832: 16 * 8 * 32}


def uses_of(program: Sequence[Instruction], machine: Machine, warps: int) -> tuple[Use, ...]:
    """What each instruction of a program of so many warps takes."""
    return tuple(_use(program, place, machine, warps) for place in range(len(program)))


def _use(program: Sequence[Instruction], place: int, machine: Machine, warps: int) -> Use:
    one = program[place]
    if one.opcode in _SHARED_ACCESS:
        matrices = one.numbers[-1] if one.numbers[-1:] in ((2,), (4,)) else 1
        words = matrices if "SM" in one.opcode else _words(one)
        return Use(SHARED, words, 28)
    if one.opcode in _GLOBAL_ACCESS:
        return Use(L2, 128.0 * _words(one) / machine.l2_bytes_per_cycle, GLOBAL_LATENCY)
    if one.opcode in ("LDTM", "STTM"):  # registers per thread, two a cycle
        return Use("tensor memory", max(one.numbers[-1:] or (1,)) / 2, 20)
    if one.opcode.startswith("UTC") and one.opcode.endswith("MMA"):
        return _of_tensor_memory(program, place, machine, warps)
    if one.opcode.endswith("MMA"):
        return _product(one, machine)
    if one.opcode == "IMAD" and not machine.two_sum_pipes:
        return Use(FMA, 2, 5)
    uniform = one.opcode.startswith("U") and one.opcode not in _USES
    return _UNIFORM if uniform else _USES.get(one.opcode, _ELSE)


def _words(one: Instruction) -> float:
    """32-bit words per thread."""
    return max((n // 32 for n in one.numbers if n in (64, 128)), default=1)


def _product(one: Instruction, machine: Machine) -> Use:
    rate = machine.tensor_macs / (2 if "TF32" in one.modifiers else 1)
    if one.opcode.endswith("GMMA"):  # four warps share it, each on its quarter
        rows, columns, depth = one.numbers[:3]
        from_shared = "gdesc" in one.operands[1]
        read = 2 * depth * (columns + rows * from_shared) / 128
        return Use(TENSOR, max(rows / 4 * columns * depth / rate, read), 30)
    products = _PRODUCTS.get(one.numbers[0] if one.numbers else 0, 16 * 8 * 16)
    return Use(TENSOR, products / rate / machine.synchronous, 33)


def _of_tensor_memory(
    program: Sequence[Instruction], place: int, machine: Machine, warps: int
) -> Use:
    """tcgen05: one warp issues it for all, here each its share; the shape is in a descriptor.

    Bits 17 to 22 of the descriptor are columns / 8, bits 24 to 28 rows / 16 (PTX ISA, instruction
    descriptor); 128 x 128 where it isn't known. The depth is 16 for 16-bit inputs, 8 for 32-bit.
    """
    one = program[place]
    named = next((o for o in one.operands if o.startswith("idesc[")), "idesc[]")
    descriptor = constant_before(program, place, named[6:-1]) or 0
    columns, rows = (descriptor >> 17 & 63) * 8 or 128, (descriptor >> 24 & 31) * 16 or 128
    depth, rate = 16, 4 * machine.tensor_macs
    return Use(TENSOR_OF_ALL, rows * columns * depth / rate / warps, 60)
