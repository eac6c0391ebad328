"""What a mixer hands over from one segment of a sequence to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .growth import Room


@dataclass(frozen=True, eq=False)
class SequenceState:
    """The hand-over after ``t`` rows: ``state["S"]`` is a tensor, ``list(state)`` the names.

    After documents of several lengths (``cu_seqlens``) ``t`` has one for each, as the batch has.

    States have the names of the spec; ``u_rows`` are the last rows of ``u`` that later rows read,
    ``g_sum`` a running sum so far, all float32, or float64 by the reference on float64 inputs. The
    keys and values of an attention, ``k`` and ``v``, have every row so far, as they were given;
    ``k_keys`` are rows that are computed once (a rotation). A call never changes a state: it may be
    kept, and continued twice.
    """

    mixer: str
    t: int | tuple[int, ...]
    tensors: Mapping[str, Tensor]
    source: str = ""  # tells apart mixers, and one mixer with other params
    rooms: Mapping[str, Room] = field(default_factory=dict, repr=False)  # where rows may be added

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __reduce__(self) -> tuple[Any, ...]:
        own = {name: _own(tensor) for name, tensor in self.tensors.items()}
        return SequenceState, (self.mixer, self.t, own, self.source)

    def __repr__(self) -> str:
        shown = (f"{name}: {list(x.shape)} {_plain(x)}" for name, x in self.tensors.items())
        rows = self.t if isinstance(self.t, int) else " + ".join(map(str, self.t))
        return f"<state of {self.mixer} after {rows} rows: {', '.join(shown)}>"

    def to(self, device: str | torch.device) -> SequenceState:
        """The same state on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return SequenceState(self.mixer, self.t, moved, self.source)

    def detach(self) -> SequenceState:
        """The same state, through which no gradient flows (truncated backpropagation)."""
        cut = {name: tensor.detach() for name, tensor in self.tensors.items()}
        return SequenceState(self.mixer, self.t, cut, self.source, self.rooms)


def _own(tensor: Tensor) -> Tensor:
    """The tensor without the spare rows that its memory may have."""
    return tensor if tensor.is_contiguous() or tensor.requires_grad else tensor.contiguous()


def _plain(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


__all__ = ["SequenceState"]
