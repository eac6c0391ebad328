"""Sizes and tensors to try a mixer at: awkward on purpose, and derived from its equations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..ir.binding import Number, bind_sizes, param_values, shape_of
from ..ir.errors import ArgumentError
from ..ir.expression import Expr, Kind, Literal, Read, Reduce, Ref, walk
from ..ir.host import evaluate_host
from ..ir.mixer import Attention, Input, Mixer
from ..ir.optional import expressions
from .integer_ranges import Range, integer_ranges


@dataclass(frozen=True, slots=True)
class Proportions:
    """Sizes by the role that a dim plays; a role with more dims than sizes starts over.

    ``lengths`` go to sequences and key axes, ``features`` to axes that are summed or come from a
    value, ``ratio`` is query heads per key/value head, ``groups`` the number of the latter.
    """

    lengths: tuple[int, ...] = (77, 45, 21)
    features: tuple[int, ...] = (40, 24, 20)
    ratio: int = 3
    groups: int = 2
    batch: tuple[int, ...] = (2, 3)
    table: int = 13


# No length is a multiple of a block, D != E, neither is a power of two; "several blocks" is long
# enough to have blocks without a masked pair, at the usual powers of two.
PROPORTIONS: Mapping[str, Proportions] = {
    "standard": Proportions(),
    "one head per group": Proportions(lengths=(35, 50, 19), ratio=1, batch=(1, 2)),
    "eight heads per group": Proportions(lengths=(19, 35, 50), ratio=8, batch=(1, 2)),
    "several blocks": Proportions(
        lengths=(197, 150, 70), features=(64, 32, 16), ratio=1, groups=1, batch=(1, 2)
    ),
    "one token": Proportions(lengths=(1,), groups=1, batch=(1, 2)),
    "empty batch": Proportions(lengths=(19, 35), batch=(0, 2)),
}


@dataclass(frozen=True, slots=True)
class VerificationCase:
    """One trial of a mixer: sizes, params beside the caller's, and how its tensors are made."""

    name: str
    sizes: Mapping[str, int]
    params: Mapping[str, Number] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    strided: bool = False
    scale: float = 1.0
    seed: int = 0


def verification_cases(
    mixer: Mixer, params: Mapping[str, Number] = {}, limit: int | None = None
) -> list[VerificationCase]:
    """What to verify a mixer at, most telling first; ``limit`` keeps that many.

    Sizes by role; inputs that may be absent absent; flags turned; windows and blocks that are
    larger than the lengths made smaller; views with strides; large scores; the spec's ``check``.
    A trial that the spec does not admit is left out, but the first.
    """
    small = {name: value for name, value in _smaller(mixer).items() if name not in params}
    usual = {**small, **params}
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
    cases.append(VerificationCase("large scores", standard, usual, scale=30.0, seed=len(cases)))
    optional = frozenset(i.name for i in mixer.inputs if i.default is not None)
    if optional:
        cases.append(VerificationCase("absent inputs", standard, usual, optional, seed=4))
    for param in mixer.params:
        if param.flag and param.name not in params:
            turned = {**usual, param.name: not param_values(mixer, standard, params)[param.name]}
            sizes = default_sizes(mixer, params=turned)
            cases.append(VerificationCase(f"{param.name} turned", sizes, turned, seed=5))
    for dim in _unrelated_keys(mixer):
        sizes = _resized(mixer, standard, {dim: 0}, usual)
        cases.append(VerificationCase(f"no {dim}", sizes, usual, seed=6))
    if mixer.check:
        sizes = _resized(mixer, standard, dict(mixer.check), params)
        cases.insert(1, VerificationCase("check", sizes, params, seed=7))
    admitted = [c for c in cases if c is cases[0] or _is_admitted(mixer, c)]
    return admitted[:limit]


def default_sizes(
    mixer: Mixer, variant: str = "standard", params: Mapping[str, Number] = {}
) -> dict[str, int]:
    """A size for every dim, by the role that it plays and the proportions named ``variant``."""
    proportions = PROPORTIONS[variant]
    roles = _roles(mixer)
    sizes: dict[str, int] = {}
    seen: dict[str, list[str]] = {}
    for dim, role in roles.items():
        key = mixer.sequence(dim) or dim
        others = seen.setdefault(role, [])
        if key not in others:
            others.append(key)
        sizes[dim] = _by_role(proportions, role, others.index(key))
    for small, large in mixer.heads:
        sizes[small] = proportions.groups
        sizes[large] = proportions.groups * proportions.ratio
    for table in mixer.tables:
        sizes.update(zip(table.dims, table.shape, strict=True))
    return _resized(mixer, sizes, {}, params)


def _by_role(proportions: Proportions, role: str, position: int) -> int:
    if role == "table":
        return proportions.table
    choices = {
        "length": proportions.lengths,
        "feature": proportions.features,
        "batch": proportions.batch,
    }[role]
    return choices[position % len(choices)]


def _resized(
    mixer: Mixer,
    sizes: Mapping[str, int],
    changed: Mapping[str, int],
    params: Mapping[str, Number],
) -> dict[str, int]:
    """``sizes`` with some changed, along with their sequences and the sizes derived from them."""
    result = dict(sizes)

    def settle(dim: str, size: int) -> None:
        sequence = mixer.sequence(dim) or dim
        members = [d for d, of in mixer.sequences if of == sequence]
        result.update(dict.fromkeys([dim, sequence, *members], size))

    for dim, size in changed.items():
        settle(dim, size)
    for dim, value in mixer.sizes:
        known = param_values(mixer, result, params)
        settle(dim, int(evaluate_host(value, result, known)))
    return result


