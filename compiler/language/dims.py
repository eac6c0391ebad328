"""What a spec says about its dims: sequences, derived sizes, head groups; values meeting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ...ir.expression import Call, Expr, Index, Read, Reduce, Size, Span, call


@dataclass
class Dims:
    """The dims of one spec, and those that expansions add while it is loaded."""

    known: set[str]
    sequences: dict[str, str] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, Expr] = field(default_factory=dict)
    tensor: set[str] = field(default_factory=set)  # axes of inputs and tables
    used: dict[str, Span | None] = field(default_factory=dict)  # in expressions, where first

    def sequence(self, dim: str) -> str:
        """The sequence whose positions ``dim`` runs over; a dim of its own is its own."""
        return self.sequences.get(dim, dim)

    def indexed(self, name: str) -> list[str]:
        """The dims whose index is spelled ``name``."""
        return [dim for dim in sorted(self.known) if dim.lower() == name]

    def use(self, dim: str, span: Span | None) -> str:
        """Note that an expression needs the size of ``dim``."""
        self.used.setdefault(dim, span)
        return dim

    def fresh(self, dim: str) -> str:
        """A further position variable over ``dim``."""
        number = 2
        while (name := f"{dim}_{number}") in self.known and name not in self.sizes:
            number += 1
        if name in self.known and self.sizes[name] != Size(dim):
            return self.fresh(name)
        self.known.add(name)
        self.sizes[name] = Size(dim)
        if dim in self.sequences:
            self.sequences[name] = self.sequences[dim]
        return name

    def _larger(self, dim: str) -> list[str]:
        """The head dims that ``dim`` divides, nearest first."""
        found = []
        while dim in self.heads and self.heads[dim] not in found:
            dim = self.heads[dim]
            found.append(dim)
        return found

    def lift(self, value: Expr, axes: Iterable[str], keep: Iterable[str] = ()) -> Expr:
        """``value`` with head groups read per head where ``axes`` has the heads.

        ``x[G]`` among axes with H --> ``x[G=h // (H // G)]``. Dims in ``keep`` stay as they are.
        """
        present = frozenset(axes)
        at = []
        for small in sorted(value.axes & self.heads.keys() - set(keep)):
            target = next((d for d in reversed(self._larger(small)) if d in present), None)
            if target is not None and target not in value.axes:
                ratio = call("floordiv", Size(target), Size(small))
                at.append((small, call("floordiv", Index(target), ratio)))
        return Read(value, tuple(at), span=value.span) if at else value

    def align(self, *values: Expr) -> tuple[Expr, ...]:
        """Values that meet: head groups lifted to the heads of the others."""
        if not self.heads:
            return values
        axes = frozenset[str]().union(*(v.axes for v in values))
        return tuple(self.lift(v, axes) for v in values)

    def call(self, fn: str, *args: Expr | float, span: Span | None = None) -> Call:
        """An elementwise call whose arguments meet."""
        plain = call(fn, *args, span=span)
        return Call(fn, self.align(*plain.args), span=span)

    def reduce(
        self,
        op: str,
        x: Expr,
        over: tuple[str, ...],
        where: Expr | None = None,
        group: tuple[tuple[str, Expr], ...] = (),
        span: Span | None = None,
    ) -> Reduce:
        """A reduction whose operands meet."""
        parts = self.align(x, *([] if where is None else [where]), *(e for _, e in group))
        rest = parts[1:]
        if where is not None:
            where, rest = rest[0], rest[1:]
        names = (dim for dim, _ in group)
        return Reduce(op, parts[0], over, where, tuple(zip(names, rest, strict=True)), span=span)


__all__ = ["Dims"]
