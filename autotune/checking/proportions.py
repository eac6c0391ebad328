"""Sizes to try a mixer at: awkward on purpose, by the role that each dim plays."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...ir.binding import Number, param_values
from ...ir.expression import Call, Expr, Index, Kind, Read, Reduce, Size
from ...ir.host import evaluate_host
from ...ir.mixer import Attention, Mixer, Recurrence
from ...ir.optional import expressions
from ...ir.rewriting import every_node, walk
from ...ir.roles import feature_dims, other_sequences
from .intervals import Bounds

_LARGEST_TABLE = 64
# Positions that several lengths count together: a dense reference has room for their pairs.
_LONGEST_PRODUCT = 1024


@dataclass(frozen=True, slots=True)
class Proportions:
    """Sizes by the role that a dim plays; a role with more dims than sizes starts over.

    ``lengths`` go to sequences and key axes, ``features`` to axes that are summed, come from a
    value, or are listed for a state, ``ratio`` is query heads per key/value head, ``groups`` the
    number of the latter.
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

# For recurrences: lengths around those of chunks, which none of them divides, and none at all.
STRETCHES: Mapping[str, Proportions] = {
    f"{length} rows": Proportions(
        lengths=(length,), features=(20, 12, 10), ratio=1, groups=1, batch=(1, 2)
    )
    for length in (0, 2, 63, 64, 65, 130)
}
# Long enough for several chunks of every size, and for gates that keep to an extreme for long.
STRONG_GATES = Proportions(lengths=(197,), features=(24, 20, 16), ratio=1, groups=2, batch=(1, 2))


def default_sizes(
    mixer: Mixer, variant: str | Proportions = "standard", params: Mapping[str, Number] = {}
) -> dict[str, int]:
    """A size for every dim, by the role that it plays and the proportions of ``variant``."""
    proportions = PROPORTIONS[variant] if isinstance(variant, str) else variant
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
    for dim, other in _alike(mixer):
        sizes[dim] = sizes[other]
    lengths = [dim for dim, role in roles.items() if role == "length"]
    sizes = resized(mixer, sizes, shorter(mixer, lengths, sizes), params)
    needed = dict(_needed(mixer, roles, sizes, params))
    return resized(mixer, {**sizes, **needed}, {}, params) if needed else sizes


