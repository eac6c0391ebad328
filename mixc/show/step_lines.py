"""A recurrence line by line: which row's state each line reads, and which it makes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..ir.mixer import Equation, Line, Recurrence, Rounds, assignments
from ..ir.text import write_expression

_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


@dataclass(frozen=True, slots=True)
class StepLine:
    """An assignment of a step, its states with subscripts; ``rounds`` are the loops around it."""

    target: str
    equation: Equation
    text: str
    rounds: tuple[str, ...]


def step_lines(stage: Recurrence) -> Iterator[StepLine]:
    """The assignments in order.

    ``S = a * S`` --> ``S[t] = a * S[t-1]``; a state that a later line assigns again is S' first,
    and in an inner loop over R it is S[t, r-1] before it is assigned there and S[t, r] after.
    """
    yield from _Subscripts(stage).lines(stage.step, ())


@dataclass
class _Subscripts:
    """How each state is written where the walk has come to."""

    stage: Recurrence
    left: dict[str, int] = field(default_factory=dict)  # assignments that are still to come
    shown: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [equation.name for equation, _ in assignments(self.stage.step)]
        self.row = self.stage.over.lower()
        self.as_written = self._is_as_written()
        before = f"[{self.row}{'+' if self.stage.reverse else '-'}1]"
        for state in self.stage.states:
            self.left[state.name] = names.count(state.name)
            self.shown[state.name] = state.name + before

    def lines(self, step: tuple[Line, ...], rounds: tuple[str, ...]) -> Iterator[StepLine]:
        for line in step:
            match line:
                case Equation():
                    text = self.subscripted(line.text if self.as_written else _rewritten(line))
                    yield StepLine(self.assign(line.name, rounds), line, text, rounds)
                case Rounds():
                    yield from self.inner(line, (*rounds, line.over))

    def _is_as_written(self) -> bool:
        """Whether the text has the names of this stage, not those of the one that it is like."""
        made = [equation for equation, _ in assignments(self.stage.step)]
        words = {word for equation in made for word in _NAME.findall(equation.text)}
        return all(e.text for e in made) and any(s.name in words for s in self.stage.states)

    def inner(self, loop: Rounds, rounds: tuple[str, ...]) -> Iterator[StepLine]:
        changed = {e.name for e, _ in assignments(loop.step)} & self.shown.keys()
        for name in changed:
            self.shown[name] = f"{name}[{self.place(rounds)}-1]"
        yield from self.lines(loop.step, rounds)
        for name in changed:
            self.shown[name] = self.after(name, ()) if not rounds[1:] else self.shown[name]

    def assign(self, name: str, rounds: tuple[str, ...]) -> str:
        if name not in self.left:
            return name
        self.left[name] -= 1
        self.shown[name] = self.after(name, rounds)
        return self.shown[name]

    def after(self, name: str, rounds: tuple[str, ...]) -> str:
        """The state as the line that was just passed leaves it."""
        if rounds:
            return f"{name}[{self.place(rounds)}]"
        return f"{name}[{self.row}]" if not self.left[name] else name + "'" * self.primes(name)

    def primes(self, name: str) -> int:
        names = [equation.name for equation, _ in assignments(self.stage.step)]
        return names.count(name) - self.left[name]

    def place(self, rounds: tuple[str, ...]) -> str:
        return ", ".join((self.row, *(over.lower() for over in rounds)))

    def subscripted(self, text: str) -> str:
        """``text`` with every state as it is where the line stands."""
        return _NAME.sub(lambda found: self.shown.get(found[0], found[0]), " ".join(text.split()))


def _rewritten(line: Equation) -> str:
    return write_expression(line.value)


__all__ = ["StepLine", "step_lines"]
