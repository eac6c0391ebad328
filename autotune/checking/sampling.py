"""Trials of a mixer, and the random tensors for each, derived from its equations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...ir.binding import Number, bind_sizes, param_values, shape_of
from ...ir.errors import ArgumentError
from ...ir.expression import Kind, Literal, Ref
from ...ir.mixer import Attention, Input, Map, Mixer, Recurrence
from ...ir.names import names_in
from ...ir.rewriting import walk
from .drawing import draw_tensor
from .draws import Draw, draws
from .garbage import has_garbage
from .integer_ranges import Range, integer_ranges
from .proportions import (
    PROPORTIONS,
    STRETCHES,
    STRONG_GATES,
    default_sizes,
    resized,
    unrelated_keys,
)

# How often a boolean that resets a state is true.
_SELDOM = 0.1


@dataclass(frozen=True, slots=True)
class VerificationCase:
    """One trial of a mixer: sizes, params beside the caller's, and how its tensors are made."""

    name: str
    sizes: Mapping[str, int]
    params: Mapping[str, Number] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    strided: bool = False
    scale: float = 1.0
    nothing: bool = False
    strong: bool = False
    garbage: bool = False
    seed: int = 0


def verification_cases(
    mixer: Mixer, params: Mapping[str, Number] = {}, limit: int | None = None
) -> list[VerificationCase]:
    """What to verify a mixer at, most telling first; ``limit`` keeps that many.

    Sizes by role; inputs that may be absent absent; flags turned; windows and blocks that are
    larger than the lengths made smaller; views with strides; large scores; keys and values that
    are not finite, where a mask hides some; the spec's ``check``;
    with a recurrence, strong gates and lengths around those of chunks, 0 among them. A trial that
    the spec does not admit is left out, but the first.
    """
    usual = {**smaller(mixer, params), **params}
    standard = default_sizes(mixer, params=usual)
    cases = [
        VerificationCase("standard", default_sizes(mixer, params=params), params),
        VerificationCase("strided", standard, usual, strided=True, seed=1),
    ]
    for name in PROPORTIONS:
        if name == "standard" or ("group" in name and not mixer.heads):
            continue
        sizes = default_sizes(mixer, name, usual)
        cases.append(VerificationCase(name, sizes, usual, seed=len(cases)))
    if _first_of_score(mixer) is not None:
        cases.append(VerificationCase("large scores", standard, usual, scale=30.0, seed=len(cases)))
    if has_garbage(mixer):
        sizes = default_sizes(mixer, "several blocks", usual)
        cases.append(VerificationCase("garbage", sizes, usual, garbage=True, seed=len(cases)))
    cases += _recurrent_cases(mixer, usual)
    optional = frozenset(i.name for i in mixer.inputs if i.default is not None)
    if optional:
        cases.append(VerificationCase("absent inputs", standard, usual, optional, seed=4))
    for param in mixer.params:
        if param.flag and param.name not in params:
            turned = {**usual, param.name: not param_values(mixer, standard, params)[param.name]}
            sizes = default_sizes(mixer, params=turned)
            cases.append(VerificationCase(f"{param.name} turned", sizes, turned, seed=5))
    if any(i.kind is not Kind.REAL for i in mixer.inputs):
        cases.append(VerificationCase("nothing kept", standard, usual, nothing=True, seed=8))
    for dim in unrelated_keys(mixer):
        sizes = resized(mixer, standard, {dim: 0}, usual)
        cases.append(VerificationCase(f"no {dim}", sizes, usual, seed=6))
    if mixer.check:
        sizes = resized(mixer, standard, dict(mixer.check), params)
        cases.insert(1, VerificationCase("check", sizes, params, seed=7))
    admitted = [c for c in cases if c is cases[0] or is_admitted(mixer, c)]
    return admitted[:limit]


def _recurrent_cases(mixer: Mixer, params: Mapping[str, Number]) -> Iterator[VerificationCase]:
    """Extreme gates, where there are gates, and lengths that chunks tend to be wrong at."""
    if not any(isinstance(stage, Recurrence) for stage in mixer.stages):
        return
    sizes = default_sizes(mixer, STRONG_GATES, params)
    gated = any(d.rows for d in draws(mixer, sizes, param_values(mixer, sizes, params)).values())
    if gated:
        yield VerificationCase("strong gates", sizes, params, strong=True, seed=9)
    for name, proportions in STRETCHES.items():
        yield VerificationCase(name, default_sizes(mixer, proportions, params), params, seed=10)


