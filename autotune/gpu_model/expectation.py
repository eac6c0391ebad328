"""What a plan's kernels take on a target at a shape, what bounds each, and its costly lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from ...backends.triton.names import with_plain_names
from ...ir.host import evaluate_host
from ...ir.plan import Kernel, Plan
from ...ir.tile import HostArgument, ParamArgument, SizeArgument
from .grid import moved_bytes, programs_of
from .instructions import read_instructions
from .launches import Estimate, KernelModel, Launch, Turns
from .machines import MACHINES
from .matching import Match, is_library, match_loops
from .roofline import roofline_us
from .tally import Tally
from .turns import KernelText, Number, SourceTurns, source_loops

if TYPE_CHECKING:
    from ...backends.triton.binary_report import KernelReport
    from ..bench.work import Work

_SAMPLED = 251  # programs at most whose loops are counted; prime, so that no period hides others
_COSTLY = 3


@dataclass(frozen=True, slots=True)
class CostlyLine:
    """A line of the emitted module, with its share of the time of the main loop's warps."""

    number: int
    text: str
    share: float


@dataclass(frozen=True, slots=True)
class Expectation:
    """The expected time of a kernel on a target: of a launch, of which a call has ``launches``.

    ``estimate`` and ``lines`` are there where machine code could be read, and ``library`` is the
    share of Triton's own functions (sums, scans); ``guessed``: loops whose turns depend on data.
    """

    name: str
    target: str
    time_us: float
    bound: str
    estimate: Estimate | None = None
    lines: tuple[CostlyLine, ...] = ()
    library: float = 0.0
    guessed: tuple[int, ...] = ()
    launches: int = 1

    @property
    def all_us(self) -> float:
        """The time of all launches of a call."""
        return self.time_us * self.launches

    def as_dict(self) -> dict[str, Any]:
        """The form for JSON."""
        found: dict[str, Any] = {
            "name": self.name,
            "target": self.target,
            "machine": MACHINES[self.target].product,
            "expected_us": round(self.time_us, 1),
            "launches": self.launches,
            "bound": self.bound,
        }
        if self.estimate is not None:
            one = self.estimate
            found |= {
                "compute_us": round(one.compute_us, 1),
                "memory_us": round(one.memory_us, 1),
                "programs_side_by_side": one.resident,
                "waves": round(one.waves, 2),
                "cycles_of_a_turn": round(one.cycles_of_a_turn),
                "busy": {pipe: round(share, 3) for pipe, share in one.shares.most(6)},
                "lines": [
                    {"line": line.number, "text": line.text, "share": round(line.share, 3)}
                    for line in self.lines
                ],
                "library_share": round(self.library, 3),
                "turns_guessed_at_lines": list(self.guessed),
            }
        return found


def expectations(
    plan: Plan,
    source: str,
    reports: Sequence[KernelReport],
    sizes: Mapping[str, int],
    work: Work | None = None,
) -> list[Expectation]:
    """One for each report, which are those of the plan's kernels on one or several targets."""
    plan = with_plain_names(plan)
    kernels = {f"{kernel.program.name}_kernel": kernel for kernel in plan.kernels}
    every = all_sizes(plan, sizes)
    turns = rows_of(plan, every)
    return [
        replace(
            _expected(plan, kernels[report.name], source, report, every, work),
            launches=turns.get(report.name.removesuffix("_kernel"), 1),
        )
        for report in reports
        if report.error is None
    ]


def rows_of(plan: Plan, sizes: Mapping[str, int]) -> dict[str, int]:
    """How often the host runs each kernel of its loops, by the kernel's name."""
    return {
        plan.kernels[place].program.name: sizes[loop.over]
        for loop, places in plan.stretches
        for place in places
    }


