"""``make survey``: what compilers make of the library's default kernels, forward and backward.

For each spec, target and size of the features: kernels, spilled bytes, registers, instructions on
tensor cores, asynchronous copies, in bf16. Goes on where it was stopped; build/survey/survey.tsv
holds a line for each kernel and ends each pass of a spec with one for all of them. ``--keep``
writes what spills into the table beside this file.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mixc.backends.triton.cross_compile import CompileWorkers
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.signatures import kernel_signatures
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.errors import MixcError
from mixc.ir.optional import without_inputs
from mixc.ir.plan import Plan
from mixc.ir.roles import feature_dims
from mixc.ir.targets import Target, parse_target

TARGETS = ("cuda:90", "cuda:80", "cuda:100", "cuda:120")
SIZES = (64, 128)
PASSES = ("forward", "backward")
COLUMNS = ("spec", "target", "size", "pass", "kernel", "schedule", "spilled_bytes", "registers")
COLUMNS += ("shared_bytes", "tensor_core_instructions", "async_copies", "launch", "error")
KEPT_COLUMNS = ("target", "size", "pass", "spec", "spilled_bytes")
ALL = "all kernels"
KEPT = Path(__file__).with_name("spills.tsv")


def planned(path: Path, size: int, backward: bool, target: Target) -> Plan:
    """The default plan of a spec without the inputs that may be left out."""
    mixer = load_file(path)
    mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.default is not None])
    if backward:
        mixer = differentiate(mixer).backward
    features = feature_dims(mixer)
    timed = dict(mixer.bench[0]) if mixer.bench else {}
    square = dict.fromkeys(features & {"P"}, size)  # recurrent weights: from each place to each
    sizes = {d: n for d, n in {**square, **timed, "D": size, "E": size}.items() if d in features}
    return lower(mixer, sizes, "bfloat16", target=target)


def reports(plan: Plan, target: Target, workers: CompileWorkers) -> Iterator[dict[str, object]]:
    """A line for each kernel, and one for all."""
    kernels = {f"{kernel.program.name}_kernel": kernel for kernel in plan.kernels}
    spilled, failed = 0, 0
    made = workers.compile(emit_module(plan), kernel_signatures(plan), [target])
    for report in made:
        kernel = kernels.get(report.name)
        blocks = () if kernel is None else kernel.program.blocks
        launch = () if kernel is None else kernel.program.launch
        spilled += report.spilled_bytes or 0
        failed += report.error is not None
        yield {
            "kernel": report.name,
            "schedule": "" if kernel is None else kernel.schedule,
            "spilled_bytes": report.spilled_bytes,
            "registers": report.registers,
            "shared_bytes": report.shared_bytes,
            "tensor_core_instructions": report.tensor_core_instructions,
            "async_copies": report.async_copies,
            "launch": " ".join(
                [*(f"{b.dim}={b.block}" for b in blocks), *(f"{k}={v}" for k, v in launch)]
            ),
            "error": (report.error or "").replace("\n", " ")[:200],
        }
    yield {
        "kernel": ALL,
        "schedule": f"{len(made)} kernels",
        "spilled_bytes": spilled,
        "error": f"{failed} failed" if failed else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="make survey OPTIONS=...", description=__doc__)
    parser.add_argument("specs", nargs="*", help="default: the library")
    parser.add_argument("--target", action="append", help=f"default: {', '.join(TARGETS)}")
    parser.add_argument("--size", action="append", type=int, help="D and E; default: 64 and 128")
    parser.add_argument("--pass", dest="passes", action="append", choices=PASSES)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=Path("build/survey/survey.tsv"))
    parser.add_argument(
        "--keep", action="store_true", help=f"into {KEPT.name}, and compile nothing"
    )
    parser.add_argument("--kept", type=Path, default=KEPT, help="another table than that")
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    is_new = not asked.out.exists()
    with asked.out.open("a+", newline="") as file, CompileWorkers(count=1) as workers:
        file.seek(0)
        lines = list(csv.DictReader(file, COLUMNS, delimiter="\t"))
        done = {tuple(line[c] for c in COLUMNS[:4]) for line in lines if line["kernel"] == ALL}
        table = csv.DictWriter(file, COLUMNS, delimiter="\t", restval="")
        if is_new:
            table.writeheader()
        if asked.keep:
            keep(lines, asked.kept)
            return
        started = time.monotonic()
        for case in cases(asked):
            if time.monotonic() - started > 60 * asked.minutes:
                print("out of time: run it again to go on")
                return
            if case[:4] not in done:
                for line in _surveyed(case, workers):
                    table.writerow(line)
                    if line["kernel"] == ALL:
                        print(*(line.get(column, "") for column in COLUMNS[:7]), line["error"])
                file.flush()


def keep(lines: Iterable[Mapping[str, str]], kept: Path = KEPT) -> None:
    """Write what spills into a table: a line for the library, then one for each spec that does.

    What the table says of specs that ``lines`` don't have stays; specs are counted of whichever has
    more of them.
    """
    found, counts = _kept(kept)
    seen: dict[tuple[str, ...], int] = {}
    for line in lines:
        if line["kernel"] == ALL and not line["error"]:
            of = tuple(line[column] for column in KEPT_COLUMNS[:3])
            found.setdefault(of, {})[line["spec"]] = int(line["spilled_bytes"])
            seen[of] = seen.get(of, 0) + 1
    with kept.open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow(KEPT_COLUMNS)
        for of, specs in sorted(found.items()):
            count = max(counts.get(of, 0), seen.get(of, 0))
            table.writerow([*of, f"{count} specs", sum(specs.values())])
            table.writerows([*of, name, n] for name, n in sorted(specs.items()) if n)


def _kept(
    table: Path,
) -> tuple[dict[tuple[str, ...], dict[str, int]], dict[tuple[str, ...], int]]:
    """Spilled bytes by spec, and how many specs were looked at, by target, size and pass."""
    found: dict[tuple[str, ...], dict[str, int]] = {}
    counts: dict[tuple[str, ...], int] = {}
    lines = table.read_text().splitlines() if table.exists() else []
    for line in csv.DictReader(lines, delimiter="\t"):
        of = tuple(line[column] for column in KEPT_COLUMNS[:3])
        specs = found.setdefault(of, {})
        if line["spec"].endswith(" specs"):
            counts[of] = int(line["spec"].removesuffix(" specs"))
        else:
            specs[line["spec"]] = int(line["spilled_bytes"])
    return found, counts


def cases(asked: argparse.Namespace) -> Iterator[tuple[str, str, str, str, Path]]:
    """(spec, target, size, pass, its file), the wider question last."""
    paths = {path.stem: path for path in library()}
    for target in asked.target or TARGETS:
        for size in asked.size or SIZES:
            for kind in asked.passes or PASSES:
                for name in asked.specs or paths:
                    yield name, target, str(size), kind, paths[name]


def _surveyed(
    case: tuple[str, str, str, str, Path], workers: CompileWorkers
) -> list[dict[str, object]]:
    """The lines of a case; one that can't be lowered is a line that says why."""
    _, target_name, size, kind, path = case
    known: dict[str, object] = dict(zip(COLUMNS[:4], case[:4], strict=True))
    target = parse_target(target_name)
    try:
        plan = planned(path, int(size), kind == "backward", target)
        return [{**known, **line} for line in reports(plan, target, workers)]
    except MixcError as error:
        return [{**known, "kernel": ALL, "error": str(error).replace("\n", " ")[:200]}]


if __name__ == "__main__":
    main()
