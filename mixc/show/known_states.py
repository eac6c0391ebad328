"""The states of specs: those of the library as they were released, others found once and kept.

Releasing is ``python -m mixc.show.known_states``, a part of ``make systems``.
"""

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


_MIXC = (__package__ or "").partition(".")[0]
RELEASED = Path(str(files(f"{_MIXC}.specs"))) / "states.json"


def known_states_of(paths: Sequence[Path]) -> list[State]:
    """The state of each spec: as it was released where the text is still that, else found."""
    released = json.loads(RELEASED.read_text())
    known = {path: released[key] for path in paths if (key := _key(path)) in released}
    found = states_of([path for path in paths if path not in known])
    return [State(**known[path]) if path in known else found.pop(0) for path in paths]


def release(paths: Sequence[Path]) -> None:
    """Find the states of specs, and write them as those of the library: a line per spec."""
    states = zip(paths, states_of(paths), strict=True)
    lines = [f"{json.dumps(_key(path))}: {json.dumps(asdict(state))}" for path, state in states]
    RELEASED.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def states_of(paths: Sequence[Path]) -> list[State]:
    """The state of each spec by this compiler, found on all cores; kept in the cache folder."""
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


def _key(path: Path) -> str:
    """A spec of the library and what its text is."""
    return f"{path.stem} {sha256(path.read_bytes()).hexdigest()[:16]}"


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
    roots = [Path(str(files(f"{_MIXC}.{part}"))) for part in ("ir", "compiler")]
    found = sorted(path for root in roots for path in root.rglob("*.py"))
    marks = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in found]
    return str([*marks, Path(find_state.__code__.co_filename).stat().st_mtime_ns])


__all__ = ["RELEASED", "known_states_of", "release", "states_of"]

if __name__ == "__main__":
    from ..compiler.language.find import library

    release(library())
