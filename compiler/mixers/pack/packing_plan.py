"""Which axes of a mixer hold several documents end to end, and the tables that say where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal as OneOf

from ....ir.errors import UnsupportedError
from ....ir.expression import Call, Expr, Index, Kind, Read, Ref, Size, call
from ....ir.mixer import Attention, Input, Mixer, Recurrence
from ....ir.rewriting import walk
from ....ir.roles import query_axis
from ....ir.stages import names_taken
from ...analysis.linear import linear

What = OneOf["first", "end", "number"]


@dataclass(frozen=True, slots=True)
class PackingTable:
    """An input [axis] int32: for each position the first (or, ``end``, one past the last) position
    along ``family`` of the document that it belongs to, or the document's ``number``."""

    name: str
    family: str
    axis: str
    what: What


@dataclass
class Families:
    """The packed axes: sequences, or the positions of a cross attention, and what follows them.

    ``base``: the axes that the caller gives boundaries for. ``derived``: axes whose length is
    computed from one of these, document by document (``N: (T + block - 1) // block``).
    """

    mixer: Mixer
    base: tuple[str, ...] = ()
    derived: tuple[tuple[str, Expr], ...] = ()
    tables: dict[tuple[str, str, What], PackingTable] = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that the caller gives boundaries for."""
        return self.base

    def of(self, dim: str) -> str | None:
        """The family that a dim runs over, if it is packed."""
        root = self.mixer.sequence(dim) or dim
        return root if root in self.base or root in dict(self.derived) else None

    def positions(self, axes: Iterable[str]) -> list[str]:
        """The packed dims among some axes, in alphabetical order."""
        return sorted(dim for dim in axes if self.of(dim) is not None)

    def edge(self, family: str, dim: str, end: bool) -> Expr:
        """Where the document at the position along ``dim`` begins (or ends) along ``family``."""
        return self._table(family, dim, "end" if end else "first")

    def number(self, dim: str) -> Expr:
        """The number of the document at the position along ``dim``, from 0."""
        family = self.of(dim)
        assert family is not None
        return self._table(family, dim, "number")

    @property
    def documents(self) -> str:
        """The axis that has a position for each document."""
        dims = {dim for i in self.mixer.inputs for dim in i.dims} | names_taken(self.mixer)
        name = "Documents"
        while name in dims or name.lower() in dims:
            name += "_"
        return name

    def _table(self, family: str, dim: str, what: What) -> Expr:
        axis = self.of(dim)
        assert axis is not None
        key = (family, axis, what)
        if key not in self.tables:
            self.tables[key] = PackingTable(self._name(*key), *key)
        table = Ref(self.tables[key].name, frozenset({axis}), Kind.INT)
        return table if dim == axis else Read(table, ((axis, Index(dim)),))

    def first(self, family: str, dim: str) -> Expr:
        """Where the document begins."""
        return self.edge(family, dim, False)

    def length(self, family: str, dim: str) -> Expr:
        """How many positions the document has."""
        return call("sub", self.edge(family, dim, True), self.first(family, dim))

    def within(self, dim: str, origin: str) -> Expr:
        """Whether the position along ``dim`` is in the document at the position of ``origin``."""
        family = self.of(dim)
        assert family is not None
        return call(
            "and",
            call("ge", Index(dim), self.first(family, origin)),
            call("lt", Index(dim), self.edge(family, origin, True)),
        )

    def covers(self, family: str, index: Expr) -> bool:
        """Whether an index is of a document's own blocks: ``i // block`` along an axis of
        ``(T + block - 1) // block`` positions."""
        match index, dict(self.derived).get(family):
            case (
                Call("floordiv", (Index(dim), block)),
                Call("floordiv", (size, divisor)),
            ) if block == divisor:
                form = linear(call("sub", size, divisor))
                sizes = [term for term, factor in form.terms if factor == 1]
                own = self.of(dim)
                return form.constant == -1 and any(
                    isinstance(s, Size) and self.of(s.dim) == own and len(form.terms) == 1
                    for s in sizes
                )
            case _:
                return False

    def inputs(self) -> tuple[Input, ...]:
        """The tables as inputs of the packed mixer."""
        return tuple(
            Input(t.name, ((t.axis,),), Kind.INT, "int32", sorted=True, grad=False)
            for t in self.tables.values()
        )

    def _name(self, family: str, axis: str, what: What) -> str:
        stem = f"{'document' if what == 'number' else what}_{family.lower()}"
        name = stem if family == axis else f"{stem}_of_{axis.lower()}"
        taken = names_taken(self.mixer) | {t.name for t in self.tables.values()}
        while name in taken:
            name += "_"
        return name


