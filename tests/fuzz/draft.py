"""A spec while it is being made up: what it declares and its stages, as YAML in the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

Axes = frozenset[str]


@dataclass
class Declared:
    """An input: its axes in order, a product's factors joined by ``*``, and what else it says."""

    layout: list[str]
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def dims(self) -> Axes:
        """The axes."""
        return frozenset(dim for axis in self.layout for dim in axis.split("*") if dim != "1")


@dataclass
class Draft:
    """A spec with the sizes to try it at.

    ``sizes`` has every dim that no formula and no sequence gives.
    """

    sizes: dict[str, int]
    inputs: dict[str, Declared] = field(default_factory=dict)
    dims: dict[str, str] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    define: dict[str, str] = field(default_factory=dict)
    let: dict[str, str] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The spec as YAML, its ``check`` the sizes to try."""
        spec: dict[str, Any] = {"mixer": "fuzzed", "inputs": self._inputs()}
        for key in ("dims", "heads", "params", "define", "let"):
            if value := getattr(self, key):
                spec[key] = value
        if len(self.stages) == 1 and not self.stages[0].keys() & {"name", "let"}:
            spec |= self.stages[0]
        else:
            spec["stages"] = self.stages
        spec["outputs"] = self.outputs
        spec["check"] = self.sizes
        return yaml.safe_dump(
            _renamed(spec, self.renamed), sort_keys=False, width=100, default_flow_style=None
        )

    def _inputs(self) -> dict[str, Any]:
        return {
            name: {"dims": d.layout, **d.more} if d.more else d.layout
            for name, d in self.inputs.items()
        }

    def drop_unused(self) -> None:
        """Take out inputs and lets that nothing mentions, and sizes of dims that nothing has."""
        while True:
            rest = _words([self.let, self.stages, self.outputs, self.params])
            lets = {n: v for n, v in self.let.items() if rest[n] > 1}
            inputs = {n: d for n, d in self.inputs.items() if rest[n]}
            if len(lets) == len(self.let) and len(inputs) == len(self.inputs):
                break
            self.let, self.inputs = lets, inputs
        self._drop_dims()

    def _drop_dims(self) -> None:
        used = _words([self._inputs(), self.let, self.stages, self.outputs])
        seen = {dim for dim in {*self.sizes, *self.dims} if used[dim] or used[dim.lower()]}
        seen |= {word for dim in seen & self.dims.keys() for word in _words(self.dims[dim])}
        self.dims = {dim: of for dim, of in self.dims.items() if dim in seen}
        self.heads = {a: b for a, b in self.heads.items() if {a, b} <= seen}
        self.sizes = {dim: n for dim, n in self.sizes.items() if dim in seen}

    def fix_sizes(self) -> None:
        """Declare the sizes of the dims that no input gives."""
        given = {dim for declared in self.inputs.values() for dim in declared.dims}
        given |= {self.dims[dim] for dim in given & self.dims.keys()}
        for dim in sorted(self.sizes.keys() - given):
            self.dims[dim] = str(self.sizes.pop(dim))


_WORD = re.compile(r"(?<![A-Za-z0-9_.])[A-Za-z_][A-Za-z0-9_]*")


class _Count(dict[str, int]):
    def __missing__(self, key: str) -> int:
        return 0


def _words(value: object) -> _Count:
    """How often each word is in a tree of mappings, lists and texts."""
    found = _Count()
    pending = [value]
    while pending:
        match pending.pop():
            case Mapping() as block:
                pending += [*block.keys(), *block.values()]
            case list() | tuple() as items:
                pending += items
            case str() as text:
                for word in _WORD.findall(text):
                    found[word] += 1
    return found


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """The tree with words of the spec's own called otherwise."""
    match value:
        case dict():
            return {_renamed(k, names): _renamed(v, names) for k, v in value.items()}
        case list():
            return [_renamed(item, names) for item in value]
        case str():
            return _WORD.sub(lambda found: names.get(found[0], found[0]), value)
        case _:
            return value
