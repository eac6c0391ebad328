"""The table of systems: every spec of the library, what it is, and what mixc makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ..compiler.language.head import read_head
from ..ir.errors import UnsupportedError

if TYPE_CHECKING:
    from pathlib import Path

    from ..ir.mixer import Mixer


@dataclass(frozen=True, slots=True)
class State:
    """What mixc makes of a spec, found by lowering it.

    ``forward`` and ``backward`` are what runs them, ``kernels`` or ``torch`` (backward ``none``: no
    output has a gradient); ``steps``: whether segments of its sequence give what one pass gives.
    """

    form: str
    forward: str
    backward: str
    steps: bool


@dataclass(frozen=True, slots=True)
class System:
    """A spec of the library and its state; the family is the folder that it lies in."""

    name: str
    family: str
    about: str
    source: str
    path: str
    state: State

    @property
    def title(self) -> str:
        """What it is, without what is said about it: ``A: b. C.`` --> ``A``."""
        return re.split(r"(?<=[\w)])[.:;](?:\s|$)", self.about, maxsplit=1)[0]

    @property
    def cells(self) -> tuple[str, ...]:
        """What a table says of it after its name, under ``HEADINGS``."""
        state = self.state
        return (
            self.title,
            state.form,
            state.forward,
            state.backward,
            "no yes".split()[state.steps],
        )


HEADINGS = ("system", "form", "forward", "backward", "steps")


def system_of(path: Path, state: State) -> System:
    """A spec of the library, of which the first lines are read."""
    head = read_head(path)
    return System(head.name, path.parent.name, head.about, head.source, str(path), state)


def families(systems: Sequence[System]) -> list[tuple[str, list[System]]]:
    """The systems by family and name."""
    ordered = sorted(systems, key=lambda system: (system.family, system.name))
    return [(name, list(members)) for name, members in groupby(ordered, lambda one: one.family)]


def markdown(systems: Sequence[System]) -> str:
    """The table as README has it: the names of a family that share a state in one line."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for family, members in families(systems):
        for one in members:
            alike.setdefault((family, *one.cells[1:]), []).append(f"`{one.name}`")
    headings = ("family", *HEADINGS[1:], "specs")
    lines = [" | ".join((*shared, " ".join(names))) for shared, names in sorted(alike.items())]
    return "\n".join(f"| {line} |" for line in (" | ".join(headings), "---|" * 5 + "---", *lines))


def find_state(path: Path) -> State:
    """Lower a spec, its derivative and its segments: a quarter of a second."""
    from ..compiler.language.load import load_file
    from ..compiler.mixers.resume.continue_sequence import continue_sequence

    mixer = load_file(path)
    forms = dict.fromkeys(type(stage).__name__.lower() for stage in mixer.stages)
    main = [form for form in forms if form != "map"] or list(forms)
    return State(
        form=", ".join(main),
        forward="kernels" if _supported(_lower, mixer) else "torch",
        backward=_backward(mixer),
        steps=_supported(continue_sequence, mixer),
    )


def _backward(mixer: Mixer) -> str:
    from ..compiler.mixers.derivative.differentiate import differentiate

    try:
        derivative = differentiate(mixer)
    except UnsupportedError:
        return "torch"
    if not derivative.gradients:
        return "none"
    return "kernels" if _supported(_lower, derivative.backward) else "torch"


def _lower(mixer: Mixer) -> object:
    from ..compiler.pipeline import lower

    return lower(mixer, {}, "float32")


def _supported(make: Callable[[Mixer], object], mixer: Mixer) -> bool:
    try:
        make(mixer)
    except UnsupportedError:
        return False
    return True


__all__ = ["HEADINGS", "State", "System", "families", "find_state", "markdown", "system_of"]
