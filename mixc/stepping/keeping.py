"""Segments of a mixer with attention along its sequence: the rows of keys that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.errors import ArgumentError
from .growth import extended

if TYPE_CHECKING:
    from torch import Tensor

    from ..compiler.mixers.resume.carried_state import Continued, Kept
    from ..ir.binding import Number
    from ..runtime.running import Execution
    from .growth import Room
    from .state import SequenceState


@dataclass
class Keys:
    """The rows of keys as a call goes on: those of ``before``, and the call's own once there."""

    before: SequenceState | None
    tensors: dict[str, Tensor]
    rooms: dict[str, Room]

    @classmethod
    def of(cls, state: SequenceState | None) -> Keys:
        """None of the call's own rows so far."""
        return cls(state, {}, {})

    def extend(self, kept: Kept, rows: Tensor) -> Tensor:
        """All rows, after those of the call are there."""
        past = room = None
        if self.before is not None:
            past, room = self.before[kept.name], self.before.rooms.get(kept.name)
            _check_fit(kept, past, rows)
        tensor, new = extended(past, room, rows, kept.place)
        self.tensors[kept.name] = tensor
        if new is not None:
            self.rooms[kept.name] = new
        return tensor


def first_segment(
    continued: Continued,
    execution: Execution,
    given: Mapping[str, Tensor],
    params: Mapping[str, Number],
) -> tuple[dict[str, Tensor], Keys]:
    """The results of a first segment, and its keys."""
    results = execution(given, params)
    keys = Keys.of(None)
    for kept in continued.keys:
        keys.extend(kept, given[kept.rows] if kept.first is None else results[kept.rows])
    return results, keys


def later_segment(
    continued: Continued,
    execution: Callable[[int], Execution],
    given: Mapping[str, Tensor],
    params: Mapping[str, Number],
    state: SequenceState,
) -> tuple[dict[str, Tensor], Keys]:
    """The results of a later segment, part by part, and its keys with those before."""
    keys, known = Keys.of(state), dict(given)
    results: dict[str, Tensor] = {}
    for place, part in enumerate(continued.parts):
        for kept in continued.keys:
            if kept.name not in keys.tensors and kept.rows in known:
                known[kept.before] = keys.extend(kept, known[kept.rows])
        names = {param.name for param in part.params}
        made = execution(place)(
            {entry.name: known[entry.name] for entry in part.inputs if entry.name in known},
            {name: value for name, value in params.items() if name in names},
        )
        known |= made
        results |= made
    return results, keys


def _check_fit(kept: Kept, past: Tensor, rows: Tensor) -> None:
    """Say it where the rows of a call are not of the shape, dtype and device of those before."""
    expected = list(past.shape)
    if rows.dim() == past.dim():
        expected[kept.place] = rows.shape[kept.place]
    if list(rows.shape) != expected or (rows.dtype, rows.device) != (past.dtype, past.device):
        was, now = (f"{list(t.shape)} {str(t.dtype)[6:]} on {t.device}" for t in (past, rows))
        raise ArgumentError(
            f"state: {kept.name} does not fit the inputs: it has rows of {was}, got {now}; a state "
            "continues the batch that made it, on its device (state.to)"
        )


__all__ = ["Keys", "first_segment", "later_segment"]
