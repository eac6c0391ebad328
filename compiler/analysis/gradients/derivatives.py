"""Reverse-mode differentiation of expressions, by rules: adjoints in terms of the same nodes.

The adjoint of a value has the axes of the value, or fewer: it is the same along those it lacks.
Where a value was spread along axes, its adjoint is summed over them; a read's adjoint is a grouped
sum (or, where each position is read once, the read back), a running sum's runs the other way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import permutations

from ....ir.expression import (
    Call,
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Size,
    Solve,
    call,
)
from ..linear import Linear, expression, linear
from .partials import ONE, PARTIALS, ZERO, add, mul, where

Axes = frozenset[str]
At = tuple[tuple[str, Expr], ...]


def pullback(
    expr: Expr, adjoint: Expr, names: Collection[str], rows: Axes = frozenset()
) -> dict[str, Expr]:
    """The adjoints of ``names`` that the adjoint of ``expr`` gives; none where it has no effect.

    ``Ref("z")`` in ``exp(z * k)`` with the adjoint ``a`` --> ``a * exp(z * k) * k``, summed over
    the axes that z lacks. ``adjoint`` has no axes but those of ``expr`` and ``rows``; an axis of
    ``rows`` is never summed over (a step's row: each has an adjoint of its own).
    ``detach`` and everything of integer kind is constant.
    """
    return _Pullback(names, rows).run(expr, adjoint)


def derivative(loss: Expr, ref: Ref, rows: Axes = frozenset()) -> Expr:
    """The derivative of ``loss``, summed over its axes but ``rows``, by ``ref``.

    It has the axes of ``ref`` and ``rows``, or fewer.
    """
    return pullback(loss, ONE, (ref.name,), rows).get(ref.name, ZERO)


class _Pullback:
    def __init__(self, names: Collection[str], rows: Axes) -> None:
        self.names, self.rows = frozenset(names), rows
        self.active: dict[int, bool] = {}

    def run(self, expr: Expr, adjoint: Expr) -> dict[str, Expr]:
        adjoints: dict[int, Expr] = {id(expr): adjoint}
        found: dict[str, Expr] = {}
        for node in self.parents_first(expr):
            above = adjoints.pop(id(node), None)
            if above is None:  # its uses are constant: `sign(x)`
                continue
            if isinstance(node, Ref):
                found[node.name] = add(found.get(node.name), above)
                continue
            for child, part in self.parts(node, above):
                if self.is_active(child):
                    adjoints[id(child)] = add(adjoints.get(id(child)), part)
        return found

    def is_active(self, node: Expr) -> bool:
        """Whether a value depends on the names, other than as an integer or a constant."""
        if id(node) not in self.active:
            match node:
                case Ref(name):
                    active = name in self.names
                case Call("detach"):
                    active = False
                case _:
                    active = any(self.is_active(child) for child in node.children)
            self.active[id(node)] = active and node.kind is Kind.REAL
        return self.active[id(node)]

    def parents_first(self, expr: Expr) -> list[Expr]:
        """The active nodes, each after all that use it; a shared node once."""
        order: list[Expr] = []
        seen: set[int] = set()

        def visit(node: Expr) -> None:
            if id(node) in seen or not self.is_active(node):
                return
            seen.add(id(node))
            for child in node.children:
                visit(child)
            order.append(node)

        visit(expr)
        return order[::-1]

    def parts(self, node: Expr, above: Expr) -> Iterator[tuple[Expr, Expr]]:
        """The children of a node, each with what the node adds to its adjoint."""
        match node:
            case Call("mul", (a, b)) if a == b:
                yield a, mul(mul(Literal(2), above), a)
            case Call(fn, args):
                for number, arg in enumerate(args):
                    if self.is_active(arg):
                        part = PARTIALS[fn](node, above, number)
                        if part is not None:
                            yield arg, sum_to(part, node.axes, arg.axes | self.rows)
            case Reduce():
                yield node.x, self.of_reduction(node, above)
            case Read(x, at):
                yield x, self.of_read(x, at, above)
            case Cumsum(x, over, reverse, exclusive):
                yield x, Cumsum(along(above, over), over, not reverse, exclusive)
            case Solve():
                yield from self.of_solve(node, above)
            case _:
                raise TypeError(f"no derivative of {type(node).__name__}")

    def of_reduction(self, node: Reduce, above: Expr) -> Expr:
        inner = frozenset[str]().union(*(child.axes for child in node.children))
        part = _spread(above, node.group)
        match node.op:
            case "sum":
                pass
            case "max" | "min":
                chosen = call("eq", node.x, _spread(node, node.group))
                share = Reduce(
                    "sum", call("where", chosen, 1.0, 0.0), node.over, node.where, node.group
                )
                part = where(chosen, call("div", part, _spread(share, node.group)))
            case "prod":
                part = mul(part, _others(node))
            case _:
                raise TypeError(f"no derivative of the reduction {node.op}")
        if node.where is not None:
            part = where(node.where, part)
        return sum_to(part, inner, node.x.axes | self.rows)

    def of_read(self, x: Expr, at: At, above: Expr) -> Expr:
        return self._of_axes(x.axes, at, above)

    def _of_axes(self, axes: Axes, at: At, above: Expr) -> Expr:
        """The adjoint of a value of some axes that is read."""
        keys = {dim for dim, _ in at}
        index_axes = frozenset[str]().union(*(index.axes for _, index in at))
        kept = axes - keys
        if (back := _read_back(at, kept, above, self.rows)) is not None:
            return back
        if (runs := _sum_of_runs(at, axes, above)) is not None:
            return runs
        if (apart := _split_apart(at)) is not None:
            split, rest, source = apart
            others = axes - {dim for dim, _ in split}
            made = self._of_axes(others | {source}, rest, above)
            back = _read_back(split, others, made, self.rows)
            if back is not None:
                return back
        over = tuple(sorted(index_axes - kept - self.rows))
        if not over:  # one place is read: it gets everything
            for dim, index in at:
                above = where(call("eq", Index(dim), index), above)
            return above
        return Reduce("sum", above, over, None, at)

    def of_solve(self, node: Solve, above: Expr) -> Iterator[tuple[Expr, Expr]]:
        """w with sum(A * w, left) == above is b's adjoint; A's is - w * x, x the solution."""
        right, left = node.right, node.left
        w = Solve(node.matrix, along(above, right), right, left)
        axes = node.axes | {left}
        yield node.vector, sum_to(w, axes - {right}, node.vector.axes | self.rows)
        yield node.matrix, sum_to(call("neg", mul(w, node)), axes, node.matrix.axes | self.rows)


def sum_to(part: Expr, axes: Axes, kept: Axes) -> Expr:
    """A value over ``axes``, the same along those it lacks, summed over those not ``kept``."""
    extra = sorted(axes - kept)
    for dim in extra:
        if dim not in part.axes:
            part = mul(part, Size(dim))
    over = tuple(dim for dim in extra if dim in part.axes)
    return Reduce("sum", part, over) if over else part


def _read_back(at: At, kept: Axes, above: Expr, rows: Axes) -> Expr | None:
    """The adjoint of a read that takes each position at most once: the same positions, read back.

    ``x[D=p, P=d]`` --> ``above[P=d, D=p]``; ``x[T=t - n]`` --> ``above[T=t + n]``;
    ``x[T=t - l]`` --> ``sum(above[T=t + l], L)``: once for each l;
    ``x[H=g * n]`` --> ``above[G=h // n]`` where n divides h.
    """
    inverse = _inverses_around_splits(at)
    if inverse is None:
        return None
    back, taken = inverse
    sources, keys = {source for source, _ in back}, {dim for dim, _ in at}
    if len(sources) < len(back) or sources & kept:
        return None
    turns = frozenset[str]().union(*(index.axes for _, index in at)) - sources
    moving = frozenset[str]().union(*(place.axes for _, place in back)) - keys
    if turns & keys or moving & sources:
        return None
    moved = _moved_back(back, taken, above)
    return sum_to(moved, moved.axes | turns, (moved.axes | turns) - (turns - kept - rows))


def _moved_back(back: list[tuple[str, Expr]], taken: list[Expr], above: Expr) -> Expr:
    present = tuple((source, place) for source, place in back if source in above.axes)
    moved = _read_product(above, present) if present else above
    for source, place in back:
        if source not in above.axes:  # the same for all that read: the positions that they read
            inside = call("and", call("ge", place, 0), call("lt", place, Size(source)))
            moved = where(inside, moved)
    for condition in taken:
        moved = where(condition, moved)
    return moved


def _read_product(x: Expr, at: At) -> Expr:
    """``(h * x)[T=e]`` --> ``h * x[T=e]`` where h has no T: no product of all with all is named."""
    match x:
        case Call("mul", (a, b)):
            for one, other in ((a, b), (b, a)):
                if one.axes.isdisjoint(dim for dim, _ in at):
                    read = _read_product(other, at)
                    return mul(one, read) if one is a else mul(read, one)
    return Read(x, at)


def _inverses(at: At) -> tuple[list[tuple[str, Expr]], list[Expr]] | None:
    """Where each position that is read is read from, and which are read at all."""
    back: list[tuple[str, Expr]] = []
    taken: list[Expr] = []
    for dim, index in at:
        place = Index(dim)
        match index:
            case Call("mul", (Index(source), n)) if _is_count(n):
                back.append((source, call("floordiv", place, n)))
                taken.append(call("eq", call("mod", place, n), 0))
            case Call("add", (Call("mul", (Index(source), n)), m)) if _is_count(n) and not m.axes:
                from_first = call("sub", place, m)
                back.append((source, call("floordiv", from_first, n)))
                taken.append(call("eq", call("mod", from_first, n), 0))
            case Call("add", (Call("mul", (Index(row), Size(n))), Index(turn))) if n == turn:
                back.append((row, call("floordiv", place, Size(n))))
                back.append((turn, call("mod", place, Size(n))))
            case _:
                if (found := _moved(index, dim)) is not None:
                    back.append(found)
                    continue
                if (strided := _strided(index, dim)) is None:
                    return None
                source, start, stride = strided
                back.append((source, call("floordiv", start, stride)))
                taken.append(call("eq", call("mod", start, stride), 0))
    return back, taken


def _strided(index: Expr, dim: str) -> tuple[str, Expr, int] | None:
    """``(n + 1) * 64 - 1`` --> (N, j - 63, 64): where it is read from, if that divides."""
    form = linear(index)
    match [(term, c) for term, c in form.terms if term.axes]:
        case [(Index(source) as term, int(stride))] if source != dim and abs(stride) > 1:
            sign = 1 if stride > 0 else -1
            back = Linear(((Index(dim), 1),), 0).plus(form.without(term).scaled(-1))
            return source, expression(back.scaled(sign)), abs(stride)
    return None


def _moved(index: Expr, dim: str) -> tuple[str, Expr] | None:
    """The axis along which an index is a position moved or turned round, and the way back.

    ``t - n`` is read at ``t + n``, ``n - t`` at ``n - t``, ``(t - n) % T`` at ``(t + n) % T``.
    Where several axes are, it is the one that is read, else the one written first.
    """
    match index:
        case Call("mod", (inner, Size(size))) if size == dim:
            found = _moved(inner, dim)
            if found is None or found[0] != dim:
                return None
            return dim, call("mod", found[1], Size(dim))
    form = linear(index)
    units = {t.dim: t for t, c in form.terms if isinstance(t, Index) and abs(c) == 1}
    if not units:
        return None
    term = units.get(dim, next(iter(units.values())))
    sign, rest = dict(form.terms)[term], form.without(term)
    if any({term.dim, dim} & part.axes for part, _ in rest.terms):
        return None
    return term.dim, expression(Linear(((Index(dim), 1),), 0).plus(rest.scaled(-1)).scaled(sign))


def _inverses_around_splits(at: At) -> tuple[list[tuple[str, Expr]], list[Expr]] | None:
    """``x[T=f // R, R=f % R]`` is read at f = t * R + r, whatever else is read beside."""
    for pair in permutations(at, 2):
        if (found := _inverse_of_split(pair)) is not None:
            rest = _inverses_around_splits(tuple(part for part in at if part not in pair))
            return None if rest is None else ([*found[0], *rest[0]], rest[1])
    return _inverses(at)


def _split_apart(at: At) -> tuple[At, At, str] | None:
    """The two of several reads that take an axis apart, the others, and that axis.

    ``x[G=g, T=f // R, R=f % R]`` --> ``x[T=f // R, R=f % R]`` and ``G=g``, F
    """
    for pair in permutations(at, 2):
        found = _inverse_of_split(pair)
        rest = tuple(entry for entry in at if entry not in pair)
        if found is None or not rest:
            continue
        ((source, _),) = found[0]
        if all(source not in index.axes for _, index in rest):
            return pair, rest, source
    return None


def _inverse_of_split(at: At) -> tuple[list[tuple[str, Expr]], list[Expr]] | None:
    """``x[T=f // R, R=f % R]`` is read at f = t * R + r; None for any other reads."""
    match at:
        case (
            (row, Call("floordiv", (Index(one), Size(n)))),
            (turn, Call("mod", (Index(other), Size(m)))),
        ) if one == other and n == m == turn:
            return [(one, call("add", call("mul", Index(row), Size(n)), Index(turn)))], []
    return None


def _sum_of_runs(at: At, axes: Axes, above: Expr) -> Expr | None:
    """``x[T=f // R]`` is read by R positions in a row: the sum of ``above[F=t * R + r]`` over r."""
    match at:
        case ((row, Call("floordiv", (Index(source), Size(turn)))),) if source in above.axes:
            if {row, turn} & above.axes or turn in axes:
                return None
            place = call("add", call("mul", Index(row), Size(turn)), Index(turn))
            return Reduce("sum", Read(above, ((source, place),)), (turn,))
    return None


def _is_count(n: Expr) -> bool:
    """Whether a number is 1 or more wherever something is read: a quotient of sizes."""
    match n:
        case Size():
            return True
        case Call("floordiv", (Size(), Size())):
            return True
    return isinstance(n, Literal) and n.value >= 1


def _others(node: Reduce) -> Expr:
    """For each factor of a product, the product of the others; exact where factors are 0."""
    zero = call("eq", node.x, 0)
    zeros = Reduce("sum", call("where", zero, 1, 0), node.over, node.where, node.group)
    rest = Reduce("prod", call("where", zero, 1, node.x), node.over, node.where, node.group)
    zeros_here, rest_here = _spread(zeros, node.group), _spread(rest, node.group)
    divided = call("div", rest_here, call("where", zero, 1, node.x))
    none = call("where", call("eq", zeros_here, 0), divided, 0.0)
    return call("where", zero, call("where", call("eq", zeros_here, 1), rest_here, 0.0), none)


def _spread(value: Expr, group: tuple[tuple[str, Expr], ...]) -> Expr:
    """What a grouped reduction has for the group of each position; 0 outside the groups."""
    for dim, index in group:
        if dim not in value.axes:
            inside = call("and", call("ge", index, 0), call("lt", index, Size(dim)))
            value = where(inside, value)
    at = tuple((dim, index) for dim, index in group if dim in value.axes)
    return Read(value, at) if at else value


def along(value: Expr, dim: str) -> Expr:
    """The value with the axis ``dim``, along which it is the same."""
    return value if dim in value.axes else where(call("ge", Index(dim), 0), value)


__all__ = ["along", "derivative", "pullback", "sum_to"]
