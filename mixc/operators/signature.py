"""What a call of an operator is on, as text: operators take tensors in lists, and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ..compiler.analysis.multiplied import multiplied_inputs
from ..ir.binding import Number
from ..ir.expression import Kind
from ..ir.mixer import Mixer
from ..ir.text import write_mixer
from ..runtime.kept import Kept, checked_kept

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Call:
    """The names of a call's tensors and numbers, in order.

    ``inputs``, then ``cuts`` (the axes of ``cu_seqlens``, ``*`` for the only one) are tensors;
    ``params`` are numbers; of ``wanted`` a gradient is asked. The call of a backward pass has
    ``dtypes``, those of the inputs, and ``gradients``, what it returns. By kernels it takes what it
    reads, ``given``, a cotangent as ``name=output``; else the inputs again, and all cotangents.
    """

    inputs: tuple[str, ...]
    cuts: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    gradients: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join(" ".join(getattr(self, field.name)) for field in fields(self))

    def numbers(self, mixer: Mixer, values: list[float]) -> dict[str, Number]:
        """The params by name, each of its own kind again."""
        found: dict[str, Number] = {}
        for name, value in zip(self.params, values, strict=True):
            kind = mixer.param(name).kind
            found[name] = {Kind.BOOL: bool, Kind.INT: int, Kind.REAL: float}[kind](value)
        return found

    def cu_seqlens(self, tensors: list[Tensor]) -> Tensor | Mapping[str, Tensor] | None:
        """The cuts of a call's tensors, as a caller gives them."""
        cuts = tensors[len(self.inputs) : len(self.inputs) + len(self.cuts)]
        if self.cuts == ("*",):
            return cuts[0]
        return dict(zip(self.cuts, cuts, strict=True)) or None


class Part(NamedTuple):
    """A mixer that runs as one operator: the text that tells it, and names in its own order.

    ``params`` are those of each call; autocast takes the inputs ``multiplied`` in 16 bits.
    """

    text: str
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    outputs: tuple[str, ...]
    multiplied: frozenset[str]


def told(mixer: Mixer, text: str) -> Part:
    """A mixer, or a part of one, that ``text`` tells."""
    return Part(
        text,
        tuple(entry.name for entry in mixer.inputs),
        tuple(param.name for param in mixer.params if param.runtime),
        tuple(output.name for output in mixer.outputs),
        multiplied_inputs(mixer),
    )


def text_of(mixer: Mixer, backend: str, part: str = "whole", kept: Kept = "all") -> str:
    """What tells a mixer to an operator: its equations, below a line on how it is run.

    ``part`` says which of its parts over segments is meant; see ``Stepping.part``. Of ``kept`` an
    operator knows what does not depend on sizes, which a compiled graph leaves open: all, and less.
    """
    bare = replace(mixer, about="", source="", check=(), bench=())
    asked = "" if kept in ("all", "auto") else f"{kept} "
    return f"# {backend} {asked}{part}\n{write_mixer(bare)}"


class Manner(NamedTuple):
    """How a mixer that a text tells is run."""

    backend: str
    kept: Kept
    part: str


def manner_of(text: str) -> Manner:
    """What the first line of a text says; see ``text_of``."""
    _, backend, *asked, part = text.partition("\n")[0].split()
    kept = asked[0] if asked else "all"
    return Manner(backend, checked_kept(int(kept) if kept.isdigit() else kept), part)


def part_text(text: str, part: str) -> str:
    """The text of another part of the mixer that ``text_of`` told."""
    head, _, equations = text.partition("\n")
    return f"{head.rpartition(' ')[0]} {part}\n{equations}"


@lru_cache(maxsize=1024)
def read_call(text: str) -> Call:
    """The call that a text says."""
    return Call(*(tuple(words.split()) for words in text.split(";")))


__all__ = ["Call", "Manner", "Part", "manner_of", "part_text", "read_call", "text_of", "told"]
