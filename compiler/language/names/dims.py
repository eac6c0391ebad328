"""What a spec says about its dims: sequences, derived sizes, head groups; values meeting."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce

from ....ir.expression import Call, Expr, Index, Literal, Read, Reduce, Size, Span, call
from ....ir.rewriting import rebuild, transform
from ....ir.roles import group_of
from ..terms.complexes import Complex, complex_call, parts, together


@dataclass
class Dims:
    """The dims of one spec, and those that expansions add while it is loaded."""

    known: set[str]
    sequences: dict[str, str] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, Expr] = field(default_factory=dict)
    tensor: set[str] = field(default_factory=set)  # axes of inputs and tables
    used: dict[str, Span | None] = field(default_factory=dict)  # in expressions, where first
    products: dict[str, tuple[str, ...]] = field(default_factory=dict)  # the axes that one counts

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

    def equal(self, a: str, b: str) -> bool:
        """Note that two dims have one length, where nothing says so yet; false: they have two."""
        first, last = self._like(a), self._like(b)
        if first == last:
            return True
        if last not in self.sizes and last not in self.sequences:
            self.sizes[last] = Size(first)
        elif first not in self.sizes and first not in self.sequences:
            self.sizes[first] = Size(last)
        else:
            lengths = self.sizes.get(first), self.sizes.get(last)
            return not all(isinstance(n, Literal) for n in lengths) or lengths[0] == lengths[1]
        return True

    def _like(self, dim: str) -> str:
        """The last of the dims that ``dim`` has its length from; round a circle, itself."""
        seen = set[str]()
        while isinstance(size := self.sizes.get(dim), Size) and dim not in seen:
            seen.add(dim)
            dim = size.dim
        return dim

    def fresh(self, dim: str) -> str:
        """A further position variable over ``dim``, new each time."""
        number = 2
        while (name := f"{dim}_{number}") in self.known:
            number += 1
        self.known.add(name)
        self.sizes[name] = Size(dim)
        if dim in self.sequences:
            self.sequences[name] = self.sequences[dim]
        return name

    def blocks(self, dim: str, block: int) -> tuple[str, str]:
        """Two axes whose positions, the first one's times ``block`` and the second one's, count
        those of ``dim`` and what fills its last block."""
        whole = call("floordiv", call("add", Size(dim), block - 1), block)
        made = []
        for word, size in ((f"{dim}_blocks", whole), (f"{dim}_places", Literal(block))):
            name, number = word, 2
            while name in self.known:
                name, number = f"{word}_{number}", number + 1
            self.known.add(name)
            self.sizes[name] = size
            made.append(name)
        return made[0], made[1]

    def product(self, dims: Sequence[str]) -> str:
        """The axis that counts the positions of several, the last one fastest."""
        known = (made for made, axes in self.products.items() if axes == (*dims,))
        if (made := next(known, None)) is not None:
            return made
        wish, number = "_".join(dims), 2
        made = wish
        while made in self.known:
            made, number = f"{wish}_{number}", number + 1
        self.known.add(made)
        self.products[made] = (*dims,)
        sizes: list[Expr] = [Size(dim) for dim in dims]
        self.sizes[made] = reduce(partial(call, "mul"), sizes)
        return made

    def unfolded(self, value: Expr) -> Expr:
        """``value`` with the axes that products stand for."""
        for made in sorted(value.axes & self.products.keys()):
            first, *others = self.products[made]
            place: Expr = Index(first)
            for dim in others:
                place = call("add", call("mul", place, Size(dim)), Index(dim))
            value = Read(value, ((made, place),))
        return value

    def release(self, x: Expr, keys: Collection[str], index_axes: Collection[str]) -> Expr:
        """``x`` with the positions reduced inside it renamed, before it is read at an index.

        ``sum(a, J)`` --> ``sum(a[J=j_2], J_2)`` where a has one of ``keys`` and the index a J of
        its own: so that putting the index in place of the key mixes up nothing.
        """

        def change(node: Expr) -> Expr | None:
            if not isinstance(node, Reduce):
                return None
            clash = sorted(set(node.over) & set(index_axes))
            inner = frozenset[str]().union(*(child.axes for child in node.children))
            if not clash or (inner - set(node.over)).isdisjoint(keys):
                return None
            names = {dim: self.fresh(dim) for dim in clash}
            moved = rebuild(node, lambda child: _moved(child, names))
            assert isinstance(moved, Reduce)
            return replace(moved, over=tuple(names.get(dim, dim) for dim in node.over))

        return transform(x, change)

    def larger(self, dim: str) -> list[str]:
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
        if isinstance(value, Complex):
            return together(self.lift(part, axes, keep) for part in parts(value))
        present = frozenset(axes)
        at = []
        for small in sorted(value.axes & self.heads.keys() - set(keep)):
            target = next((d for d in reversed(self.larger(small)) if d in present), None)
            if target is not None and target not in value.axes:
                at.append((small, group_of(small, target)))
        if not at:
            return value
        heads = [index_axis for _, e in at for index_axis in e.axes]
        released = self.release(value, [small for small, _ in at], heads)
        return Read(released, tuple(at), span=value.span)

    def align(self, *values: Expr) -> tuple[Expr, ...]:
        """Values that meet: head groups lifted to the heads of the others."""
        if not self.heads:
            return values
        axes = frozenset[str]().union(*(v.axes for v in values))
        return tuple(self.lift(v, axes) for v in values)

    def call(self, fn: str, *args: Expr | float, span: Span | None = None) -> Expr:
        """An elementwise call whose arguments meet; of complex numbers where one is."""
        plain = call(fn, *args, span=span)
        if any(isinstance(arg, Complex) for arg in plain.args):
            return complex_call(self.call, fn, self.align(*plain.args), span)
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


def _moved(expr: Expr, names: Mapping[str, str]) -> Expr:
    """``expr`` at other positions: each dim of ``names`` replaced by its new name."""
    if expr.axes.isdisjoint(names):
        return expr
    match expr:
        case Index(dim):
            return Index(names[dim], span=expr.span)
        case Call():
            return rebuild(expr, lambda child: _moved(child, names))
        case _:
            at = ((dim, Index(names[dim])) for dim in sorted(expr.axes & names.keys()))
            return Read(expr, tuple(at), span=expr.span)


__all__ = ["Dims"]
