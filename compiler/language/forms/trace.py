"""What a step has assigned so far, in single assignment, and derivatives through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ....ir.expression import Expr, Literal, Ref, call
from ....ir.mixer import Equation, Line
from ....ir.names import names_in
from ....ir.rewriting import every_node, rebuild, shared, with_names
from ...analysis.gradients.derivatives import pullback, sum_to

_LARGE, _PART = 12, 4  # nodes of an adjoint, and of a part of one, that gets a line


@dataclass(frozen=True, eq=False)
class Version:
    """A name with the value that one line gave it.

    There is no value where an inner loop gave it, or the row or round before: it may then depend
    on any of the versions ``of`` (until the loop is read whole, any before it).
    """

    ref: Ref  # by a name of its own
    name: str  # what the mixer calls it
    value: Expr | None
    block: list[Line]  # the lines among which it is assigned
    at: int  # where among them a copy of it would stand
    of: list[str] = field(default_factory=list)


@dataclass
class Trace:
    """The versions of every name of a step, in order."""

    unused: Callable[[str], str]  # a name for a copy
    by_name: dict[str, Version] = field(default_factory=dict)  # by the names of their own, in order
    now: dict[str, Version] = field(default_factory=dict)
    copies: dict[Version, Equation] = field(default_factory=dict)
    block: list[Line] = field(default_factory=list)  # the lines that the next one goes to
    adjoints: dict[Expr, Ref] = field(default_factory=dict)  # those that have a line, by versions

    @property
    def versions(self) -> list[Version]:
        """All so far."""
        return list(self.by_name.values())

    def assign(
        self, ref: Ref, value: Expr | None, block: list[Line], of: Iterable[str] = ()
    ) -> None:
        """Note that ``ref`` has a new value at the end of ``block``."""
        own = None if value is None else self.single(value)
        unique = Ref(f"{ref.name}@{len(self.by_name)}", ref.axes, ref.kind)
        version = Version(unique, ref.name, own, block, len(block), [*of])
        self.now[ref.name] = self.by_name[unique.name] = version

    def close(self, first: int, name: str, outside: Version | None) -> list[str]:
        """An inner loop has been read whole, its versions from ``first`` on; on which versions a
        name that it assigns may depend after it."""
        own = [version for version in self.versions[first:] if version.name == name]
        of = [own[-1].ref.name, *([outside.ref.name] if outside is not None else [])]
        if own[0].value is None:  # a state, as the round before left it
            own[0].of[:] = of
        return of

    def single(self, value: Expr) -> Expr:
        """A value of the step by the versions that it reads now."""
        read = names_in(value) & self.now.keys()
        return with_names(value, {name: self.now[name].ref for name in read})

    def plain(self, value: Expr, name: str) -> Expr:
        """A value by versions as the step has it; what is overwritten already is read from a copy.

        ``p@3`` --> ``p``, or ``p_kept`` with a line ``p_kept = p`` before p changes. What the value
        uses more than once gets lines ``name_part = ...`` before the line at hand.
        """
        names = names_in(value) & self.by_name.keys()
        whole = shared(with_names(value, {used: self._read(self.by_name[used]) for used in names}))
        return self._with_parts(whole, name)

    def _with_parts(self, whole: Expr, name: str) -> Expr:
        uses = Counter(id(child) for node in every_node([whole]) for child in node.children)
        done: dict[int, Expr] = {}

        def change(node: Expr) -> Expr:
            if id(node) not in done:
                new = rebuild(node, change)
                if uses[id(node)] > 1 and node.axes and node.children and _has(new, _PART):
                    new = self._line(f"{name}_part", new)
                done[id(node)] = new
            return done[id(node)]

        return change(whole)

    def _line(self, name: str, value: Expr) -> Ref:
        """A line of its own before the one at hand."""
        equation = Equation(self.unused(name), value)
        self.block.append(equation)
        self.assign(equation.ref, value, self.block)
        return equation.ref

    def named(self, name: str, adjoint: Expr) -> Expr:
        """A large adjoint gets a line of its own, once, before the line at hand."""
        if not _has(adjoint, _LARGE):
            return adjoint
        if adjoint not in self.adjoints:
            line = self._line(f"{name}_grad", self.plain(adjoint, f"{name}_grad"))
            self.adjoints[adjoint] = self.now[line.name].ref
        return self.adjoints[adjoint]

    def _read(self, version: Version) -> Ref:
        ref = Ref(version.name, version.ref.axes, version.ref.kind)
        if self.now[version.name] is version:
            return ref
        if version not in self.copies:
            self.copies[version] = Equation(self.unused(f"{version.name}_kept"), ref)
        return self.copies[version].ref

    def with_copies(self, block: list[Line]) -> tuple[Line, ...]:
        """The lines of a block, with those that keep what is overwritten."""
        found = list(block)
        own = [version for version in self.copies if version.block is block]
        for version in sorted(own, key=lambda v: v.at, reverse=True):
            found.insert(version.at, self.copies[version])
        return tuple(found)


class OpaqueError(Exception):
    """The derivative would go through the inner loop that assigns ``name``."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def gradient(trace: Trace, loss: Expr, ref: Ref, rows: frozenset[str]) -> Expr:
    """The derivative of the loss, summed over its axes but ``rows``, by a name's latest value.

    It is in terms of versions. Lines before that value was assigned are constant.

    Raises:
        OpaqueError: an inner loop lies between.
    """
    target = trace.now[ref.name]
    single = trace.single(loss)
    versions = trace.versions
    later = versions[versions.index(target) + 1 :]
    active, before = {target.ref.name}, 0
    while len(active) > before:  # a loop's first version may depend on its last
        before = len(active)
        active |= {version.ref.name for version in later if _depends(version, active)}
    adjoints = pullback(single, Literal(1.0), active, rows)
    for version in reversed(later):
        above = adjoints.pop(version.ref.name, None)
        if above is None:
            continue
        if version.value is None:
            raise OpaqueError(version.name)
        value = version.value
        above = trace.named(version.name, sum_to(above, version.ref.axes, value.axes | rows))
        for name, part in pullback(value, above, active, rows).items():
            adjoints[name] = call("add", adjoints[name], part) if name in adjoints else part
    return adjoints.get(target.ref.name, Literal(0.0))


def _has(expr: Expr, count: int) -> bool:
    """Whether an expression has so many nodes as a tree, of which there may be far more."""
    pending, seen = [expr], 0
    while pending and seen < count:
        pending += pending.pop().children
        seen += 1
    return seen == count


def _depends(version: Version, active: set[str]) -> bool:
    if version.value is None:
        return not active.isdisjoint(version.of)
    return not active.isdisjoint(names_in(version.value))


__all__ = ["OpaqueError", "Trace", "Version", "gradient"]
