"""What a plan takes in memory: the bytes of its buffers, in the sizes of a call."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod

from .binding import params_in
from .expression import Expr, Literal, Size, call
from .host import evaluate_host
from .mixer import Mixer
from .plan import Buffer, Plan


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes that some buffers take for each position of ``dims``, those of any length.

    Positions of one sequence have its name: ``(B, T, T)`` is as long as the sequence, squared.
    """

    dims: tuple[str, ...]
    bytes: int
    buffers: tuple[str, ...]


def bytes_made(plan: Plan) -> Expr:
    """How large the outputs and temporaries of a call are, all together."""
    return bytes_of(b for b in plan.buffers if b.role in ("output", "temporary"))


def bytes_of(buffers: Iterable[Buffer]) -> Expr:
    """How large some buffers are, in the sizes of their dims."""
    total: Expr = Literal(0)
    for buffer in buffers:
        own: Expr = Literal(buffer.dtype.size_bytes)
        for dim in buffer.dims:
            own = call("mul", own, Size(dim))
        total = call("add", total, own)
    return total


def bytes_beside(plan: Plan, kept: Collection[str], sizes: Mapping[str, int]) -> int:
    """How large, at some sizes, all is that a plan has beside inputs and results, ``kept`` too."""
    own = [b for b in plan.buffers if b.role == "temporary" or b.name in kept]
    return _evaluated(plan, own, sizes)


def bytes_given_and_made(plan: Plan, kept: Collection[str], sizes: Mapping[str, int]) -> int:
    """How large, at some sizes, a plan's inputs and results are, without ``kept``."""
    own = [b for b in plan.buffers if b.role in ("input", "output") and b.name not in kept]
    return _evaluated(plan, own, sizes)


def derived_sizes(mixer: Mixer, sizes: Mapping[str, int]) -> dict[str, int]:
    """Some sizes, and those that follow from them."""
    known = dict(sizes)
    for dim, size in mixer.sizes:
        if dim not in known:
            known[dim] = int(evaluate_host(size, known, params_in(mixer, size, known)))
    return known


def _evaluated(plan: Plan, buffers: Iterable[Buffer], sizes: Mapping[str, int]) -> int:
    known, params = derived_sizes(plan.mixer, {**dict(plan.sizes), **sizes}), dict(plan.params)
    for dim, size in plan.own_sizes.items():
        known[dim] = int(evaluate_host(size, known, params))
    return int(evaluate_host(bytes_of(buffers), known, params))


def shares(plan: Plan, names: Collection[str]) -> tuple[Share, ...]:
    """The bytes of the buffers ``names`` by the dims that they grow with, the most first.

    What is compiled for, the sizes of features, is counted.
    """
    fixed, found = dict(plan.sizes), dict[tuple[str, ...], list[Buffer]]()
    for buffer in (b for b in plan.buffers if b.name in names):
        grows = (plan.mixer.sequence(d) or d for d in buffer.dims if d not in fixed)
        found.setdefault(tuple(sorted(grows)), []).append(buffer)
    made = [
        Share(dims, sum(_position_bytes(b, fixed) for b in own), tuple(b.name for b in own))
        for dims, own in found.items()
    ]
    return tuple(sorted(made, key=lambda share: (-len(share.dims), -share.bytes)))


def _position_bytes(buffer: Buffer, fixed: dict[str, int]) -> int:
    return buffer.dtype.size_bytes * prod(fixed.get(dim, 1) for dim in buffer.dims)


__all__ = [
    "Share",
    "bytes_beside",
    "bytes_given_and_made",
    "bytes_made",
    "bytes_of",
    "derived_sizes",
    "shares",
]
