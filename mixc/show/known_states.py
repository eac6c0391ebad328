"""The states of specs, found once for a version of the compiler and kept in the cache folder."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from hashlib import sha256
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from ..backends.cache import cache_folder, put
from .systems import State, find_state

if TYPE_CHECKING:
    from collections.abc import Sequence


def states_of(paths: Sequence[Path]) -> list[State]:
    """The state of each spec; those that are not known yet are found on all cores."""
    stamp = _stamp()
    places = [_place(path, stamp) for path in paths]
    unknown = [n for n, place in enumerate(places) if not place.exists()]
    if unknown:
        workers = min(len(os.sched_getaffinity(0)), len(unknown))
        # Not forked: torch may have threads by now.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            found = pool.map(find_state, [paths[n] for n in unknown], chunksize=4)
            for n, state in zip(unknown, found, strict=True):
                _keep(places[n], state)
    return [State(**json.loads(place.read_text())) for place in places]


def _keep(place: Path, state: State) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    made = place.with_suffix(f".{os.getpid()}")
    made.write_text(json.dumps(asdict(state)))
    put(made, place)


def _place(path: Path, stamp: str) -> Path:
    key = sha256(stamp.encode() + path.read_bytes()).hexdigest()[:16]
    return cache_folder() / "systems" / f"{key}.json"


def _stamp() -> str:
    """What changes whenever a file of the compiler does: name, size and time of each."""
    package = __name__.partition(".")[0]
    roots = [Path(str(files(f"{package}.{part}"))) for part in ("ir", "compiler")]
    found = sorted(path for root in roots for path in root.rglob("*.py"))
    marks = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found]
    return str([*marks, Path(find_state.__code__.co_filename).stat().st_mtime_ns])


__all__ = ["states_of"]
