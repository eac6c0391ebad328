"""``mixc doctor``: what this machine has for running and compiling kernels."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import click

from .options import answer, json_option

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for: found or not, and where it is not, what to do."""

    name: str
    ok: bool
    found: str
    advice: str = ""
    needed: bool = True  # False: mixc works without it, with less


@click.command("doctor")
@json_option
def command(as_json: bool) -> None:
    """What this machine has for kernels, and what to do about what it lacks."""
    findings = list(examine())
    good = all(finding.ok for finding in findings if finding.needed)
    data = {"ok": good, "findings": [asdict(finding) for finding in findings]}
    answer(data, as_json, lambda console: write(console, findings))
    if not good:
        click.get_current_context().exit(1)


def examine() -> Iterator[Finding]:
    """Every finding, the needed ones first."""
    yield python_version()
    yield package("torch", (2, 11))
    yield package("triton", (3, 6))
    yield guarded("interpreter", interpreter, "Reinstall triton; kernels can't be run on the CPU.")
    yield guarded("NVIDIA assembler", ptxas, "Reinstall triton; cuda targets can't be compiled.")
    with suppress(Exception):  # said by the line above
        yield hopper()
    yield guarded("AMD compiler", amd_compiler, "Reinstall triton; hip targets can't be compiled.")
    yield cpp_compiler()
    with suppress(Exception):  # said by the line above
        yield vectors()
    yield guarded("GPU", gpus, "None: kernels run in Triton's interpreter.", needed=False)


def python_version() -> Finding:
    """Python itself; older ones than 3.11 can't even install mixc."""
    return Finding("Python", True, platform.python_version())


def package(name: str, least: tuple[int, int]) -> Finding:
    """An installed package, at least at a version."""
    wanted = ".".join(map(str, least))
    advice = f"Install {name} >= {wanted}: pip install -e . -c constraints.txt"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, False, "not installed", advice)
    new_enough = tuple(int(part) for part in found.split(".")[:2]) >= least
    return Finding(name, new_enough, found, "" if new_enough else advice)


def guarded(name: str, look: Callable[[], str], advice: str, needed: bool = True) -> Finding:
    """What ``look`` finds; whatever it raises, or an empty answer, counts as nothing found."""
    try:
        found = look()
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}", advice, needed)
    return Finding(name, bool(found), found or "none", "" if found else advice, needed)


def interpreter() -> str:
    """Triton's interpreter, which runs kernels on a CPU."""
    from triton.runtime.interpreter import InterpretedFunction

    return "triton's" if InterpretedFunction else ""


def ptxas() -> str:
    """The assembler that triton takes, with its version."""
    from ..backends.triton.assembler import assembler

    found = assembler()
    return f"ptxas {'.'.join(map(str, found.version))}, {found.path}"


def hopper() -> Finding:
    """Whether that assembler is known to be right for Hopper GPUs; it matters where one is."""
    from ..backends.triton.assembler import assembler

    concern = assembler().concern("cuda:90")
    found = "its assembler is new enough" if concern is None else "its assembler has a known fault"
    return Finding("Hopper (cuda:90)", concern is None, found, concern or "", needed=False)


def amd_compiler() -> str:
    """LLVM for AMD, which is part of triton's own library."""
    from triton._C import libtriton

    return "LLVM in triton" if hasattr(libtriton, "amd") else ""


def cpp_compiler() -> Finding:
    """The system's C or C++ compiler: triton builds its launcher with it on a GPU machine."""
    for name in ("c++", "g++", "clang++", "cc", "gcc", "clang"):
        if (path := shutil.which(name)) is not None:
            return Finding("C++ compiler", True, path, needed=False)
    advice = "Install g++ or clang: triton builds its launcher with it on a machine with a GPU."
    return Finding("C++ compiler", False, "none", advice, needed=False)


def vectors() -> Finding:
    """What kernels for this CPU use of it."""
    from ..backends.cpu.build import find_compiler
    from ..backends.cpu.target import has_tiles

    target = find_compiler().target
    products = "like those of float32"
    if target.paired_dot:
        products = "by tiles of registers (AMX)" if target.tile_dot else "two at a time"
    found = f"{target.name}: {target.lanes} numbers at once, products of bfloat16 {products}"
    refused = has_tiles(target.macros) and not target.tile_dot
    advice = "Linux refuses this process tiles of registers (AMX): from 5.16 on it grants them."
    return Finding("CPU", not refused, found, advice if refused else "", needed=False)


def gpus() -> str:
    """The devices that torch sees."""
    import torch

    if not torch.cuda.is_available():
        return ""
    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(device) for device in range(count))


def write(console: Console, findings: list[Finding]) -> None:
    """One line per finding, advice below those that need some."""
    for finding in findings:
        state = (
            "[green]ok[/]  " if finding.ok else "[red]no[/]  " if finding.needed else "[dim]--[/]  "
        )
        console.print(f"{state}{finding.name}: {finding.found}")
        if finding.advice:
            console.print(f"      {finding.advice}")
