"""Groups of one head each: the heads' own axis, in calls that have as many groups as heads.

    sum(dk, H, G=h // (H // G)), k[G=h // (H // G)]  -->  dk, k     (G is H)

What a backward pass sums over the heads of a group is then no sum, and no copy: whoever makes the
terms makes the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .expression import Expr, Read, Reduce
from .mixer import Mixer
from .optional import expressions
from .renaming import Changed
from .rewriting import every_node, transform
from .roles import feature_dims, group_of

_OF_ONE = ("sum", "prod", "max", "min")  # which give a single term as it is


def _summed_groups(mixer: Mixer) -> tuple[tuple[str, str], ...]:
    """The pairs of groups and heads with a reduction over the heads of each group, and no value
    that has both axes."""
    nodes = [*every_node(expressions(mixer))]
    both = [frozenset(n.axes) for n in nodes]
    both += [frozenset(entry.dims) for entry in mixer.inputs]
    both += [frozenset(output.dims) for output in mixer.outputs]
    return tuple(
        (group, heads)
        for group, heads in mixer.heads
        if any(_sums_groups(n, group, heads) for n in nodes)
        and not any({group, heads} <= axes for axes in both)
    )


def with_sole_groups(mixer: Mixer, sizes: Mapping[str, int]) -> Mixer:
    """The mixer for calls of these sizes, without the groups that have one head each.

    Left alone is a mixer that reduces over no group's heads: there is nothing to save.
    """
    for group, heads in _summed_groups(mixer):
        if sizes.get(group) == sizes.get(heads):
            made = _without(mixer, group, heads)
            if feature_dims(made) == feature_dims(mixer):  # the same kernels serve any heads
                mixer = made
    return mixer


def _sums_groups(node: Expr, group: str, heads: str) -> bool:
    return (
        isinstance(node, Reduce)
        and node.op in _OF_ONE
        and node.where is None
        and heads in node.over
        and node.group == ((group, group_of(group, heads)),)
    )


def _without(mixer: Mixer, group: str, heads: str) -> Mixer:
    own = group_of(group, heads)

    def change(node: Expr) -> Expr | None:
        if isinstance(node, Read) and (group, own) in node.at:
            kept = tuple(pair for pair in node.at if pair != (group, own))
            return replace(node, at=kept) if kept else node.x
        if isinstance(node, Reduce) and _sums_groups(node, group, heads):
            over = tuple(dim for dim in node.over if dim != heads)
            return replace(node, over=over, group=()) if over else node.x
        return None

    pairs = tuple(pair for pair in mixer.heads if pair != (group, heads))
    whole = Changed(lambda expr: transform(expr, change), {group: heads})
    made: Mixer = whole(replace(mixer, heads=pairs, check=(), bench=()))
    return made
