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
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ...ir.knob import Configuration
from ...ir.mixer import Mixer
from ...ir.text import write_mixer
from ..checking.shapes import feature_sizes, length_buckets
from .devices import Device, Kind
from .folders import data_folder, result_folders, write_whole

# A configuration --> the name at fault in it and what is wrong; None where kernels admit it.
Fault = Callable[[Configuration], tuple[str, str] | None]
How = Literal["exact", "same architecture", "nearest", "default"]
_LARGEST_FILE_BYTES = 64 * 1024
_logger = logging.getLogger("mixc.tuned")


@dataclass(frozen=True, slots=True)
class Key:
    """What a result is for; ``hash`` is that of the equations with their params."""

    spec: str
    hash: str
    dtype: str
    features: Mapping[str, int]
    lengths: Mapping[str, int]
    device: Device

    @property
    def stem(self) -> str:
        """The name of the result's file, without its suffix."""
        sizes = (*self.features.items(), *self.lengths.items())
        listed = "-".join(f"{dim}{size}" for dim, size in sizes)
        return "-".join(filter(None, (self._prefix, listed)))

    @property
    def _prefix(self) -> str:
        return f"{self.spec}-{self.hash[:8]}-{self.dtype}"


@dataclass(frozen=True, slots=True)
class Result:
    """A configuration that was verified and timed, or ``modelled`` where it could not be."""

    key: Key
    configuration: Mapping[str, int]
    time_us: float
    spread_us: float = 0.0
    default_time_us: float | None = None
    error: float | None = None
    limit: float | None = None
    modelled: bool = False
    trials: int = 0
    study: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the file."""
        key = {name: getattr(self.key, name) for name in ("spec", "hash", "dtype")}
        device = {n: getattr(self.key.device, n) for n in ("kind", "architecture", "name")}
        where = {"features": dict(self.key.features), "lengths": dict(self.key.lengths)}
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "key"}
        plain = {n: dict(v) if isinstance(v, Mapping) else v for n, v in rest.items()}
        return {**key, **where, "device": device, **plain}


def result_of(data: Any) -> Result:
    """The result that ``as_dict`` made ``data`` of. Raises ValueError where it is none."""
    try:
        where = data["device"]
        kind: Kind = "cpu" if where["kind"] == "cpu" else "gpu"
        device = Device(kind, str(where["architecture"]), str(where["name"]))
        key = Key(
            str(data["spec"]),
            str(data["hash"]),
            str(data["dtype"]),
            _whole_numbers(data["features"]),
            _whole_numbers(data["lengths"]),
            device,
        )
        known = {f.name for f in fields(Result)} - {"key", "configuration", "time_us"}
        rest = {name: data[name] for name in known if name in data}
        return Result(key, _whole_numbers(data["configuration"]), float(data["time_us"]), **rest)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a tuned result: {error!r}") from error


def _whole_numbers(data: Mapping[str, Any]) -> dict[str, int]:
    for name, value in data.items():
        if type(value) is not int:
            raise ValueError(f"{name}: expected a whole number, got {value!r}")
    return {str(name): value for name, value in data.items()}


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


def save(result: Result, folder: Path | None = None) -> Path:
    """Write a result into the user's folder, or another one, in place of one with its key."""
    import yaml

    root = folder or data_folder() / "tuned"
    path = root / result.key.device.slug / f"{result.key.stem}.yaml"
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
    import yaml

    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise ValueError("too large")
        return result_of(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.MarkedYAMLError as error:
        line = 1 if error.problem_mark is None else error.problem_mark.line + 1
        _leave_out(f"{path}:{line}", error.problem or "no YAML")
    except (OSError, ValueError, yaml.YAMLError) as error:
        _leave_out(str(path), str(error).splitlines()[0])
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
            return f"{wanted} is not tuned: default configuration; `mixc tune {key.spec}` finds one"
        own = self.result.key
        return (
            f"{wanted} is not tuned: taking the configuration for {_listed(own)} on "
            f"{own.device.name} ({self.how})"
        )


def look_up(
    key: Key,
    fault: Fault = lambda _: None,
    folders: Iterable[Path] | None = None,
    modelled: bool = False,
) -> Found:
    """The stored configuration that fits a key best, of those that the kernels admit.

    ``fault`` names what is wrong with a configuration and why. One that is for this very key is
    said; what fits other sizes may well not fit these. Modelled results, which no device has
    verified, are taken with ``modelled`` only, and last.
    """
    safe = re.sub(r"[^\w]", "?", key.spec)
    pattern = f"{safe}-{key.hash[:8]}-{key.dtype}*"
    found: tuple[tuple[float, ...], Result] | None = None
    for path, result in stored_results(folders, pattern):
        rank = None if result.modelled and not modelled else _distance(key, result)
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


def _distance(key: Key, result: Result) -> tuple[float, ...] | None:
    """How far a result is from a key: model, features, lengths, device; None: of no use."""
    own = result.key
    if (own.hash, own.dtype) != (key.hash, key.dtype):
        return None
    if own.device.architecture != key.device.architecture:
        return None
    features, lengths = _apart(key.features, own.features), _apart(key.lengths, own.lengths)
    if math.isinf(features + lengths):
        return None
    return float(result.modelled), features, lengths, float(own.device.name != key.device.name)


def _apart(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    if set(a) != set(b):
        return math.inf
    return sum(abs(math.log2(max(a[dim], 1) / max(b[dim], 1))) for dim in a)


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