def families_of(mixer: Mixer) -> Families:
    """The packed axes of a mixer.

    These are its sequences, but for those of channels, along which a weight has a value at each
    position (``O: C``); without any, the query and key axes of its attentions; without any,
    the axis T, which is how the language calls the positions of a sequence; without one, what its
    recurrences run along.

    Raises:
        UnsupportedError: the mixer has none of these, so there is nothing to pack.
    """
    sequences = tuple(dict.fromkeys(sequence for _, sequence in mixer.sequences))
    learned = {mixer.sequence(dim) or dim for i in mixer.inputs if i.held for dim in i.dims}
    base = tuple(dim for dim in sequences if dim not in learned) or sequences
    if not base:
        base = tuple(dict.fromkeys(dim for pair in _cross_axes(mixer) for dim in pair))
    if not base and any("T" in given.dims for given in mixer.inputs):
        base = ("T",)
    if not base:
        given = {dim for i in mixer.inputs for dim in i.dims}
        run = (stage.over for stage in mixer.stages if isinstance(stage, Recurrence))
        base = tuple(dict.fromkeys(dim for dim in run if dim in given))
    if not base:
        raise UnsupportedError(
            f"{mixer.name}: no axis to pack documents along\n"
            "  allowed: a sequence (`dims: {I: T, J: T}`), an axis T, an attention or a recurrence"
        )
    found = Families(mixer, base)
    for dim, size in mixer.sizes:
        if mixer.sequence(dim) is None and (packed := _of_packed(size, found)):
            if len(packed) > 1:
                what = f"{dim} counts positions of {' and '.join(packed)} together"
                raise packing_error(mixer, size, what)
            found.derived = (*found.derived, (dim, size))
    return found


def packing_error(mixer: Mixer, term: Expr, what: str, do: str = "") -> UnsupportedError:
    """``what`` stands in the way of packing, found at ``term``; ``do`` is the way out, if any."""
    place = "" if term.span is None else f"{mixer.path or mixer.name}:{term.span.line}: "
    return UnsupportedError(
        f"{place}{mixer.name} can't be packed: {what}, and a packed row holds several documents\n"
        f"  found: {term}\n"
        "  allowed: values that belong to a position of the sequence\n"
        f"  {do + ', or ' if do else ''}call it for one document at a time, without cu_seqlens"
    )


def _of_packed(size: Expr, families: Families) -> list[str]:
    """The packed families that a size depends on."""
    names = (families.of(node.dim) for node in walk(size) if isinstance(node, Size))
    return sorted({name for name in names if name is not None})


def _cross_axes(mixer: Mixer) -> list[tuple[str, str]]:
    """(query axis, key axis) of the attentions of a mixer without sequences.

    Queries that no input has a position for (so many slots) are no documents' own.
    """
    given = {dim for i in mixer.inputs for dim in i.dims}
    found = []
    for stage in mixer.stages:
        if isinstance(stage, Attention) and stage.over in given:
            origin = paired_axis(mixer, stage)
            if origin in given:
                found.append((origin, stage.over))
    return found


def paired_axis(mixer: Mixer, stage: Attention) -> str | None:
    """The query axis whose positions are paired with the keys, where it can hold documents."""
    if not stage.queries:
        return None
    axis = query_axis(mixer, stage)
    return axis if not mixer.sequences or mixer.sequence(axis) is not None else None
