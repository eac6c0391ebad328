"""Names of a spec that emitted code has a use of its own for get an underscore."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from ..ir.plan import Plan

# Strings of the IR that are no names of the spec: prose, functions and settings.
_OTHER = frozenset(
    "about reason schedule findings text texts source path launch tiling fn op side role".split()
)


def with_plain_names(plan: Plan, taken: Collection[str]) -> Plan:
    """The plan with names that emitted code can have, whose own words are ``taken``.

    ``for`` --> ``for_``, wherever it stands; names that are free stay as they are.
    """
    names = plain_names(plan, taken)
    renamed: Plan = _renamed(plan, names) if names else plan
    return renamed


def plain_names(plan: Plan, taken: Collection[str]) -> dict[str, str]:
    """The names of a plan that can't stay, and what they become."""
    own = set(_names(plan))
    barred = {*taken, *_made_of_names(plan)}
    used = own | barred
    names: dict[str, str] = {}
    for name in sorted(own):
        if name in barred or "__" in name or name.startswith("_"):
            plain = re.sub("_+", "_", name).strip("_") or "name"
            while plain in used:
                plain += "_" if not plain.endswith("_") else "2_"
            used.add(plain)
            names[name] = plain
    blocks = {f"BLOCK_{name}": f"BLOCK_{plain}" for name, plain in names.items()}
    return {**blocks, **names}


def _names(plan: Plan) -> Iterator[str]:
    """Every name that emitted code takes over from a plan."""
    mixer = plan.mixer
    yield mixer.name
    yield from (entry.name for entry in mixer.inputs)
    yield from (entry.name for entry in mixer.params)
    yield from (entry.name for entry in mixer.tables)
    yield from (dim for entry in mixer.inputs for dim in entry.dims)
    yield from (name for name, _ in (*plan.params, *plan.sizes, *plan.own_sizes.items()))
    for buffer in plan.buffers:
        yield from (buffer.name, *buffer.dims)
    for kernel in plan.kernels:
        yield kernel.program.name
        yield from (tile.dim for tile in kernel.program.tiles)


def _made_of_names(plan: Plan) -> Iterator[str]:
    """Names that emitted code puts together from those of a plan, and that mean other things."""
    yield f"mixc_{plan.mixer.name}"
    for buffer in plan.buffers:
        yield from (f"{buffer.name}_stride_{dim}" for dim in buffer.dims)
    for kernel in plan.kernels:
        yield f"{kernel.program.name}_kernel"
        for tile in kernel.program.tiles:
            yield from (tile.symbol, f"at_{tile.dim}", f"from_{tile.dim}", f"{tile.dim}_count")
            yield f"{tile.dim.lower()}_offset"


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """A node of the IR with other names in it."""
    match node:
        case str():
            return names.get(node, node)
        case tuple() | frozenset():
            return type(node)(_renamed(n, names) for n in node)
    if not is_dataclass(node) or isinstance(node, type):
        return node
    values: dict[str, Any] = {
        f.name: getattr(node, f.name) for f in fields(node) if f.name not in _OTHER
    }
    return replace(node, **{name: _renamed(value, names) for name, value in values.items()})


__all__ = ["plain_names", "with_plain_names"]
