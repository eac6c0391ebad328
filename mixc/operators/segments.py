"""What a mixer hands over between segments, in plain words that ``torch.compile`` reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from torch.compiler import assume_constant_result

from ..ir.expression import Kind
from ..ir.mixer import Mixer
from .recording import stepping_of
from .signature import Part, part_text, told


class Rows(NamedTuple):
    """A key of ``Kept``: its names, and where its axis is."""

    name: str
    before: str
    rows: str
    is_given: bool
    place: int


class Segments(NamedTuple):
    """See ``Continued``; ``inputs`` and ``outputs`` say where the rows lie, (place, axes)."""

    name: str
    source: str
    first: Part
    later: tuple[Part, ...]
    carried: tuple[tuple[str, str, str], ...]
    rows_before: str | None
    only_first: tuple[str, ...]
    keys: tuple[Rows, ...]
    inputs: tuple[tuple[str, int, int], ...]
    outputs: tuple[tuple[str, int], ...]
    states_out: tuple[str, ...]
    reals: tuple[str, ...]


@lru_cache(maxsize=256)
def _segments(text: str, one_row: bool) -> Segments:
    """The parts of the mixer that ``text`` tells; for segments of one row kernels of their own."""
    stepping = stepping_of(text)
    few = "-few" if one_row else ""
    continued, rows = stepping.continued, stepping.rows
    return Segments(
        stepping.mixer.name,
        stepping.source,
        _part(text, f"first{few}", continued.start),
        tuple(_part(text, f"{n}{few}", part) for n, part in enumerate(continued.parts)),
        tuple((c.name, c.before, c.after) for c in continued.carried),
        continued.rows_before,
        continued.only_first,
        tuple(Rows(k.name, k.before, k.rows, k.first is None, k.place) for k in continued.keys),
        tuple((name, place, axes) for name, (place, axes) in rows.inputs.items()),
        tuple(rows.outputs.items()),
        stepping.states_out,
        tuple(i.name for i in stepping.mixer.inputs if i.kind is Kind.REAL and not i.dtype),
    )


def _part(text: str, name: str, mixer: Mixer) -> Part:
    return told(mixer, part_text(text, name))


# A tracer calls it, and takes what it returns.
segments: Callable[[str, bool], Segments] = assume_constant_result(  # type: ignore[no-untyped-call]
    lambda text, one_row: _segments(text, one_row)
)


__all__ = ["Rows", "Segments", "segments"]
