"""Which states a value reads, through all the names between."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ....ir.expression import Expr, Ref
from ....ir.mixer import Recurrence
from ....ir.names import names_in
from ....ir.rewriting import walk
from ....ir.single_assignment import Repeated, Step, Version
from .versions import versions


@dataclass
class Dependence:
    """A step's values by name, and what each reads.

    ``opaque`` are the names that an inner loop makes, each with every name that the loop reads.
    """

    step: Step
    values: Mapping[str, Expr]
    opaque: Mapping[str, frozenset[str]]
    _reached: dict[str, frozenset[str]] = field(default_factory=dict)

    @staticmethod
    def made(recurrence: Recurrence) -> Dependence:
        """That of a recurrence."""
        step = versions(recurrence)
        values: dict[str, Expr] = {}
        opaque: dict[str, frozenset[str]] = {}
        for line in step.lines:
            match line:
                case Version(ref, _, value):
                    values[ref.name] = value
                case Repeated():
                    read = frozenset(_read_by(line))
                    opaque |= {h.after.name: read for h in line.states}
                    opaque |= {whole.name: read for _, whole in line.own}
        made = Dependence(step, values, opaque)
        for name in values:  # in order, so that a long step is no deep recursion
            made.named(name)
        return made

    @cached_property
    def before(self) -> frozenset[str]:
        """The names of the states before the row."""
        return frozenset(ref.name for _, ref in self.step.before)

    @cached_property
    def finals(self) -> dict[str, str]:
        """Names that stand for a state as the row leaves it, with the state's."""
        found: dict[str, str] = {}
        for state, value in self.step.after:
            name = value.name if isinstance(value, Ref) else None
            while name is not None and name not in self.before:
                found.setdefault(name, state)
                next_value = self.values.get(name)
                name = next_value.name if isinstance(next_value, Ref) else None
        return found

    def of(self, expr: Expr) -> frozenset[str]:
        """The states before the row (``S.in``) that an expression depends on."""
        return frozenset[str]().union(*(self.named(name) for name in names_in(expr)))

    def named(self, name: str) -> frozenset[str]:
        """The states that a name depends on."""
        if name in self.before:
            return frozenset({name})
        if name not in self._reached:
            self._reached[name] = frozenset()
            if name in self.values:
                self._reached[name] = self.of(self.values[name])
            elif name in self.opaque:
                self._reached[name] = frozenset[str]().union(*map(self.named, self.opaque[name]))
        return self._reached[name]

    def needed(self, expr: Expr, given: Collection[str]) -> frozenset[str]:
        """The names that an expression needs, through all names but the ``given``."""
        wanted, seen = list(names_in(expr)), set[str]()
        while wanted:
            name = wanted.pop()
            if name not in seen and name not in given:
                seen.add(name)
                wanted += names_in(self.values[name]) if name in self.values else ()
        return frozenset(seen)

    def lines(self, names: frozenset[str]) -> Iterator[Expr]:
        """Every value that depends on one of ``names`` and that one of their last values needs."""
        before = dict(self.step.before)
        wanted = [value for state, value in self.step.after if before[state].name in names]
        seen: set[str] = set()
        while wanted:
            expr = wanted.pop()
            for node in walk(expr):
                if (
                    isinstance(node, Ref)
                    and node.name not in seen
                    and self.named(node.name) & names
                ):
                    seen.add(node.name)
                    if node.name in self.opaque:
                        yield node
                    elif node.name in self.values:
                        yield self.values[node.name]
                        wanted.append(self.values[node.name])


def _read_by(loop: Repeated) -> Iterator[str]:
    for handed in loop.states:
        yield from names_in(handed.before)
        yield from names_in(handed.end)
    for line in loop.lines:
        match line:
            case Version(_, _, value):
                yield from names_in(value)
            case Repeated():
                yield from _read_by(line)