def smaller(
    mixer: Mixer,
    params: Mapping[str, Number] = {},
    largest: int = 32,
    meaningful: int = 4096,
) -> dict[str, Number]:
    """Windows, blocks and the like, but those of ``params``, below the lengths that are tried.

    All are divided by one power of two, so that those that divide each other still do.
    """
    given = {
        p.name: p.value.value
        for p in mixer.params
        if p.kind is Kind.INT and isinstance(p.value, Literal)
    }
    large = [v for v in given.values() if largest < v <= meaningful]
    if not large:
        return {}
    factor = 2 ** math.ceil(math.log2(max(large) / largest))
    return {
        name: max(1, int(value) // factor)
        for name, value in given.items()
        if 1 < value <= meaningful and name not in params
    }


def is_admitted(mixer: Mixer, case: VerificationCase) -> bool:
    """Whether the spec takes tensors of a trial's sizes."""
    given = [i for i in mixer.inputs if i.name not in case.absent]
    try:
        shapes = {i.name: shape_of(i.layout, case.sizes) for i in given}
        bind_sizes(mixer, shapes, case.params)
    except (ArgumentError, KeyError):
        return False
    return all(size >= 0 for size in case.sizes.values())


def sample_inputs(
    mixer: Mixer,
    sizes: Mapping[str, int],
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    device: str | torch.device = "cpu",
    *,
    absent: Iterable[str] = (),
    strided: bool = False,
    scale: float = 1.0,
    nothing: bool = False,
    strong: bool = False,
    params: Mapping[str, Number] = {},
) -> dict[str, Tensor]:
    """Random inputs at ``sizes``.

    Real ones are normal, ``scale`` times larger in the first input of a score; those of a
    recurrence are such that its states keep a sensible size (see ``draws``), its gates extreme for
    long stretches with ``strong``; what the spec says of an input's values holds. Booleans are
    fair coins (that reset a state: seldom true), the first of all false; integers lie where the
    equations use them, with some outside a table where they read one, and are sorted where
    declared so. ``absent`` names inputs to leave
    out. With ``strided`` all are views, no two axes of which lie together in memory. With
    ``nothing`` all booleans are false and all integers as low as they go: masks that depend on
    them tend to hide everything.
    """
    generator = torch.Generator().manual_seed(seed)
    ranges = integer_ranges(mixer, sizes, params)
    scaled = _first_of_score(mixer)
    laws = draws(mixer, sizes, param_values(mixer, sizes, params))
    resets = _resets(mixer)
    made = {}
    for declared in mixer.inputs:
        shape = shape_of(declared.layout, sizes)
        if declared.kind is Kind.REAL:
            law = laws.get(declared.name, Draw())
            tensor = draw_tensor(law, declared, sizes, generator, strong)
            own = getattr(torch, declared.dtype) if declared.dtype else dtype
            promised = declared.range is not None or declared.unit is not None
            larger = declared.name == scaled and not promised
            tensor = (tensor * scale if larger else tensor).to(own)
        else:
            share = _SELDOM if declared.name in resets else 0.5
            tensor = _integers(declared, shape, ranges.get(declared.name), generator, share)
            if nothing:
                tensor.fill_(ranges[declared.name].low if declared.name in ranges else 0)
        tensor = tensor.to(device)
        if declared.name not in set(absent):
            made[declared.name] = as_strided_view(tensor) if strided else tensor
    return made


def _resets(mixer: Mixer) -> set[str]:
    """The names that a reset mentions."""
    conditions = [s.reset for s in mixer.stages if isinstance(s, Recurrence) and s.reset]
    return {*names_in(*conditions)}


def _integers(
    declared: Input,
    shape: tuple[int, ...],
    within: Range | None,
    generator: torch.Generator,
    share: float,
) -> Tensor:
    if declared.kind is Kind.BOOL:
        coins = torch.rand(shape, generator=generator) < share
        coins.view(-1)[:1] = False  # the first query of a causal mask, then, may see nothing
        return coins
    assert within is not None
    tensor = torch.randint(within.low, max(within.high, within.low + 1), shape, generator=generator)
    if within.outside:
        stray = torch.rand(shape, generator=generator)
        tensor = torch.where(stray < 0.04, -1, torch.where(stray > 0.96, within.high, tensor))
    if declared.sorted and tensor.ndim:
        tensor = tensor.sort(-1).values
    return tensor.to(getattr(torch, declared.dtype or "int64"))


def _first_of_score(mixer: Mixer) -> str | None:
    """The first real input of the first score, or of what maps make for it: what makes its scores
    large."""
    maps = (e for s in mixer.stages if isinstance(s, Map) for e in s.equations)
    lets = {e.name: e.value for e in (*mixer.lets, *maps)}
    reals = {i.name for i in mixer.inputs if i.kind is Kind.REAL}
    pending = [s.score for s in mixer.stages if isinstance(s, Attention)]
    seen = set[str]()
    while pending:
        for node in walk(pending.pop(0)):
            if isinstance(node, Ref) and node.name in reals:
                return node.name
            if isinstance(node, Ref) and node.name in lets and node.name not in seen:
                seen.add(node.name)
                pending.insert(0, lets[node.name])
    return None


def as_strided_view(tensor: Tensor) -> Tensor:
    """An equal tensor that is a view into a larger one, its axes in reverse order in memory."""
    backwards = tensor.permute(tuple(range(tensor.ndim))[::-1])
    room = tensor.new_zeros([n + 1 for n in backwards.shape])
    inside = room[tuple(slice(0, n) for n in backwards.shape)]
    inside.copy_(backwards)
    return inside.permute(tuple(range(tensor.ndim))[::-1])


__all__ = [
    "PROPORTIONS",
    "VerificationCase",
    "as_strided_view",
    "default_sizes",
    "sample_inputs",
    "verification_cases",
]