def shorter(mixer: Mixer, lengths: Collection[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Lengths whose product is an axis of its own, smaller by one factor where that is too long."""
    found: dict[str, int] = {}
    for _, value in mixer.sizes:
        dims = [dim for dim in _factors(value) if dim in lengths]
        whole = math.prod(sizes[dim] for dim in dims)
        if len(dims) > 1 and whole > _LONGEST_PRODUCT:
            part = (_LONGEST_PRODUCT / whole) ** (1 / len(dims))
            found |= {dim: max(int(sizes[dim] * part), 1) for dim in dims}
    return found


def _factors(size: Expr) -> Iterator[str]:
    """The dims that a size is a product of, with numbers or others."""
    match size:
        case Call("mul", args):
            for part in args:
                yield from _factors(part)
        case Size(dim):
            yield dim


def _by_role(proportions: Proportions, role: str, position: int) -> int:
    if role == "table":
        return proportions.table
    choices = {
        "length": proportions.lengths,
        "feature": proportions.features,
        "batch": proportions.batch,
    }[role]
    return choices[position % len(choices)]


def resized(
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
    for dim, other in _alike(mixer):
        if dim in changed and other not in changed:
            settle(other, changed[dim])
        elif other in changed and dim not in changed:
            settle(dim, changed[other])
    for dim, value in mixer.sizes:
        known = param_values(mixer, result, params)
        settle(dim, int(evaluate_host(value, result, known)))
    return result


def _roles(mixer: Mixer) -> dict[str, str]:
    """What every dim is: a length, a feature, a row of a table, or one of a batch."""
    sequences = {dim for pair in mixer.sequences for dim in pair}
    attentions = [stage for stage in mixer.stages if isinstance(stage, Attention)]
    recurrences = [stage for stage in mixer.stages if isinstance(stage, Recurrence)]
    lengths = sequences | {stage.over for stage in attentions}
    lengths |= {loop.over for loop in recurrences}
    lengths = lengths.union(*(other_sequences(mixer, loop) for loop in recurrences))
    nodes = list(every_node(expressions(mixer)))
    sums = [n for n in nodes if isinstance(n, Reduce) and n.op == "sum" and n.kind is Kind.REAL]
    summed = {dim for node in sums for dim in node.over}
    for stage in attentions:
        lengths |= _unrelated_queries(mixer, stage, sequences | summed)
    summed |= {dim for stage in attentions for dim in _value_dims(stage)}
    summed |= {dim for loop in recurrences for state in loop.states for dim in state.listed}
    read = {dim for node in nodes if isinstance(node, Read) for dim, _ in node.at}
    heads = {dim for pair in mixer.heads for dim in pair}
    # What other sizes are made from: `{N: H // 2}`; but features make more features.
    dividing = {node.dim for _, value in mixer.sizes for node in walk(value) if type(node) is Size}
    dividing -= feature_dims(mixer)
    # Channels that nothing sums, of a convolution say, are as wide as features are.
    summed |= {dim for o in mixer.outputs[:1] for dim in o.dims[-1:]}
    roles: dict[str, str] = {}
    for dim in _all_dims(mixer, nodes):
        if dim in lengths:
            roles[dim] = "length"
        elif dim in summed - heads:
            roles[dim] = "feature"
        elif dim in read - heads - dividing:
            roles[dim] = "table"
        else:
            roles[dim] = "batch"
    if not lengths:
        roles.update(dict.fromkeys(_first_row(mixer, roles), "length"))
    return roles


def _first_row(mixer: Mixer, roles: Mapping[str, str]) -> list[str]:
    """The length where no form tells one, as in convolutions: the first axis but for the batch."""
    kept = {dim for o in mixer.outputs for dim in o.dims if roles[dim] != "batch"}
    return [dim for i in mixer.inputs for dim in i.dims if dim in kept][:1]


def _alike(mixer: Mixer) -> Iterator[tuple[str, str]]:
    """Dims that stand for the same positions: one is read at the index of the other, alone.

    ``h[D=p]``: P has the size of D. Attentions read tables so, and recurrences their states.
    """
    if not any(isinstance(stage, Recurrence) for stage in mixer.stages):
        return
    sequences = {dim for pair in mixer.sequences for dim in pair}
    fixed = {dim for dim, _ in mixer.sizes} | sequences
    seen = set[str]()
    for node in every_node(expressions(mixer)):
        for dim, index in node.at if isinstance(node, Read) else ():
            if isinstance(index, Index) and not {dim, index.dim} & (fixed | seen):
                seen.add(index.dim)
                yield index.dim, dim


def _needed(
    mixer: Mixer, roles: Mapping[str, str], sizes: Mapping[str, int], params: Mapping[str, Number]
) -> Iterator[tuple[str, int]]:
    """What of a table is read, where all reads of it are at numbers or at indices of heads.

    ``a[S=0] - a[S=1]``: S has two rows. A dim that other sizes are made from is no table.
    """
    made_from = {n.dim for _, value in mixer.sizes for n in walk(value) if isinstance(n, Size)}
    tables = {dim for dim, role in roles.items() if role == "table"} - made_from
    lengths = {dim for dim, role in roles.items() if role == "length"}
    reads: dict[str, list[Expr]] = {dim: [] for dim in tables}
    for node in every_node(expressions(mixer)) if tables else ():
        for dim, index in node.at if isinstance(node, Read) else ():
            if dim in tables:
                reads[dim].append(index)
    known = param_values(mixer, sizes, params)
    bounds = Bounds(mixer, sizes, known, {}) if tables else None
    for dim, indices in sorted(reads.items()):
        if bounds is None or any(index.axes & lengths for index in indices):
            continue
        last = max(bounds.of(index).high for index in indices)
        if 0 <= last < _LARGEST_TABLE:
            yield dim, int(last) + 1


def _all_dims(mixer: Mixer, nodes: Iterable[Expr]) -> Iterator[str]:
    yield from (dim for i in mixer.inputs for dim in i.dims)
    yield from (dim for o in mixer.outputs for dim in o.dims)
    yield from (dim for pair in (*mixer.sequences, *mixer.heads) for dim in pair)
    for node in nodes:
        yield from sorted(node.axes)


def _value_dims(stage: Attention) -> set[str]:
    found = {dim for o in stage.outputs for dim in o.value.axes}
    return found - stage.queries - {stage.over}


def _unrelated_queries(mixer: Mixer, stage: Attention, others: set[str]) -> set[str]:
    """The query axis where no sequence tells it: the last one that no value has, and no sum."""
    if any(mixer.sequence(dim) for dim in stage.queries):
        return set()
    values = {dim for o in stage.outputs for dim in o.value.axes}
    heads = {dim for pair in mixer.heads for dim in pair}
    order = [
        d for i in mixer.inputs for d in i.dims if d in stage.queries - values - heads - others
    ]
    return set(order[-1:])


def unrelated_keys(mixer: Mixer) -> list[str]:
    """Key axes of the inputs that are free to be empty."""
    derived = {dim for dim, _ in mixer.sizes}
    given = {dim for i in mixer.inputs for dim in i.dims}
    overs = [stage.over for stage in mixer.stages if isinstance(stage, Attention)]
    free = [d for d in overs if d in given - derived and mixer.sequence(d) is None]
    return list(dict.fromkeys(free))
