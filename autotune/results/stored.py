"""Tuned results: one small YAML file each, written whole, found again by the next call.

Look-up falls back: exact, same architecture, nearest sizes, default. A user's own results come
before those that come with mixc.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from ...ir.knob import Configuration
from ...ir.mixer import Mixer
from ...ir.text import write_mixer
from ..checking.shapes import feature_sizes, length_buckets
from .devices import Device
from .folders import data_folder, result_folders, write_whole
from .result import Key, Result

# A configuration --> the name at fault in it and what is wrong; None where kernels admit it.
Fault = Callable[[Configuration], tuple[str, str] | None]
How = Literal["exact", "same architecture", "nearest", "default"]
# Octaves that a size may be away from the one that a result was tuned for.
FAR = 2.0
_logger = logging.getLogger("mixc.tuned")


def spec_hash(mixer: Mixer) -> str:
    """A hash of what a mixer computes: its equations and params, not what is said about it."""
    inputs = tuple(replace(entry, held=None) for entry in mixer.inputs)
    bare = replace(
        mixer, inputs=inputs, about="", source="", text="", tiling=(), check=(), bench=()
    )
    return hashlib.sha256(write_mixer(bare).encode()).hexdigest()


def key_of(mixer: Mixer, sizes: Mapping[str, int], dtype: str, device: Device) -> Key:
    """The key of results for a mixer at these sizes."""
    features, lengths = feature_sizes(mixer, sizes), length_buckets(mixer, sizes)
    return Key(mixer.name, spec_hash(mixer), dtype, features, lengths, device)


def path_of(result: Result, folder: Path) -> Path:
    """Where a folder has a result."""
    return folder / result.key.device.slug / f"{result.key.stem}.yaml"


def save(result: Result, folder: Path | None = None) -> Path:
    """Write a result into the user's folder, or another one, in place of one with its key."""
    import yaml

    path = path_of(result, folder or data_folder() / "tuned")
    text = yaml.safe_dump(result.as_dict(), sort_keys=False, default_flow_style=None, width=100)
    write_whole(path, text)
    return path


def stored_results(
    folders: Iterable[Path] | None = None, pattern: str = "*"
) -> Iterator[tuple[Path, Result]]:
    """Every result that is stored, the user's own first; a file that is none is said and left."""
    for folder in result_folders() if folders is None else folders:
        for path in sorted(folder.glob(f"*/{pattern}.yaml")):
            result = _read(path)
            if result is not None:
                yield path, result


def _read(path: Path) -> Result | None:
    from .validation import ResultFault, read_result

    try:
        return read_result(path)
    except ResultFault as fault:
        _leave_out(f"{path}:{fault.line}", str(fault))
    return None


def _leave_out(where: str, why: str) -> None:
    say_once(Remark(where, f"{where} is left out: {why}"))


def _line_of(path: Path, name: str) -> int:
    """The line of a file that a name stands in; the first where none does."""
    lines = path.read_text(encoding="utf-8").splitlines()
    own = (n for n, line in enumerate(lines, 1) if re.search(rf"\b{re.escape(name)}:", line))
    return next(own, 1)


@dataclass(frozen=True, slots=True)
class Found:
    """What a look-up gives; without a ``result`` the default configuration is to be taken."""

    how: How
    result: Result | None = None

    @property
    def configuration(self) -> Mapping[str, int]:
        """The knobs to set; those left out have their defaults."""
        return {} if self.result is None else self.result.configuration

    def sentence(self, key: Key) -> str:
        """What a fallback takes, and what would do better."""
        wanted = f"{key.spec} ({key.dtype}, {_listed(key)}) on {key.device.name}"
        if self.result is None:
            from ...compiler.mixers.derivative.differentiate import BACKWARD

            spec = key.spec.removesuffix(BACKWARD)
            command = f"mixc tune {spec}{' --grad' if spec != key.spec else ''}"
            return f"{wanted} is not tuned: default configuration; `{command}` finds one"
        own = self.result.key
        return (
            f"{wanted} is not tuned: taking the configuration for {_listed(own)} on "
            f"{own.device.name} ({self.how})"
        )


def look_up(
    key: Key,
    fault: Fault = lambda _: None,
    folders: Iterable[Path] | None = None,
    for_search: bool = False,
) -> Found:
    """The stored configuration that fits a key best, of those that the kernels admit.

    ``fault`` names what is wrong with a configuration and why. One that is for this very key is
    said; what fits other sizes may well not fit these. A search may start with what no call runs
    with: with results for far sizes, and last, modelled ones, which no device has verified.
    """
    safe = re.sub(r"[^\w]", "?", key.spec)
    pattern = f"{safe}-{key.hash[:8]}-{key.dtype}*"
    found: tuple[tuple[float, ...], Result] | None = None
    for path, result in stored_results(folders, pattern):
        rank = _distance(key, result, math.inf if for_search else FAR)
        if result.modelled and not for_search:
            continue
        if rank is None or (found is not None and rank >= found[0]):
            continue
        wrong = fault(result.configuration)
        if wrong is None:
            found = (rank, result)
        elif _how(rank) == "exact":
            _leave_out(f"{path}:{_line_of(path, wrong[0])}", wrong[1])
    if found is None:
        return Found("default")
    return Found(_how(found[0]), found[1])


def _how(rank: tuple[float, ...]) -> How:
    *sizes, device = rank
    if any(sizes):
        return "nearest"
    return "same architecture" if device else "exact"


def _distance(key: Key, result: Result, far: float) -> tuple[float, ...] | None:
    """How far a result is from a key: model, features, lengths, device; None: of no use."""
    own = result.key
    if (own.hash, own.dtype) != (key.hash, key.dtype):
        return None
    if own.device.architecture != key.device.architecture:
        return None
    pairs = ((key.features, own.features), (key.lengths, own.lengths))
    features, lengths = (octaves_apart(wanted, there, far) for wanted, there in pairs)
    if math.isinf(features + lengths):
        return None
    return float(result.modelled), features, lengths, float(own.device.name != key.device.name)


def octaves_apart(a: Mapping[str, int], b: Mapping[str, int], far: float) -> float:
    """Octaves between sizes, summed; infinite where dims differ, or one of them is too far."""
    if set(a) != set(b):
        return math.inf
    octaves = [abs(math.log2(max(a[dim], 1) / max(b[dim], 1))) for dim in a]
    return math.inf if max(octaves, default=0.0) > far else sum(octaves)


def _listed(key: Key) -> str:
    return " ".join(f"{d}={n}" for d, n in (*key.features.items(), *key.lengths.items()))


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to say of a topic."""

    topic: str
    sentence: str = field(compare=False)


@lru_cache(maxsize=1024)
def say_once(remark: Remark) -> None:
    """Log a warning, if this process has not said one of the same topic before."""
    _logger.warning("%s", remark.sentence)
