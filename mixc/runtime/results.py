"""What a call with several outputs returns."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable
from functools import lru_cache
from keyword import iskeyword
from operator import itemgetter
from typing import Any


@lru_cache(maxsize=1024)
def result_class(mixer: str, outputs: tuple[str, ...]) -> Callable[..., Any]:
    """The named tuple of a mixer's outputs. It has no module to be found in: it is pickled by the
    mixer's name and its fields. An output that no field can be called after (``_x``, ``def``) is
    an attribute all the same."""
    made = namedtuple(mixer + "_" * iskeyword(mixer), outputs, rename=True)  # type: ignore[misc]
    for place, name in enumerate(outputs):
        if not hasattr(made, name):
            setattr(made, name, property(itemgetter(place)))
    made.__reduce__ = lambda self: (result_of, (mixer, outputs, tuple(self)))  # type: ignore
    return made


def result_of(mixer: str, outputs: tuple[str, ...], values: Iterable[Any]) -> Any:
    """The named tuple with these values."""
    return result_class(mixer, outputs)(*values)


__all__ = ["result_class", "result_of"]
