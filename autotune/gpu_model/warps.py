"""One multiprocessor, cycle by cycle: warps in order, on four quarters that issue one a cycle."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from .instructions import Instruction
from .pipes import BRANCH_STALL, FMA, HEAVY, L2, OF_ALL, OPERANDS_LATENCY, QUEUES, SHARED, Use
from .synchronisation import Effect, Synchronisation, synchronisation_of
from .tally import Tally

_BOARDS, _QUARTERS = 6, 4
_GROUPS = 9  # of copies or products that a warp may have in flight
_FLIGHTS = {Effect.COPIES: "copies in flight", Effect.PRODUCTS: "products in flight"}


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction with all that a simulated warp asks of it."""

    place: int
    one: Instruction
    use: Use
    wait: Synchronisation
    stall: int
    room: float  # cycles of work that may wait in front of its pipe

    @classmethod
    def of(cls, place: int, one: Instruction, use: Use) -> Step:
        """The step of an instruction; a branch stalls longer than its code says."""
        stall = one.stall + (BRANCH_STALL if one.opcode == "BRA" else 0)
        return cls(place, one, use, synchronisation_of(one), stall, QUEUES.get(use.pipe, 0.0))


@dataclass(slots=True)
class Profile:
    """A simulated run: cycles, where the time of warps and pipes went, and at which places."""

    cycles: float = 0.0
    issued: int = 0
    waits: Tally[str] = field(default_factory=Tally)
    busy: Tally[str] = field(default_factory=Tally)
    places: Tally[int] = field(default_factory=Tally)

    def less(self, other: Profile) -> Profile:
        """What this run has more than a shorter one."""
        return Profile(
            self.cycles - other.cycles,
            self.issued - other.issued,
            self.waits.less(other.waits),
            self.busy.less(other.busy),
            self.places.less(other.places),
        )


@dataclass(eq=False, slots=True)
class _Warp:
    """Where a warp is, and until when it waits for what runs beside it."""

    quarter: int
    program: int
    place: int = 0
    before: float = 0.0  # when it last issued
    clear: list[float] = field(default_factory=lambda: [0.0] * _BOARDS)
    names: list[str] = field(default_factory=lambda: [""] * _BOARDS)
    copied: float = 0.0  # when its last asynchronous copy is there
    flights: dict[Effect, list[float]] = field(default_factory=lambda: {e: [] for e in _FLIGHTS})


class Multiprocessor:
    """Programs of some warps each, side by side, that all run the same steps."""

    def __init__(self, steps: Sequence[Step], warps: int, programs: int, slow: float) -> None:
        """``slow``: how many times as long bytes take the port to L2."""
        self.steps, self.warps, self.slow = steps, warps, slow
        self.all = [_Warp(w % _QUARTERS, w // warps) for w in range(warps * programs)]
        pipes = {HEAVY, *(step.use.pipe for step in steps)}
        self.free = {pipe: [0.0] * _QUARTERS for pipe in pipes}
        self.slots = [0.0] * _QUARTERS
        self.met: dict[tuple[int, str, int], list[int]] = {}
        self.queue = [(0.0, w) for w in range(len(self.all))]
        self.profile = Profile()

    def run(self) -> Profile:
        """Run all warps to their end, always the one whose turn comes first."""
        while self.queue:
            now, number = heapq.heappop(self.queue)
            warp, going = self.all[number], True
            while going and warp.place < len(self.steps):
                now, going = self._step(now, number, warp)
                if going and self.queue and self.queue[0][0] < now:
                    heapq.heappush(self.queue, (now, number))
                    going = False
        self.profile.cycles = max(warp.before for warp in self.all)
        return self.profile

    def _step(self, now: float, number: int, warp: _Warp) -> tuple[float, bool]:
        """Issue the warp's next instruction if it can be: when to come back, and whether to."""
        step, profile = self.steps[warp.place], self.profile
        frees, quarter = self._pipe(step, warp)
        start, why = self._earliest(step, warp, frees[quarter])
        if start > now:
            profile.waits.add(why, start - now)
            return start, True
        use = step.use
        cycles = use.cycles * self.slow if use.pipe == L2 else use.cycles
        finished = max(now, frees[quarter]) + cycles
        self.slots[warp.quarter], frees[quarter] = now + 1, finished
        profile.busy.add(use.pipe, cycles)
        profile.issued += 1
        profile.places.add(step.place, now - warp.before)
        warp.before = now
        warp.place += 1
        if step.wait.effect is not None:
            self._set(step, warp, finished)
        if step.wait.barrier is not None:
            return now, self._meet(step, number, warp)
        profile.waits.add("fixed latency", step.stall - 1)
        return now + step.stall, True

    def _pipe(self, step: Step, warp: _Warp) -> tuple[list[float], int]:
        """When the pipe is free, by quarter, and which quarter's it is."""
        frees = self.free[step.use.pipe]
        quarter = 0 if step.use.pipe in OF_ALL else warp.quarter
        if step.use.pipe == FMA and self.free[HEAVY][quarter] < frees[quarter]:
            frees = self.free[HEAVY]  # 32-bit sums have two pipes
        return frees, quarter

    def _earliest(self, step: Step, warp: _Warp, free: float) -> tuple[float, str]:
        """When an instruction can issue, and what it waits for until then."""
        start, why = self.slots[warp.quarter], "issue slot"
        if free - step.room > start:
            start, why = free - step.room, step.use.pipe
        for board in step.one.waits:
            if warp.clear[board] > start:
                start, why = warp.clear[board], warp.names[board]
        flight = step.wait.flight
        if flight is not None:
            gone = warp.flights[flight][: -step.wait.kept or None]
            if gone and gone[-1] > start:
                start, why = gone[-1], _FLIGHTS[flight]
        return start, why

    def _set(self, step: Step, warp: _Warp, done: float) -> None:
        """Note what the instruction sets going, and when the scoreboards that it sets clear."""
        finished = done + step.use.latency
        effect = step.wait.effect
        if effect is Effect.COPY:
            warp.copied = max(warp.copied, finished)
        elif effect in (Effect.COPIES, Effect.PRODUCTS):
            if effect is Effect.COPIES:
                finished = max(warp.copied, warp.before)
            warp.flights[effect] = [*warp.flights[effect][1 - _GROUPS :], finished]
        read = (done if step.use.pipe == SHARED else warp.before) + OPERANDS_LATENCY
        for board, time in ((step.one.done, finished), (step.one.read, read)):
            if board is not None and time > warp.clear[board]:
                warp.clear[board] = time
                warp.names[board] = f"result of {step.one.opcode}"

    def _meet(self, step: Step, number: int, warp: _Warp) -> bool:
        """Wait for other warps, the last of which lets all go on."""
        barrier = step.wait.barrier or ""
        group = number % self.warps // 4 if barrier == "warpgroup" else 0
        met = self.met.setdefault((warp.program, barrier, group), [])
        met.append(number)
        if len(met) == min(step.wait.warps or self.warps, self.warps):
            ready = warp.before + max(step.wait.latency, step.stall)
            for other in met:
                self.profile.waits.add("barrier", ready - self.all[other].before - 1)
                heapq.heappush(self.queue, (ready, other))
            met.clear()
        return False
