"""What a mixer hands over from one segment of a sequence to the next."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .growth import Room


class SequenceState:
    """The hand-over after ``t`` rows: ``state["S"]`` is a tensor, ``list(state)`` the names.

    After documents of several lengths (``cu_seqlens``) ``t`` has one for each, as the batch has.

    States have the names of the spec; ``u_rows`` are the last rows of ``u`` that later rows read,
    ``g_sum`` a running sum so far, all float32, or float64 by the reference on float64 inputs. The
    keys and values of an attention, ``k`` and ``v``, have every row so far, as they were given;
    ``k_keys`` are rows that are computed once (a rotation). A call never changes a state: it may be
    kept, and continued twice. To ``torch.utils._pytree`` it is a tree of ``t`` and the tensors.
    """

    def __init__(
        self,
        mixer: str,
        t: int | tuple[int, ...],
        tensors: Mapping[str, Tensor],
        source: str = "",
        rooms: Mapping[str, Room] | None = None,
    ) -> None:
        """``source`` tells apart mixers, and one mixer with other params; in ``rooms`` rows may be
        added. ``torch.compile`` traces this, and can't make what is frozen.
        """
        self._mixer, self._t, self._source = mixer, t, source
        self._tensors = dict(tensors)
        self._rooms = dict(rooms or {})

    @property
    def mixer(self) -> str:
        """The name of the mixer that it is a state of."""
        return self._mixer

    @property
    def t(self) -> int | tuple[int, ...]:
        """How many rows there were so far."""
        return self._t

    @property
    def source(self) -> str:
        """What tells apart mixers, and one mixer with other params."""
        return self._source

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What is handed over, by name."""
        return MappingProxyType(self._tensors)

    @property
    def rooms(self) -> Mapping[str, Room]:
        """Where rows may be added, by name."""
        return self._rooms

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __reduce__(self) -> tuple[Any, ...]:
        own = {name: _own(tensor) for name, tensor in self.tensors.items()}
        return SequenceState, (self.mixer, self.t, own, self.source)

    def __repr__(self) -> str:
        shown = (f"{name}: {list(x.shape)} {_plain(x)}" for name, x in self.tensors.items())
        rows = self.t if isinstance(self.t, int) else " + ".join(map(str, self.t))
        return f"<state of {self.mixer} after {rows} rows: {', '.join(shown)}>"

    def after_rows(self, t: int | tuple[int, ...]) -> SequenceState:
        """The same, said to be after ``t`` rows."""
        return SequenceState(self._mixer, t, self._tensors, self._source, self._rooms)

    def to(self, device: str | torch.device) -> SequenceState:
        """The same state on another device."""
        moved = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return SequenceState(self._mixer, self._t, moved, self._source)

    def detach(self) -> SequenceState:
        """The same state, through which no gradient flows (truncated backpropagation)."""
        cut = {name: tensor.detach() for name, tensor in self._tensors.items()}
        return SequenceState(self._mixer, self._t, cut, self._source, self._rooms)


def _own(tensor: Tensor) -> Tensor:
    """The tensor without the spare rows that its memory may have."""
    return tensor if tensor.is_contiguous() or tensor.requires_grad else tensor.contiguous()


@lru_cache(maxsize=1)
def register_as_tree() -> None:
    """Tell PyTorch that a state is a tree, whose leaves programs take and return, and that files
    may hold one.
    """
    from torch import Tensor
    from torch.serialization import add_safe_globals
    from torch.utils import _pytree

    def leaves(state: SequenceState) -> tuple[list[Any], Any]:
        return [state.t, *state.tensors.values()], (state.mixer, state.source, tuple(state))

    def named(state: SequenceState) -> tuple[list[tuple[Any, Any]], Any]:
        values, context = leaves(state)
        names = ("t", *state)
        return [(_pytree.MappingKey(n), v) for n, v in zip(names, values, strict=True)], context

    def state_of(values: Iterable[Any], context: Any) -> SequenceState:
        (mixer, source, names), (t, *tensors) = context, values
        t = int(t) if isinstance(t, Tensor) else t  # a program compiled ahead of time has no int
        return SequenceState(mixer, t, dict(zip(names, tensors, strict=True)), source)

    def context_of(text: str) -> Any:
        mixer, source, names = json.loads(text)
        return mixer, source, tuple(names)

    add_safe_globals([SequenceState])
    _pytree.register_pytree_node(
        SequenceState,
        leaves,
        state_of,
        flatten_with_keys_fn=named,
        serialized_type_name="mixc.SequenceState",
        to_dumpable_context=json.dumps,
        from_dumpable_context=context_of,
    )


def _plain(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


__all__ = ["SequenceState", "register_as_tree"]
