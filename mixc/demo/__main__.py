"""``make demo``: three specs, from text to checked kernels, on the bytes of a real text.

One spec is the library's, one is what ``mixc new`` writes, one a recurrence. All are shown,
compiled for cuda:90, verified, and run on embeddings of the README's bytes, the recurrence in
chunks and step by step; the fresh one is trained for a few steps. A short tuning ends it.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.mixer import Recurrence
from .memory import in_chunks, memory_spec, step_by_step

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from torch import Tensor

    from ..autotune.checking.checking import Case
    from ..backends.triton.binary_report import KernelReport
    from ..ir.mixer import Mixer
    from ..runtime.backends import Chosen
    from ..runtime.lowering import Lowering

TEXT_BYTES = 1000  # no block divides it
TRAINING_LIMIT = 1e-3  # how far losses may be apart after a few steps in float32
HEADS, GROUPS, CHANNELS = 4, 2, 64
CASES, CASES_OF_ROWS = 5, 2  # the interpreter takes its time with recurrences
TARGET = "cuda:90"
TUNED, TRIALS, TUNED_LENGTH = "alibi_window", 4, 2048


@dataclass(frozen=True)
class Outcome:
    """What came of one spec; ``backend`` ran the text.

    ``by_steps`` is, for a recurrence, how far chunks and single steps are apart on the text.
    """

    mixer: Mixer
    found: Lowering
    reports: list[KernelReport]
    cases: list[Case]
    text_error: float
    text_limit: float
    backend: Chosen
    by_steps: float | None = None

    @property
    def ok(self) -> bool:
        """Whether everything that was tried was right."""
        compiled = not any(report.error for report in self.reports)
        right = max(self.text_error, self.by_steps or 0.0) <= self.text_limit
        return compiled and right and all(case.ok for case in self.cases)


def main() -> None:
    """Run the demo; exit code 1 where a kernel was wrong."""
    from ..show.written import console

    started, out = time.monotonic(), console()
    with tempfile.TemporaryDirectory() as folder:
        mine, memory = new_spec(Path(folder)), memory_spec(Path(folder))
        specs: dict[str, dict[str, int]] = {"alibi_window": {"window": 300}}
        specs |= {str(path): {} for path in (mine, memory)}
        outcomes = [try_spec(spec, params, out) for spec, params in specs.items()]
        learned = train_briefly(mine, out)
    tune_briefly(out)
    heading(out, "Summary")
    write(out, outcomes)
    out.print(
        f"{time.monotonic() - started:.0f} s. Next: mixc --help, and the README's first spec."
    )
    raise SystemExit(0 if learned and all(outcome.ok for outcome in outcomes) else 1)


def train_briefly(path: Path, out: Console) -> bool:
    """Some steps of a byte model through a spec's kernels, forward and backward; whether it learns.

    Every step is also a check: the loss through the reference, from the same start, is the same.
    """
    from .training import LENGTH, STEPS, losses

    heading(out, f"Training a model of bytes through {path.stem}: {STEPS} steps")
    backend = calling_backend()
    found = losses(path, real_text(), backend)
    plain = losses(path, real_text(), "reference")
    apart = max(abs(a - b) for a, b in zip(found, plain, strict=True))
    out.print(
        f"loss {found[0]:.3f} -> {found[-1]:.3f} nats per byte, {LENGTH} at once, by {backend}"
        f"; the same training by plain torch differs by {apart:.1e} at most"
    )
    return found[-1] < found[0] and apart < TRAINING_LIMIT


def tune_briefly(out: Console) -> None:
    """A few trials of a spec's kernels on this machine; what wins is used by the next call."""
    from ..backends.cpu.build import find_compiler
    from ..commands.tune_answer import write
    from ..commands.tune_spec import measured
    from ..compiler.language.find import find_spec
    from ..compiler.language.load import load_file
    from ..ir.errors import UnsupportedError

    heading(out, f"mixc tune {TUNED} --trials {TRIALS} --size T={TUNED_LENGTH}")
    try:
        find_compiler()
    except UnsupportedError as error:
        out.print(f"no tuning: {error}")
        return
    mixer = load_file(find_spec(TUNED))
    tuned = measured(mixer, TRIALS, {"T": TUNED_LENGTH})
    write(out, mixer, tuned)


def new_spec(folder: Path) -> Path:
    """What ``mixc new my_mixer`` writes."""
    from ..commands.new_spec import STARTER

    path = folder / "my_mixer.yaml"
    path.write_text(STARTER.format(name=path.stem), encoding="utf-8")
    return path


def heading(out: Console, title: str) -> None:
    """A line across the terminal."""
    out.rule(f"[bold]{title}", align="left")


def try_spec(spec: str, params: dict[str, int], out: Console) -> Outcome:
    """Show, compile, verify and run one spec, printing each step."""
    from ..commands import compile_spec, verify_table
    from ..compiler.language.find import find_spec
    from ..compiler.language.load import load_file
    from ..runtime import compiling
    from ..runtime.lowering import lowering
    from ..runtime.overrides import override
    from ..show.mask_picture import pictures
    from ..show.written import write
    from ..verifying.verification import verify_mixer

    mixer = override(load_file(find_spec(spec)), params)
    found = lowering(mixer)
    heading(out, f"mixc show {mixer.name}")
    write(out, mixer, found, pictures(mixer))
    heading(out, f"mixc compile {mixer.name} --target {TARGET}")
    sizes = dict.fromkeys(("D", "E"), CHANNELS)
    reports = compiling.report(compiling.generate(mixer, sizes, "bfloat16", [TARGET]), [TARGET])
    compile_spec.write(out, reports)
    limit = CASES_OF_ROWS if is_recurrent(mixer) else CASES
    backend = calling_backend()
    checked: Chosen = "triton" if backend == "triton" else "interpreter"
    heading(out, f"mixc verify {mixer.name} --backend {checked} --cases {limit}")
    cases = verify_mixer(mixer, (checked,), ("float32",), limit=limit)
    verify_table.write_all(out, [(mixer, cases)])
    on = on_text(mixer, backend)
    if on.by_steps is not None:
        out.print(f"{TEXT_BYTES} bytes in chunks and step by step differ by {on.by_steps:.1e}")
    return Outcome(mixer, found, reports, cases, on.error, on.limit, backend, on.by_steps)


