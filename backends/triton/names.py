"""Names of the spec that emitted code needs for itself."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from ...ir.mixer import Mixer
from ...ir.plan import Plan

# Modules that emitted code imports, its own variables, and the builtins that it calls.
_TAKEN = frozenset("tl triton torch math program programs range float min max abs round".split())
T = TypeVar("T")


def plain_name(name: str) -> str:
    """``tl`` --> ``tl_``; a name that emitted code leaves free stays as it is."""
    return f"{name}_" if name in _TAKEN else name


def with_plain_names(plan: Plan) -> Plan:
    """The plan with names that its module can have."""
    named = [plan.mixer.name, *(name for name, _ in plan.params), *(b.name for b in plan.buffers)]
    named += [p.name for p in plan.mixer.params]
    if not _TAKEN & set(named):
        return plan
    return replace(
        plan,
        mixer=_renamed(plan.mixer),
        kernels=tuple(replace(k, program=_renamed(k.program)) for k in plan.kernels),
        buffers=tuple(_renamed(b) for b in plan.buffers),
        params=tuple((plain_name(name), value) for name, value in plan.params),
    )


def function_name(mixer: Mixer) -> str:
    """What the host function of a mixer is called."""
    return plain_name(mixer.name)


def _renamed(node: T) -> T:
    """A node of the IR with every name in it plain."""
    if isinstance(node, tuple):
        return tuple(_renamed(n) for n in node)  # type: ignore[return-value]
    if not is_dataclass(node) or isinstance(node, type):
        return node
    changed: dict[str, Any] = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if field.name in ("name", "buffer") and isinstance(value, str):
            changed[field.name] = plain_name(value)
        elif isinstance(value, tuple) or is_dataclass(value):
            changed[field.name] = _renamed(value)
    return replace(node, **changed)