def all_sizes(plan: Plan, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of a mixer's dims, and of those that the plan has for itself."""
    params = dict(plan.params)
    every = {**dict(plan.sizes), **sizes}
    for dim, value in (*plan.lengths, *plan.own_sizes.items()):
        every[dim] = int(evaluate_host(value, every, params))
    return every


def _expected(
    plan: Plan,
    kernel: Kernel,
    source: str,
    report: KernelReport,
    sizes: Mapping[str, int],
    work: Work | None,
) -> Expectation:
    if report.sass is None:
        time_us = roofline_us(kernel, report, sizes, work)
        return Expectation(report.name, report.target, time_us, "not read: no machine code")
    program = kernel.program
    warps = dict(program.launch).get("num_warps", 4)
    model = KernelModel(read_instructions(report.sass), MACHINES[report.target], warps)
    matches = match_loops(model.paths, source_loops(source))
    work_of, guessed = launch_work(plan, kernel, source, matches, sizes)
    estimate = model.estimate(
        Launch(
            work_of,
            warps,
            report.registers or 255,
            report.shared_bytes or 0,
            moved_bytes(kernel, sizes),
        )
    )
    lines, library = _costly(model, estimate, source)
    return Expectation(
        report.name, report.target, estimate.time_us, estimate.bound, estimate, lines, library,
        guessed,
    )  # fmt: skip


def launch_work(
    plan: Plan,
    kernel: Kernel,
    source: str,
    matches: Sequence[Match],
    sizes: Mapping[str, int],
) -> tuple[tuple[tuple[int, Turns], ...], tuple[int, ...]]:
    """Runs of programs with the turns of the machine code's loops; lines whose turns are guesses.

    Of many programs some are counted, evenly spread, each for its neighbours too.
    """
    text = KernelText(source, f"{kernel.program.name}_kernel")
    arguments = scalar_arguments(plan, kernel, sizes)
    total = programs_of(kernel, sizes)
    count = min(total, _SAMPLED)
    guess = max(sizes.values(), default=1) // 2
    numbers = [n * total // count for n in range(count)] + [total]
    any_program = text.turns(arguments, None, guess)
    if not any_program.guessed:
        return ((total, _of_machine(matches, any_program)),), ()
    turns: list[tuple[int, Turns]] = []
    guessed: set[int] = set()
    for here, following in pairwise(numbers):
        found = text.turns(arguments, here, guess)
        guessed |= found.guessed
        turns.append((following - here, _of_machine(matches, found)))
    runs = groupby(turns, key=lambda item: item[1])
    work = tuple((sum(n for n, _ in items), each) for each, items in runs)
    return work, tuple(sorted(guessed))


def _of_machine(matches: Sequence[Match], found: SourceTurns) -> Turns:
    return tuple(match.turns(found.turns) for match in matches)


def scalar_arguments(plan: Plan, kernel: Kernel, sizes: Mapping[str, int]) -> dict[str, Number]:
    """The numbers that a kernel is launched with, by their names in its text."""
    program, params = kernel.program, dict(plan.params)
    made: dict[str, Number] = {tile.symbol: tile.block for tile in program.blocks}
    for argument in program.arguments:
        match argument:
            case SizeArgument(dim) if dim in sizes:
                made[dim] = sizes[dim]
            case HostArgument(name, _, value):
                made[name] = evaluate_host(value, sizes, params)
            case ParamArgument(name) if name in params:
                made[name] = params[name]
            case _:
                pass
    return made


def _costly(
    model: KernelModel, estimate: Estimate, source: str
) -> tuple[tuple[CostlyLine, ...], float]:
    """The lines where warps of the main loop spend most, and the share of Triton's library."""
    text, costs, library = source.splitlines(), Tally[int](), 0.0
    for place, cycles in estimate.steady.places.items():
        line = model.program[place].line
        if is_library(line):
            library += cycles
        elif 0 < line.number <= len(text):
            costs.add(line.number, cycles)
    total = sum(estimate.steady.places.values()) or 1.0
    lines = tuple(
        CostlyLine(number, text[number - 1].strip(), cycles / total)
        for number, cycles in costs.most(_COSTLY)
    )
    return lines, library / total