def is_recurrent(mixer: Mixer) -> bool:
    """Whether a mixer has a recurrence."""
    return any(isinstance(stage, Recurrence) for stage in mixer.stages)


def calling_backend() -> Chosen:
    """What a call of a mixer runs by on this machine's fastest device."""
    import torch

    from ..runtime.backends import choose

    return choose("auto", torch.device("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class OnText:
    """The error of the kernels on the text in float32, and the limit it has to keep."""

    error: float
    limit: float
    by_steps: float | None = None


def on_text(mixer: Mixer, backend: Chosen) -> OnText:
    """Run the text by kernels; a recurrence also row by row."""
    import torch

    from ..autotune.checking.tolerances import error_limit, error_of
    from ..backends.reference.evaluate import run

    inputs = embeddings(mixer)
    device = "cuda" if backend == "triton" else "cpu"
    placed = {name: tensor.to(device) for name, tensor in inputs.items()}
    by_steps = None
    with torch.no_grad():
        results = in_chunks(mixer, placed, backend)
        if is_recurrent(mixer) and mixer.path is not None:
            rows = step_by_step(Path(mixer.path), placed, backend)
            by_steps = error_of(results["o"], rows.double())
        exact = run(mixer, inputs)
        plain = run(mixer, inputs, dtype=torch.float32)
    errors = {name: error_of(results[name], exact[name]) for name in exact}
    worst = max(errors, key=errors.__getitem__)
    limit = error_limit(torch.float32, error_of(plain[worst], exact[worst]))
    return OnText(errors[worst], limit, by_steps)


def embeddings(mixer: Mixer) -> dict[str, Tensor]:
    """Queries, keys and values of the first bytes of the README, by tables of random rows."""
    import torch

    from ..ir.binding import shape_of

    text = torch.tensor(list(real_text()[:TEXT_BYTES]))
    generator = torch.Generator().manual_seed(0)
    sizes = {"B": 1, "H": HEADS, "G": GROUPS, "D": CHANNELS, "E": CHANNELS}
    sizes |= dict.fromkeys(("I", "J", "T"), len(text))
    tensors = {}
    for given in mixer.inputs:
        shape = shape_of(given.layout, sizes)
        if {"I", "J", "T"} & set(given.dims):
            table = torch.randn(256, shape[1], *shape[3:], generator=generator)
            tensors[given.name] = table[text].transpose(0, 1).unsqueeze(0)
        else:
            tensors[given.name] = torch.rand(shape, generator=generator)
    return tensors


def real_text() -> bytes:
    """The README, which lies beside the package in a checkout and in its metadata elsewhere."""
    readme = Path(__file__).resolve().parents[2] / "README.md"
    if readme.exists():
        return readme.read_bytes()
    return str(metadata("mixc")["Description"]).encode()


def write(out: Console, outcomes: list[Outcome]) -> None:
    """The table: spec, what was derived, kernels, worst error, registers and spills."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("spec", "derived", "kernels", "worst error", "reg.", "spills"):
        table.add_column(title, no_wrap=title != "derived", overflow="fold")
    for one in outcomes:
        ranges = [line.strip() for stage in one.found.ranges for line in stage.lines]
        ranges += forms_of(one.mixer)
        steps = [] if one.by_steps is None else [("steps", one.by_steps, one.text_limit)]
        worst = max(one.cases, key=lambda case: case.error / case.limit)
        table.add_row(
            one.mixer.name,
            Text("\n".join((*ranges, *(finding.split(":")[0] for finding in one.found.findings)))),
            Text("\n".join(kernel.name for kernel in one.found.kernels)),
            Text("\n").join(
                compared(what, error, limit)
                for what, error, limit in (
                    ("cases", worst.error, worst.limit),
                    ("text ", one.text_error, one.text_limit),
                    *steps,
                )
            ),
            "\n".join(str(report.registers) for report in one.reports),
            "\n".join(str(report.spilled_bytes) for report in one.reports),
            end_section=True,
        )
    out.print(table)
    verified, called = outcomes[0].cases[0].backend, outcomes[0].backend
    out.print(
        f"Errors: against float64, relative to the largest value, in float32: the worst of the "
        f"cases by {verified}, and on {TEXT_BYTES} bytes of the README by {called} (steps: between "
        "chunks and single steps). Registers and spilled bytes per thread: the "
        f"{TARGET} binaries in bfloat16."
    )


def forms_of(mixer: Mixer) -> list[str]:
    """How the states of recurrences are computed, in words."""
    from ..show.description import describe

    sections = (section for section in describe(mixer) if section.title.startswith("form of "))
    lines = (line.name for section in sections for line in section.lines)
    return [line for line in lines if not line.startswith(" ")]


def compared(what: str, error: float, limit: float) -> Text:
    """``text 2.9e-07 < 2.4e-06``, green or red."""
    from rich.text import Text

    good = error <= limit
    relation = "<" if good else ">"
    return Text(f"{what} {error:.1e} {relation} {limit:.1e}", style="green" if good else "red")


if __name__ == "__main__":
    main()
