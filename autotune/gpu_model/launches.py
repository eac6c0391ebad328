"""Programs dealt out over the multiprocessors of a machine: how long a launch takes, and why."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .instructions import Instruction
from .machines import Machine
from .paths import Paths
from .pipes import FMA, HEAVY, L2, OF_ALL, uses_of
from .tally import Tally
from .warps import Multiprocessor, Profile, Step

START_US = 3.0
_FEW, _SOME = 3, 6  # turns of a loop that are simulated, for a straight line through both
_BUSY = 0.7  # the share of its cycles from which on a pipe is what bounds
_MOST_PROGRAMS = 32  # that a multiprocessor holds
_OWN_SHARED_BYTES = 1024  # of each program, that the system keeps

Turns = tuple[float, ...]  # of each loop of the machine code, in their order


@dataclass(frozen=True, slots=True)
class Launch:
    """``work``: runs of programs with the turns of their loops, in the order of their numbers."""

    work: tuple[tuple[int, Turns], ...]
    warps: int
    registers: int  # of a thread
    shared_bytes: int  # of a program
    memory_bytes: float = 0.0  # that pass between the chip and its memory

    @property
    def programs(self) -> int:
        """How many there are."""
        return sum(count for count, _ in self.work)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A time with its grounds; ``steady`` is some turns of the loop that takes the most."""

    compute_us: float
    memory_us: float
    resident: int  # programs that a multiprocessor holds at once
    waves: float
    cycles_of_a_turn: float
    steady: Profile
    slow: float  # how many times as long bytes take the port to L2, because they miss it

    @property
    def time_us(self) -> float:
        """The time of the launch."""
        return max(self.compute_us, self.memory_us) + START_US

    @property
    def shares(self) -> Tally[str]:
        """How busy the pipes and the issue slots are in a turn of the main loop."""
        quarters, busy = 4 * (self.steady.cycles or 1.0), self.steady.busy
        shares: Tally[str] = Tally()
        for pipe, cycles in busy.items():
            shares[pipe] = cycles / quarters * (4 if pipe in OF_ALL else 1)
        shares[FMA] = (busy[FMA] + busy[HEAVY]) / 2 / quarters
        shares["issue slot"] = self.steady.issued / quarters
        return shares

    @property
    def bound(self) -> str:
        """What to change first: bytes, a pipe, too few programs, or what warps wait for."""
        pipe, share = self.shares.most(1)[0]
        if self.memory_us > self.compute_us:
            return "bytes: memory"
        if share > _BUSY:
            missed = pipe == L2 and self.slow > 1
            return "bytes: memory" if missed else f"bytes: {L2}" if pipe == L2 else f"pipe: {pipe}"
        waited = self.steady.waits.most(1) or [("-", 0)]
        few = " (occupancy: the machine is not full)" if self.waves < 1 else ""
        return f"latency: {waited[0][0]}{few}"


