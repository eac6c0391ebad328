"""A tuned result, and what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .devices import Device


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


def result_of(data: Mapping[str, Any]) -> Result:
    """The result that ``as_dict`` made ``data`` of; ``validation`` is for what others wrote."""
    where = data["device"]
    device = Device(where["kind"], where["architecture"], where["name"])
    named = {f.name: data[f.name] for f in fields(Key) if f.name != "device"}
    rest = {f.name: data[f.name] for f in fields(Result) if f.name in data}
    return Result(Key(**named, device=device), **rest)
