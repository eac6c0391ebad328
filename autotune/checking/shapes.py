"""Sizes to tune and time a mixer at, sizes to check it at, and what of them a result is for."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.binding import Number, bind_sizes, param_values, shape_of
from ...ir.errors import ArgumentError
from ...ir.expression import Kind
from ...ir.mixer import Mixer
from ...ir.optional import free_dims
from ...ir.roles import dim_roles, feature_dims
from .proportions import Proportions, default_sizes, resized, shorter

# What to tune at where neither the user nor the spec says: (batch, heads), length, features.
CPU_PROPORTIONS = Proportions(lengths=(4096,), features=(64,), ratio=1, groups=8, batch=(1, 8))
GPU_PROPORTIONS = Proportions(lengths=(4096,), features=(128,), ratio=1, groups=16, batch=(4, 16))
# A check is against a dense float64 evaluation: long enough for several blocks of every size, and
# to see the end of a window, where that is near.
_SHORTEST_CHECK, _LONGEST_CHECK = 389, 1427
_MOST_OF_OTHERS = 16


def timed_sizes(
    mixer: Mixer,
    proportions: Proportions,
    changed: Mapping[str, int] = {},
    params: Mapping[str, Number] = {},
) -> dict[str, int]:
    """The sizes to time a mixer at: the first of its ``bench``, else usual ones; then the user's.

    Raises ArgumentError where ``changed`` names no dim of the mixer.
    """
    check_dims(mixer, changed)
    own = dict(mixer.bench[0]) if mixer.bench else {}
    sizes = default_sizes(mixer, proportions, params)
    for small, large in mixer.heads:
        if large in changed and small not in changed:
            own[small] = changed[large]
    return resized(mixer, sizes, {**own, **changed}, params)


def check_dims(mixer: Mixer, changed: Mapping[str, int]) -> None:
    """Refuse sizes of dims that the mixer does not have, or that follow from others."""
    from ...ir.binding import suggestion

    known = sorted({*free_dims(mixer), *(name for pair in mixer.sequences for name in pair)})
    for dim in changed:
        if dim not in known:
            raise ArgumentError(f"{mixer.name} has no dim {dim!r}{suggestion(dim, known)}")


def checked_sizes(
    mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number] = {}
) -> dict[str, int]:
    """Smaller sizes that the same kernels run at, where a dense reference is quick.

    Feature dims stay, lengths are cut to one that no block divides, batch dims and groups of
    heads to 2.
    """
    roles = dim_roles(mixer, sizes)
    values = param_values(mixer, sizes, params)
    spans = [int(v) for p in mixer.params if p.kind is Kind.INT for v in (values[p.name],)]
    near = [span for span in spans if 1 < span < _LONGEST_CHECK - 256]
    longest = max(_SHORTEST_CHECK, (max(near, default=0) * 5 // 4) | 1)
    derived = {dim for dim, _ in mixer.sizes}
    heads = dict(mixer.heads)
    tables = {dim for table in mixer.tables for dim in table.dims}
    results = {dim for output in mixer.outputs for dim in output.dims}
    changed = {}
    for dim, size in sizes.items():
        if dim in derived | tables | roles.features:
            continue
        if dim in heads:
            changed[dim] = min(size, 2)
        elif dim in heads.values():
            small = next(a for a, b in mixer.heads if b == dim)
            changed[dim] = min(sizes[small], 2) * (size // max(sizes[small], 1))
        elif dim in roles.long:
            changed[dim] = min(size, longest)
        else:  # an axis of a batch; those that results lack are others (levels, rounds)
            changed[dim] = min(size, 2 if dim in results else _MOST_OF_OTHERS)
    made = resized(mixer, sizes, changed, params)
    made = resized(mixer, made, shorter(mixer, roles.long, made), params)
    return made if _admitted(mixer, made, params) else dict(sizes)


def _admitted(mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number]) -> bool:
    try:
        bind_sizes(mixer, {i.name: shape_of(i.layout, sizes) for i in mixer.inputs}, params)
    except (ArgumentError, KeyError):
        return False
    return True


def known_sizes(mixer: Mixer, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of dims that a mixer has; a backward pass may lack some of its forward pass's."""
    own = free_dims(mixer) | {name for pair in mixer.sequences for name in pair}
    own |= {dim for pair in mixer.heads for dim in pair} | {dim for dim, _ in mixer.sizes}
    return {dim: size for dim, size in sizes.items() if dim in own}


def feature_sizes(mixer: Mixer, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes that kernels are compiled for."""
    return {dim: sizes[dim] for dim in sorted(feature_dims(mixer)) if dim in sizes}


def length_buckets(mixer: Mixer, sizes: Mapping[str, int]) -> dict[str, int]:
    """Lengths rounded up to powers of two, one per sequence or free long dim."""
    found: dict[str, int] = {}
    for dim in long_dims(mixer, sizes):
        name = mixer.sequence(dim) or dim
        found[name] = max(found.get(name, 1), bucket(sizes[dim]))
    return found


def long_dims(mixer: Mixer, sizes: Mapping[str, int]) -> list[str]:
    """The dims whose lengths a result is for; the sizes of features alone decide which."""
    derived = {dim for dim, _ in mixer.sizes}
    return [dim for dim in sorted(dim_roles(mixer, sizes).long - derived) if dim in sizes]


def bucket(length: int) -> int:
    """The power of two from ``length`` up."""
    return 1 << max(length - 1, 0).bit_length()


def shown_sizes(mixer: Mixer, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes without those that follow from others: of a sequence, the sequence alone."""
    derived = {dim for dim, _ in mixer.sizes}
    members = {dim for dim, sequence in mixer.sequences if dim != sequence}
    return {dim: size for dim, size in sizes.items() if dim not in derived | members}