class KernelModel:
    """A compiled kernel on a machine, its loops found; each run of it is simulated once."""

    def __init__(self, program: Sequence[Instruction], machine: Machine, warps: int) -> None:
        """``warps`` of a program."""
        self.program, self.machine, self.warps = program, machine, warps
        self.paths = Paths(program)
        uses = uses_of(program, machine, warps)
        self._steps = [Step.of(*each) for each in zip(range(len(uses)), program, uses, strict=True)]
        self._runs: dict[tuple[int, float, tuple[int, ...]], Profile] = {}

    def resident(self, launch: Launch) -> int:
        """Programs that a multiprocessor holds at once."""
        machine, threads = self.machine, 32 * launch.warps
        by_registers = machine.registers // (-(-launch.registers // 8) * 8 * threads)
        by_shared = machine.shared_bytes // (launch.shared_bytes + _OWN_SHARED_BYTES)
        by_warps = machine.warps // launch.warps
        return max(1, min(by_warps, by_registers, by_shared, _MOST_PROGRAMS))

    def run(self, programs: int, slow: float, turns: tuple[int, ...]) -> Profile:
        """Simulate programs side by side."""
        key = (programs, slow, turns)
        if key not in self._runs:
            steps = [self._steps[place] for place in self.paths.trace(turns)]
            self._runs[key] = Multiprocessor(steps, self.warps, programs, slow).run()
        return self._runs[key]

    def estimate(self, launch: Launch) -> Estimate:
        """Predict a launch."""
        machine = self.machine
        each = math.ceil(launch.programs / machine.multiprocessors)
        resident = min(self.resident(launch), each)
        slow = self._slow(launch)
        total = self._cycles(launch, resident, each, slow)
        turn, steady = self._steady(resident, slow, launch)
        return Estimate(
            total / machine.clock_ghz / 1e3,
            launch.memory_bytes / machine.reached_gb_s / 1e3,
            resident,
            launch.programs / resident / machine.multiprocessors,
            turn,
            steady,
            slow,
        )

    def _slow(self, launch: Launch) -> float:
        """How much the memory slows the port to L2: its share of the bytes that are asked for."""
        machine = self.machine
        asked = sum(n * self.warps * extended(self._moved, turns) for n, turns in launch.work)
        working = min(machine.multiprocessors, launch.programs)
        share = machine.reached_gb_s / machine.clock_ghz / working
        missed = launch.memory_bytes / max(asked, 1.0)
        return max(1.0, round(missed * machine.l2_bytes_per_cycle / share, 2))

    def _moved(self, turns: tuple[int, ...]) -> float:
        """Bytes that one warp's loads and stores ask for."""
        uses = (self._steps[place].use for place in self.paths.trace(turns))
        return self.machine.l2_bytes_per_cycle * sum(use.cycles for use in uses if use.pipe == L2)

    def _cycles(self, launch: Launch, resident: int, each: int, slow: float) -> float:
        """Cycles of the whole launch; a last round with fewer programs is faster."""

        def cycles(together: int, turns: Turns) -> float:
            return extended(lambda few: self.run(together, slow, few).cycles, turns)

        times = [(count, cycles(resident, turns)) for count, turns in launch.work]
        if len(times) > 1:
            return _makespan(times, resident * self.machine.multiprocessors)
        rounds, last = divmod(each, resident)
        alone = cycles(1, launch.work[0][1]) if last else 0.0
        full = times[0][1]
        return full * rounds + max(full * last / resident, alone)

    def _steady(self, programs: int, slow: float, launch: Launch) -> tuple[float, Profile]:
        """A turn of the loop that takes the most time; all of the run where there is none."""
        _, turns = max(launch.work, key=lambda item: sum(item[1]))
        base = tuple(int(min(t, _FEW)) for t in turns)
        low = self.run(programs, slow, base)
        best = (0.0, 0.0, low)
        for place, wanted in enumerate(turns):
            if wanted > 0:
                more = (*base[:place], base[place] + _SOME - _FEW, *base[place + 1 :])
                apart = self.run(programs, slow, more).less(low)
                turn = apart.cycles / (_SOME - _FEW)
                best = max(best, (turn * wanted, turn, apart), key=lambda item: item[0])
        return best[1], best[2]


def extended(value: Callable[[tuple[int, ...]], float], turns: Turns) -> float:
    """A value on a line through those of two short runs, for each loop that is long."""
    for place, wanted in enumerate(turns):
        low, high = (_FEW, _SOME) if wanted > _SOME else (int(wanted), int(wanted) + 1)
        if wanted != low:
            ends = [(*turns[:place], end, *turns[place + 1 :]) for end in (low, high)]
            first, second = (extended(value, end) for end in ends)
            return first + (second - first) * (wanted - low) / (high - low)
    return value(tuple(int(t) for t in turns))


def _makespan(times: Sequence[tuple[int, float]], slots: int) -> float:
    """When the last program ends, each starting where one has ended."""
    ends = [0.0] * slots
    for cycles in (c for count, c in times for _ in range(count)):
        heapq.heapreplace(ends, ends[0] + cycles)
    return max(ends)
