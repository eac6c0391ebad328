"""A plan as one C++ file: the runtime headers it needs, its kernels, and one entry point."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from itertools import accumulate

from ...ir.plan import Kernel, Plan
from ...ir.row_loop import RowLoop
from ...ir.targets import CpuTarget
from ...ir.tile import Convolve
from ...ir.verify_plan import verify_plan
from .kernel_text import KernelText
from .names import with_plain_names
from .rows import ROWS_AT_ONCE, several_rows

_FFT = "fft.hpp"  # of plans that have a long sum over lags
_TILES = "tiles.hpp"  # of targets that have tiles of registers
_HEADERS = ("vector.hpp", "functions.hpp", "memory.hpp", "dot.hpp", "systems.hpp")


@dataclass(frozen=True, slots=True)
class Source:
    """A C++ file; ``entries`` are its functions, one for each run of kernels, and
    ``argument_counts`` what each kernel takes of args."""

    text: str
    entries: tuple[str, ...]
    argument_counts: tuple[int, ...]

    @property
    def entry(self) -> str:
        """The function of a plan whose kernels are one run."""
        (only,) = self.entries
        return only


def emit_source(plan: Plan, target: CpuTarget) -> Source:
    """The C++ of a plan's kernels for a target. The text is the same for equal plans.

    A name that C++ or the text itself has a use for gets an underscore: ``this`` --> ``this_``.
    """
    plan = with_plain_names(final_form(plan), target)
    params = dict(plan.params)
    sizes = dict(plan.sizes)
    emitted = plan.emitted
    kernels = [KernelText(k.program, target, params, sizes, k.schedule) for k in emitted]
    parts = [_runtime(target)]
    if any(isinstance(op, Convolve) for k in emitted for op in k.program.body):
        parts.append(_header_text(_FFT))
    for kernel, text in zip(emitted, kernels, strict=True):
        about = f"// {kernel.program.about}\n" if kernel.program.about else ""
        parts.append(about + "\n".join(text.lines) + "\n")
    counts = {text.program.name: text.argument_count for text in kernels}
    entry, entries = f"mixc_{plan.mixer.name}", list[str]()
    for run in plan.runs:
        if run[0].transform is None:
            entries.append(f"{entry}_{len(entries) + 1}" if entries else entry)
            parts.append(_entry(plan, run, entries[-1], counts))
    body = "\n".join(parts)
    return Source(_header(plan, target, body) + body, tuple(entries), tuple(counts.values()))


def final_form(plan: Plan) -> Plan:
    """The plan as its text says it: late rewrites done, and every rule checked once more.

    Raises:
        PromiseError: blocks for which bounds were left out that they need.
    """
    kernels = []
    for kernel in plan.kernels:
        rows = dict(kernel.program.launch).get(ROWS_AT_ONCE.name, 1)
        kernels.append(replace(kernel, program=several_rows(kernel.program, rows)))
    made = replace(plan, kernels=tuple(kernels))
    verify_plan(made)
    return made


def runtime_text() -> str:
    """The runtime headers, one after another."""
    return "\n".join(_header_text(name) for name in _HEADERS)


def every_header_text() -> str:
    """All headers that a source may have, those of some plans and of some targets too."""
    return "\n".join(_header_text(name) for name in (*_HEADERS, _FFT, _TILES))


def included_headers() -> tuple[str, ...]:
    """The headers of the system that the runtime includes, in order."""
    found = re.findall(r"^#include <(.+)>$", runtime_text(), re.MULTILINE)
    return tuple(dict.fromkeys(found))


def tiles_text() -> str:
    """The header of targets that have tiles of registers."""
    return _header_text(_TILES)


def _header_text(name: str) -> str:
    return (files(__package__) / "runtime" / name).read_text(encoding="utf-8")


def _runtime(target: CpuTarget) -> str:
    lines = [f"#define MIXC_LANES {target.lanes}"]
    if target.paired_dot:
        lines.append("#define MIXC_PAIRED_DOT")
    more = [tiles_text()] if target.tile_dot else []
    return "\n".join([*lines, runtime_text(), *more])


def _entry(plan: Plan, run: Sequence[Kernel], entry: str, counts: Mapping[str, int]) -> str:
    """The function that calls the kernels of a run in order, those of a loop once for each row."""
    loops = plan.loops_of(run)
    const = "" if loops else "const "
    lines = [f'extern "C" void {entry}({const}int64_t* args, int threads) {{']
    places = [0, *accumulate(counts[kernel.program.name] for kernel in run)]
    calls = [
        f"{kernel.program.name}(args + {place}, threads);"
        for kernel, place in zip(run, places, strict=False)
    ]
    done, given = 0, places[-1]
    for loop, inside in loops:
        lines += [f"  {call}" for call in calls[done : inside.start]]
        lines += _loop(loop, _slots(run, places), given, calls[inside.start : inside.stop])
        done, given = inside.stop, given + 1 + 2 * len((*loop.rows, *loop.made, *loop.states))
    lines += [f"  {call}" for call in calls[done:]]
    return "\n".join([*lines, "}", ""])


def _slots(run: Sequence[Kernel], places: Sequence[int]) -> dict[str, list[int]]:
    """Where among the arguments the address of each buffer stands."""
    slots: dict[str, list[int]] = {}
    for kernel, place in zip(run, places, strict=False):
        for buffer in kernel.program.buffers.values():
            slots.setdefault(buffer.name, []).append(place)
            place += 1 + len(buffer.dims)
    return slots


def _loop(
    loop: RowLoop, slots: Mapping[str, Sequence[int]], given: int, calls: Sequence[str]
) -> Iterator[str]:
    """The lines of a loop: before each row its addresses are put among the arguments."""

    def put(name: str, value: str) -> Iterator[str]:
        if places := slots.get(name):
            yield f"{' = '.join(f'args[{place}]' for place in places)} = {value};"

    yield f"  // row by row along {loop.over}"
    rows = [view for view, _ in (*loop.rows, *loop.made)]
    for number, view in enumerate(rows):
        yield f"  int64_t {view} = args[{given + 1 + 2 * number}];"
    first = given + 1 + 2 * len(rows)
    for number, state in enumerate(loop.states):
        yield f"  int64_t {state.before} = args[{first + 2 * number}];"
        yield f"  int64_t {state.after} = args[{first + 2 * number + 1}];"
    yield f"  for (int64_t rest = args[{given}]; rest > 0; --rest) {{"
    for name in (*rows, *(n for s in loop.states for n in (s.before, s.after))):
        yield from (f"    {line}" for line in put(name, name))
    yield from (f"    {call}" for call in calls)
    for number, view in enumerate(rows):
        yield f"    {view} += args[{given + 2 + 2 * number}];"
    for state in loop.states:
        yield f"    args[{given}] = {state.before};"
        yield f"    {state.before} = {state.after};"
        yield f"    {state.after} = args[{given}];"
    yield "  }"
    for state in loop.states:
        yield from (f"  {line}" for line in put(state.end, state.before))


def _header(plan: Plan, target: CpuTarget, body: str) -> str:
    fixed = ", ".join(f"{dim} = {size}" for dim, size in plan.sizes)
    made_by = f"generated by mixc {version('mixc')}; edit the spec, not this file."
    lines = [f"// {plan.mixer.name}: {made_by}", "//"]
    lines.append(f"// For {target.name}, {plan.dtype.value}" + (f", {fixed}." if fixed else "."))
    for kernel in plan.emitted:
        blocks = [f"{t.symbol} = {t.block}" for t in kernel.program.blocks]
        lines.append(f"// {kernel.program.name}: {', '.join(blocks)}.")
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    return "\n".join([*lines, f"// Content: {digest}.", ""])