def _roles(mixer: Mixer) -> dict[str, str]:
    """What every dim is: a length, a feature, a row of a table, or one of a batch."""
    sequences = {dim for pair in mixer.sequences for dim in pair}
    attentions = [stage for stage in mixer.stages if isinstance(stage, Attention)]
    lengths = sequences | {stage.over for stage in attentions}
    for stage in attentions:
        lengths |= _unrelated_queries(mixer, stage, sequences)
    nodes = [node for expr in expressions(mixer) for node in walk(expr)]
    sums = [n for n in nodes if isinstance(n, Reduce) and n.op == "sum" and n.kind is Kind.REAL]
    summed = {dim for node in sums for dim in node.over}
    summed |= {dim for stage in attentions for dim in _value_dims(stage)}
    read = {dim for node in nodes if isinstance(node, Read) for dim, _ in node.at}
    heads = {dim for pair in mixer.heads for dim in pair}
    roles: dict[str, str] = {}
    for dim in _all_dims(mixer, nodes):
        if dim in lengths:
            roles[dim] = "length"
        elif dim in summed - heads:
            roles[dim] = "feature"
        elif dim in read - heads:
            roles[dim] = "table"
        else:
            roles[dim] = "batch"
    return roles


def _all_dims(mixer: Mixer, nodes: Iterable[Expr]) -> Iterator[str]:
    yield from (dim for i in mixer.inputs for dim in i.dims)
    yield from (dim for o in mixer.outputs for dim in o.dims)
    yield from (dim for pair in (*mixer.sequences, *mixer.heads) for dim in pair)
    for node in nodes:
        yield from sorted(node.axes)


def _value_dims(stage: Attention) -> set[str]:
    found = {dim for o in stage.outputs for dim in o.value.axes}
    return found - stage.queries - {stage.over}


def _unrelated_queries(mixer: Mixer, stage: Attention, sequences: set[str]) -> set[str]:
    """The query axis where no sequence tells it: the last one that no value has."""
    if stage.queries & sequences:
        return set()
    values = {dim for o in stage.outputs for dim in o.value.axes}
    heads = {dim for pair in mixer.heads for dim in pair}
    order = [d for i in mixer.inputs for d in i.dims if d in stage.queries - values - heads]
    return set(order[-1:])


def _unrelated_keys(mixer: Mixer) -> list[str]:
    """Key axes of the inputs that are free to be empty."""
    derived = {dim for dim, _ in mixer.sizes}
    given = {dim for i in mixer.inputs for dim in i.dims}
    overs = [stage.over for stage in mixer.stages if isinstance(stage, Attention)]
    free = [d for d in overs if d in given - derived and mixer.sequence(d) is None]
    return list(dict.fromkeys(free))


def _smaller(mixer: Mixer, largest: int = 32, meaningful: int = 4096) -> dict[str, Number]:
    """Windows, blocks and the like brought below the lengths that are tried.

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
        if 1 < value <= meaningful
    }


def _is_admitted(mixer: Mixer, case: VerificationCase) -> bool:
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
    params: Mapping[str, Number] = {},
) -> dict[str, Tensor]:
    """Random inputs at ``sizes``.

    Real ones are normal, ``scale`` times larger in the first input of a score; booleans are fair
    coins; integers lie where the equations use them, with some outside a table where they read
    one, and are sorted where declared so. ``absent`` names inputs to leave out. With ``strided``
    all are views, no two axes of which lie together in memory.
    """
    generator = torch.Generator().manual_seed(seed)
    ranges = integer_ranges(mixer, sizes, params)
    scaled = _first_of_score(mixer)
    made = {}
    for declared in mixer.inputs:
        shape = shape_of(declared.layout, sizes)
        if declared.kind is Kind.REAL:
            tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
            tensor = (tensor * scale if declared.name == scaled else tensor).to(dtype)
        else:
            tensor = _integers(declared, shape, ranges.get(declared.name), generator)
        tensor = tensor.to(device)
        if declared.name not in set(absent):
            made[declared.name] = as_strided_view(tensor) if strided else tensor
    return made


def _integers(
    declared: Input, shape: tuple[int, ...], within: Range | None, generator: torch.Generator
) -> Tensor:
    if declared.kind is Kind.BOOL:
        return torch.rand(shape, generator=generator) < 0.5
    assert within is not None
    tensor = torch.randint(within.low, max(within.high, within.low + 1), shape, generator=generator)
    if within.outside:
        stray = torch.rand(shape, generator=generator)
        tensor = torch.where(stray < 0.04, -1, torch.where(stray > 0.96, within.high, tensor))
    if declared.sorted and tensor.ndim:
        tensor = tensor.sort(-1).values
    return tensor.to(getattr(torch, declared.dtype or "int64"))


def _first_of_score(mixer: Mixer) -> str | None:
    """The first real input of the first score: what makes its scores large."""
    lets = {e.name: e.value for e in mixer.lets}
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
    "Proportions",
    "VerificationCase",
    "as_strided_view",
    "default_sizes",
    "sample_inputs",
    "verification_cases",
]
