"""``make evidence``: what the library's kernels compute after every pass of Triton, executed.

The last TTGIR of each kernel, forward and backward, is executed on the CPU at ragged sizes and
compared with float64; accesses outside tensors, reads of memory that nobody wrote, and asynchronous
copies and products that nothing waits for are faults. Goes on where it was stopped; a table of all
that was found so far ends it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mixc.autotune.checking.checking import verify
from mixc.autotune.checking.gradients import gradients_of, outputs_of
from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import VerificationCase
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.ir.mixer import Mixer
from mixc.runtime.training import Training

from .environment import BUILD, RELEASE, environment
from .executor import Executor

TARGETS = ("cuda:90", "cuda:80", "cuda:100")
DTYPES = ("bfloat16", "float32")
# Two blocks of queries and a ragged third, heads in groups, and features that kernels are made for.
RAGGED = Proportions(lengths=(150, 70), features=(64,), ratio=2, groups=1, batch=(1, 2), table=13)


@dataclass(frozen=True)
class Found:
    """What came of a spec on a target in a precision."""

    spec: str
    target: str
    dtype: str
    passed: str  # "forward" or "backward"
    status: str
    error: float | None
    limit: float | None
    message: str
    seconds: float
    shares: int = 1

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """What a run that goes on knows it by."""
        return self.spec, self.target, self.dtype, self.passed, self.shares


def sizes_of(mixer: Mixer) -> dict[str, int]:
    """Ragged lengths, 64 features."""
    return default_sizes(mixer, RAGGED)


def examine(
    executor: Executor, mixer: Mixer, target: str, dtype: str, passed: str, shares: int = 1
) -> Found:
    """Execute a spec's kernels and compare outputs, or gradients, with float64."""
    make = executor.runner(target, shares=shares)
    start = time.monotonic()

    def run(mixer: Mixer, given: Any, params: Any) -> Any:
        if passed == "forward":
            return make(mixer)(given, params)
        return Training(mixer, make, narrow=True)(given, params)

    (case,) = verify(
        mixer,
        {"ttgir": run},
        (getattr(torch, dtype),),
        cases=[VerificationCase("ragged", sizes_of(mixer))],
        measured=lambda d: outputs_of if passed == "forward" else gradients_of(mixer, d, 1),
    )
    compared = case.status in ("right", "wrong")
    numbers = (case.error, case.limit) if compared else (None, None)
    seconds = round(time.monotonic() - start, 1)
    message = case.message.strip().splitlines()[-1] if case.message else ""
    status = case.status
    return Found(mixer.name, target, dtype, passed, status, *numbers, message, seconds, shares)


def main() -> int:
    """Examine what is asked for; 1 where a kernel was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("specs", nargs="*", metavar="SPEC", help="by default the whole library")
    parser.add_argument("--target", nargs="+", default=TARGETS, choices=TARGETS)
    parser.add_argument("--dtype", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--pass", nargs="+", dest="passes", default=("forward", "backward"))
    parser.add_argument("--triton", default=RELEASE, help="3.7.1 or newer")
    parser.add_argument("--shares", type=int, default=1, help="of keys, or of a scan's rows")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    chosen = parser.parse_args()
    python = environment(chosen.triton)
    if python is None:
        print("make evidence needs Python 3.12 or newer beside this one", file=sys.stderr)
        return 2
    kept = BUILD / f"found_{chosen.triton}.jsonl"
    if chosen.again:
        kept.unlink(missing_ok=True)
    known = {found.key: found for found in _kept(kept)}
    end = time.monotonic() + 60 * chosen.minutes
    with Executor(python) as executor, kept.open("a") as file:
        for mixer, target, dtype, passed in _asked(chosen):
            if (mixer.name, target, dtype, passed, chosen.shares) in known:
                continue
            if time.monotonic() > end:
                break
            found = examine(executor, mixer, target, dtype, passed, chosen.shares)
            known[found.key] = found
            words = " ".join(map(str, found.key))
            print(f"{found.seconds:6.1f} s  {words}: {found.status} {found.message}", flush=True)
            file.write(json.dumps(asdict(found)) + "\n")
            file.flush()
    (BUILD / "evidence.md").write_text(table(list(known.values()), chosen.triton))
    print(f"{BUILD / 'evidence.md'}: {len(known)} of {len(list(_asked(chosen)))} examined")
    return int(any(found.status in ("wrong", "crashed") for found in known.values()))


def _asked(chosen: argparse.Namespace) -> Iterator[tuple[Mixer, str, str, str]]:
    mixers = [load_file(path) for path in library()]
    wanted = [mixer for mixer in mixers if not chosen.specs or mixer.name in chosen.specs]
    for target in chosen.target:
        for dtype in chosen.dtype:
            for mixer in wanted:
                for passed in chosen.passes:
                    yield mixer, target, dtype, passed


def _kept(path: Path) -> Iterator[Found]:
    if path.exists():
        for line in path.read_text().splitlines():
            yield Found(**json.loads(line))


def table(rows: Sequence[Found], release: str) -> str:
    """A line for each, in Markdown."""
    right = sum(row.status == "right" for row in rows)
    lines = [
        f"# Executed TTGIR, Triton {release}",
        "",
        f"{right} of {len(rows)} are right: 64 features, ragged lengths; errors as `mixc verify`.",
        "",
        "| spec | target | dtype | pass | shares | error | limit | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: r.key):
        error, limit = ("" if n is None else f"{n:.1e}" for n in (row.error, row.limit))
        what = row.status if row.status == "right" else f"{row.status}: {row.message}"
        cells = (*map(str, row.key), error, limit, what)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
