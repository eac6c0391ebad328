"""What is done with results that are there: those of other machines join, stale ones go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .result import Result
from .stored import path_of, save
from .validation import ResultFault, read_result


def merge(results: Iterable[Result], folder: Path) -> list[Path]:
    """Save results into a folder, each where it is better than what is there; what was written."""
    written = []
    for result in results:
        path = path_of(result, folder)
        there = None
        with suppress(ResultFault):
            there = read_result(path)
        if there is None or _rank(result) < _rank(there):
            written.append(save(result, folder))
    return written


def _rank(result: Result) -> tuple[bool, float]:
    return result.modelled, result.time_us


def stale(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files of a folder that are of no use any more, and why."""
    for path in sorted(folder.glob("*/*.yaml")):
        try:
            why = _outdated(read_result(path))
        except ResultFault as fault:
            why = f"line {fault.line}: {fault}"
        if why is not None:
            yield path, why


def _outdated(result: Result) -> str | None:
    for package, made in result.versions.items():
        try:
            here = version(package)
        except PackageNotFoundError:
            continue  # of another machine: nothing is known
        if here != made:
            return f"tuned with {package} {made}, here is {here}"
    return None
