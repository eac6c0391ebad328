"""Groups of one head each: the heads' own axis, in calls that have as many groups as heads.

    sum(dk, H, G=h // (H // G)), k[G=h // (H // G)]  -->  dk, k     (G is H)

What a backward pass sums over the heads of a group is then no sum, and no copy: whoever makes the
terms makes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from .expression import Expr, Read, Reduce
from .mixer import Mixer
from .optional import expressions
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
    whole = _Changed(lambda expr: transform(expr, change), {group: heads})
    made: Mixer = whole(replace(mixer, heads=pairs, check=(), bench=()))
    return made


class _Changed:
    """Data with its expressions changed, then dims renamed: nothing else is called like a dim."""

    def __init__(self, change: Callable[[Expr], Expr], dims: Mapping[str, str]) -> None:
        self.change, self.dims = change, dims
        self._done: dict[int, tuple[Any, Any]] = {}  # each shared node once; kept, so ids stay

    def __call__(self, part: Any) -> Any:
        """``part`` changed."""
        return self._renamed(self.change(part)) if isinstance(part, Expr) else self._inside(part)

    def _inside(self, part: Any) -> Any:
        match part:
            case Expr():
                return self(part)
            case str():
                return self.dims.get(part, part)
            case tuple() | frozenset():
                return type(part)(self._inside(one) for one in part)
        return _rebuilt(part, self._inside)

    def _renamed(self, part: Any) -> Any:
        """An expression, or a part of one, with the dims' new names."""
        if isinstance(part, str):
            return self.dims.get(part, part)
        if isinstance(part, tuple | frozenset):
            return type(part)(self._renamed(one) for one in part)
        if not isinstance(part, Expr):
            return _rebuilt(part, self._renamed)
        if id(part) not in self._done:
            self._done[id(part)] = part, _rebuilt(part, self._renamed)
        return self._done[id(part)][1]


def _rebuilt(part: Any, change: Callable[[Any], Any]) -> Any:
    """A dataclass with its fields changed; anything else as it is."""
    if not is_dataclass(part) or isinstance(part, type):
        return part
    return replace(part, **{name: change(getattr(part, name)) for name in _names(part)})


def _names(part: Any) -> Iterator[str]:
    return (f.name for f in fields(part) if f.init)
