"""Reductions over axes that a tile holds: dots where the terms separate, else element by element.

``sum(q * k, D)`` separates when its factors fall into two groups that share no axis of the tile
but D: then it is a matrix product. What does not separate (``sum(w * tanh(q + k), D)``) runs as a
loop over D with one position at a time, so that no three-dimensional tile is ever held.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.expression import Call, Cumsum, Expr, Kind, Literal, Read, Reduce, Ref, Solve, call
from ...ir.host import is_host
from ...ir.rewriting import bound_axes, walk
from ...ir.tile import DType, Value
from ..analysis.conditions import all_of, conditions_of
from .admitted import steps_for_rows
from .evaluator import Evaluator
from .exactness import are_exact
from .row_by_row import is_too_deep, row_by_row, settle
from .sums import accumulate, count, product, seen
from .written_out import is_written_out, written_out

# Of finite numbers these are finite, and far from too large.
_FINITE = frozenset("exp exp2 add sub mul neg max min abs tanh sigmoid sin cos".split())


def reduce_on_tile(evaluator: Evaluator, expr: Reduce, hint: str) -> Value:
    """A reduction whose axes are all on the tile."""
    for dim in expr.over:
        evaluator.position(dim)
    if expr.op == "sum" and expr.x.kind is Kind.REAL:
        return contract(evaluator, factors_of(expr.x), expr.over, expr.where, hint)
    return _reduce_elements(evaluator, expr, hint)


def _reduce_elements(evaluator: Evaluator, expr: Reduce, hint: str) -> Value:
    builder = evaluator.builder
    parts = [expr.x] if expr.where is None else [expr.x, expr.where]
    held = _tile_axes(evaluator, parts) - set(expr.over)
    if expr.over and len(held) > 1 and _can_step(evaluator, expr.over, parts):
        return step_reduce(evaluator, expr, hint)
    dtype = reduced_dtype(evaluator, expr)
    value = evaluator.spread(_admitted(evaluator, expr, dtype), frozenset(expr.over))
    op = {"any": "max", "all": "min"}.get(expr.op, expr.op)
    for dim in expr.over:
        value = builder.reduce(op, value, dim, hint)
    return as_truth(evaluator, expr, value, hint)


def reduced_dtype(evaluator: Evaluator, expr: Reduce) -> DType:
    """The type in which a reduction runs: truth values as integers."""
    return DType.INT32 if expr.op in ("any", "all") else evaluator.dtype_of(expr)


def as_truth(evaluator: Evaluator, expr: Reduce, value: Value, hint: str) -> Value:
    """What a reduction has come to; of ``any`` and ``all``, whether it is not 0."""
    if expr.op not in ("any", "all"):
        return value
    zero = evaluator.builder.constant(0, DType.INT32)
    return evaluator.builder.elementwise("ne", value, zero, dtype=DType.BOOL, hint=hint)


def _admitted(evaluator: Evaluator, expr: Reduce, dtype: DType) -> Value:
    """What is reduced, with the identity where nothing is."""
    builder = evaluator.builder
    value = builder.cast(evaluator.evaluate(expr.x), dtype)
    admitted = evaluator.bounds_of(expr.over)
    if expr.where is not None:
        admitted = evaluator.both(admitted, evaluator.condition(expr.where))
    if admitted is None:
        return value
    outside = builder.constant(evaluator.identity(expr.op, dtype), dtype)
    return evaluator.where(admitted, value, outside)


def step_reduce(
    evaluator: Evaluator, expr: Reduce, hint: str, part: tuple[Value, Value] | None = None
) -> Value:
    """One position of the first axis at a time, so that no three-dimensional tile is held.

    ``part``: the first position and the end, where not all are gone through; all of them exist.
    """
    builder, dtype = evaluator.builder, reduced_dtype(evaluator, expr)
    dim, *rest = expr.over
    parts = [expr.x] if expr.where is None else [expr.x, expr.where]
    settle(evaluator, parts, dim)
    held = _tile_axes(evaluator, parts, expr.over)
    start = builder.constant(evaluator.identity(expr.op, dtype), dtype, held)
    begin, end = part or (builder.constant(0, DType.INT32), evaluator.size(dim))
    name = hint or f"{expr.op}_{dim.lower()}"
    with builder.loop(dim.lower(), begin, end, 1, [(name, start)]) as loop:
        builder.place(dim, loop.variable)
        if rest:
            inner = Reduce(expr.op, expr.x, tuple(rest), expr.where)
            value = builder.cast(evaluator.evaluate(inner), dtype)
        else:
            value = _admitted(evaluator, expr, dtype)
        loop.yields = (evaluator.merge(expr.op, loop.carried[0], value, hint),)
    return as_truth(evaluator, expr, loop.results[0], hint)


# ------------------------------------------------------------------------------------ factors


def factors_of(expr: Expr) -> list[Expr]:
    """The factors of a product: a * b / c --> [a, b, 1 / c].

    A quotient that has no more axes than its divisor is one factor: nothing could be taken out, and
    it is the number that it is elsewhere, to the bit (``x - mean(x, H)`` is 0 where H is 1).
    """
    match expr:
        case Call("mul", (a, b)):
            return factors_of(a) + factors_of(b)
        case Call("neg", (a,)):
            return [Literal(-1.0), *factors_of(a)]
        case Call("div", (a, b)) if not a.axes <= b.axes:
            return [*factors_of(a), call("div", 1.0, b)]
        case _:
            return [expr]


def contract(
    evaluator: Evaluator,
    factors: list[Expr],
    over: tuple[str, ...],
    where: Expr | None = None,
    hint: str = "",
    acc: Value | None = None,
    mask: Expr | None = None,
) -> Value:
    """acc + the sum over ``over`` (on the tile) of the product of ``factors``.

    ``mask``: the factor that is 0 where pairs are hidden; what others hold there counts for
    nothing, even if it is infinite or NaN.
    """
    conditions = conditions_of(where)
    if free := all_of([c for c in conditions if not c.axes & set(over)]):
        bound = all_of([c for c in conditions if c.axes & set(over)])
        value = contract(evaluator, factors, over, bound, hint, mask=mask)
        zero = evaluator.builder.constant(0.0, DType.FLOAT32)
        value = evaluator.where(evaluator.condition(free), value, zero, hint)
        return accumulate(evaluator, [acc, value], hint)
    outside = [f for f in factors if not f.axes & set(over)]
    inside = [f for f in factors if f.axes & set(over)]
    if conditions and not all(is_host(f) for f in outside):
        return _scaled(evaluator, inside, outside, over, conditions, hint, acc, mask)
    if conditions:
        inside, mask = _admit(inside, conditions)
    if len(terms := _terms(evaluator, inside, over)) > 1:
        for term in terms:  # one on top of the other: no tile beside what is summed up
            acc = contract(evaluator, term + outside, over, None, hint, acc, mask)
        assert acc is not None
        return acc
    if outside and acc is None:
        inner = contract(evaluator, inside, over, None, hint, mask=mask) if inside else None
        scale = [evaluator.real(f) for f in outside]
        if inner is None:
            inner = count(evaluator, over)
        return seen(evaluator, [*scale, inner], mask if mask in outside else None, hint)
    if outside and _is_dot(evaluator, inside, over) and not _tile_axes(evaluator, outside):
        inside = _with_numbers(evaluator, inside, outside, over)
    elif outside:
        both = contract(evaluator, inside + outside, over, None, hint, mask=mask)
        return accumulate(evaluator, [acc, both], hint)
    return _contract_inside(evaluator, inside, over, hint, acc, mask if mask in inside else None)


def _with_numbers(
    evaluator: Evaluator, inside: list[Expr], numbers: list[Expr], over: tuple[str, ...]
) -> list[Expr]:
    """The factors of a dot with numbers among those of the side that is made anyway: what the dot
    adds to may be a state, of which a second tile would fill the registers."""
    sides = [members for _, members in _groups(evaluator, inside, over)]
    first, second = sorted(
        sides, key=lambda side: len(side) < 2 and is_zero_outside(evaluator, side[0])
    )
    return [*first, *numbers, *second]


def _scaled(
    evaluator: Evaluator,
    inside: list[Expr],
    outside: list[Expr],
    over: tuple[str, ...],
    conditions: list[Expr],
    hint: str,
    acc: Value | None,
    mask: Expr | None,
) -> Value:
    """acc + a sum times factors that may be infinite: 0 where nothing is admitted."""
    admitted = all_of(conditions)
    assert admitted is not None
    value = contract(evaluator, inside, over, admitted, mask=mask)
    scale = [evaluator.real(factor) for factor in outside]
    value = seen(evaluator, [*scale, value], mask if mask in outside else None)
    some = evaluator.condition(Reduce("any", admitted, over))
    zero = evaluator.builder.constant(0.0, DType.FLOAT32)
    return accumulate(evaluator, [acc, evaluator.where(some, value, zero, hint)], hint)


def _contract_inside(
    evaluator: Evaluator,
    inside: list[Expr],
    over: tuple[str, ...],
    hint: str,
    acc: Value | None,
    mask: Expr | None,
) -> Value:
    groups = _groups(evaluator, inside, over)
    builder = evaluator.builder
    if len(groups) == 2 and len(over) == 1 and all(len(axes) == 1 for axes, _ in groups):
        groups.sort(key=lambda group: mask is not None and mask not in group[1])
        context = evaluator.context
        wide = context.exact and not all(are_exact(members, context) for _, members in groups)
        dtype = DType.FLOAT32 if wide else context.dtype
        a, b = (_operand(evaluator, members, over[0], dtype) for _, members in groups)
        return builder.dot(a, b, over[0], acc, hint, masked=mask is not None, exact=wide)
    held = frozenset[str]().union(*(axes for axes, _ in groups))
    if len(held) <= 1 or not _can_step(evaluator, over, inside):
        if len(over) == 1 and is_too_deep(evaluator, held | {*over}):
            return _row_by_row(evaluator, inside, over[0], hint, acc, mask)
        value = seen(evaluator, [evaluator.real(f) for f in inside], mask)
        for dim in over:
            if not _vanishes_outside(evaluator, [f for f in inside if dim in f.axes]):
                value = evaluator.masked(value, dim, 0.0)
        value = evaluator.spread(value, frozenset(over))
        for dim in over:
            value = builder.reduce("sum", value, dim, hint)
        return value if acc is None else accumulate(evaluator, [acc, value], hint)
    return _step_through(evaluator, inside, over, hint, acc, mask)


def _step_through(
    evaluator: Evaluator,
    inside: list[Expr],
    over: tuple[str, ...],
    hint: str,
    acc: Value | None,
    mask: Expr | None = None,
) -> Value:
    """One position of ``over[0]`` at a time: sum += product at that position."""
    builder = evaluator.builder
    dim, *rest = over
    axes = _tile_axes(evaluator, inside, over)
    settle(evaluator, inside, dim)
    if not rest and is_written_out(evaluator, inside, dim):
        return written_out(evaluator, inside, dim, hint or f"sum_{dim.lower()}", acc, mask)
    start = acc if acc is not None else builder.constant(0.0, DType.FLOAT32, axes)
    begin, end = steps_for_rows(evaluator, inside, dim)
    with builder.loop(dim.lower(), begin, end, 1, [(hint or f"sum_{dim.lower()}", start)]) as loop:
        builder.place(dim, loop.variable)
        if rest:
            term = contract(evaluator, inside, tuple(rest), None, hint, mask=mask)
        else:
            term = seen(evaluator, [evaluator.real(f) for f in inside], mask)
        loop.yields = (accumulate(evaluator, [loop.carried[0], term], hint),)
    return loop.results[0]


def _row_by_row(
    evaluator: Evaluator,
    inside: list[Expr],
    dim: str,
    hint: str,
    acc: Value | None,
    mask: Expr | None,
) -> Value:
    """The same along a block that the tile holds, none of which is a position of its own."""
    builder = evaluator.builder
    flat = [f for f in inside if len(_tile_axes(evaluator, [f])) < 3]
    if mask is None and flat:  # one product to pick the rows of
        flat_product = evaluator.named(product(evaluator, [evaluator.real(f) for f in flat]))
        inside = [flat_product, *(f for f in inside if f not in flat)]
    start = acc
    if start is None:
        axes = _tile_axes(evaluator, inside, (dim,))
        start = builder.constant(0.0, DType.FLOAT32, axes)
    carried = (hint or f"sum_{dim.lower()}", start)
    with row_by_row(evaluator, inside, dim, carried) as (loop, exists):
        term = seen(evaluator, [evaluator.real(f) for f in inside], mask)
        if exists is not None:
            term = evaluator.where(exists, term, builder.constant(0.0, DType.FLOAT32))
        loop.yields = (accumulate(evaluator, [loop.carried[0], term], hint),)
    return loop.results[0]


def sum_by_steps(evaluator: Evaluator, factors: list[Expr], over: str, hint: str) -> Value | None:
    """The sum over an axis of any length, one position at a time; None where a tile does better.

    A tile does, unless it would have three axes: where the product is no dot.
    """
    inside = [f for f in factors if over in f.axes]
    terms = _distribute(inside)
    groups = _groups(evaluator, inside, (over,))
    held = frozenset[str]().union(*(axes for axes, _ in groups))
    separates = len(terms) > 1 and _any_separates(evaluator, terms, (over,))
    if is_too_deep(evaluator, held | {over}):  # but for products, which take tiles of two
        separates = any(_is_dot(evaluator, term, (over,)) for term in terms)
    if len(held) <= 1 or _is_dot(evaluator, inside, (over,)) or separates:
        return None
    outside = [evaluator.real(f) for f in factors if over not in f.axes]
    return product(evaluator, [*outside, _step_through(evaluator, inside, (over,), hint, None)])


def _any_separates(evaluator: Evaluator, terms: list[list[Expr]], over: tuple[str, ...]) -> bool:
    return any(_separates(evaluator, term, over) for term in terms)


def _can_step(evaluator: Evaluator, over: tuple[str, ...], parts: Sequence[Expr]) -> bool:
    """Whether ``parts`` can be had one position of ``over[0]`` at a time.

    What is on the tile can't, nor what needs all positions to have one: a running sum, a solution.
    """
    dim = over[0]

    def needs_all(node: Expr) -> bool:
        if isinstance(node, Ref):
            return dim in node.axes and node.name not in evaluator.context.buffers
        return isinstance(node, Cumsum | Solve) and dim in bound_axes(node)

    whole = any(needs_all(node) for part in parts for node in walk(part))
    return evaluator.context.length(dim) is not None and not whole


def _admit(inside: list[Expr], conditions: list[Expr]) -> tuple[list[Expr], Expr]:
    """The product with 0 where one of ``conditions`` fails, and the factor that is 0 there.

    Each condition goes on a factor that has its axes already; what fits no factor becomes one of
    its own.
    """
    factors, rest = list(inside), list[Expr]()
    mask: Expr = Literal(1.0)
    for condition in conditions:
        at = next((n for n, f in enumerate(factors) if condition.axes <= f.axes), None)
        if at is None:
            rest.append(condition)
        else:
            mask = factors[at] = call("where", condition, factors[at], 0.0)
    if left := all_of(rest):
        mask = call("where", left, 1.0, 0.0)
        factors.append(mask)
    return factors, mask


def _terms(evaluator: Evaluator, inside: list[Expr], over: tuple[str, ...]) -> list[list[Expr]]:
    """The products whose sums are taken one by one: a single one, unless that gives dots.

    ``a * b - c * d`` gives two, each rounded as its products are anyway; ``(a - b) * (a - b)``
    stays: its terms may be far larger than what is left of them.
    """
    terms = _distribute(inside)
    if not inside or len(terms) == 1:
        return [inside]
    if _separates(evaluator, inside, over):
        apart = len(inside) == 1 and all(_is_dot(evaluator, term, over) for term in terms)
    else:
        apart = _any_separates(evaluator, terms, over)
    return terms if apart else [inside]


def _distribute(inside: list[Expr]) -> list[list[Expr]]:
    """(a + b) * c --> a * c, b * c."""
    terms: list[list[Expr]] = [[]]
    for factor in inside:
        match factor:
            case Call("add", (a, b)):
                choices = [factors_of(a), factors_of(b)]
            case Call("sub", (a, b)):
                choices = [factors_of(a), [Literal(-1.0), *factors_of(b)]]
            case _:
                choices = [[factor]]
        terms = [term + choice for term in terms for choice in choices]
    return terms


# ------------------------------------------------------------------------------------- groups


def _tile_axes(
    evaluator: Evaluator, factors: list[Expr], without: tuple[str, ...] = ()
) -> frozenset[str]:
    """The axes of the product that are on the tile, not fixed by the grid or by a loop."""
    axes = frozenset[str]().union(*(f.axes for f in factors)) - set(without)
    return evaluator.tile_axes(axes)


def _groups(
    evaluator: Evaluator, inside: list[Expr], over: tuple[str, ...]
) -> list[tuple[frozenset[str], list[Expr]]]:
    """Factors that share tile axes (beside ``over``) together; those without any join the first."""
    groups: list[tuple[frozenset[str], list[Expr]]] = []
    loose: list[Expr] = []
    for factor in inside:
        axes = _tile_axes(evaluator, [factor], over)
        if not axes:
            loose.append(factor)
            continue
        members = [factor]
        for group in [g for g in groups if g[0] & axes]:
            groups.remove(group)
            axes, members = axes | group[0], group[1] + members
        groups.append((axes, members))
    if groups:
        groups[0][1].extend(loose)
    elif loose:
        groups.append((frozenset(), loose))
    return groups


def _separates(evaluator: Evaluator, inside: list[Expr], over: tuple[str, ...]) -> bool:
    return len(_groups(evaluator, inside, over)) <= 1 or _is_dot(evaluator, inside, over)


def _is_dot(evaluator: Evaluator, inside: list[Expr], over: tuple[str, ...]) -> bool:
    groups = _groups(evaluator, inside, over)
    return len(groups) == 2 and all(len(axes) == 1 for axes, _ in groups)


def _operand(evaluator: Evaluator, factors: list[Expr], over: str, dtype: DType) -> Value:
    """One side of a dot: the product, zero where the tile has no positions, in the dot's type."""
    builder = evaluator.builder
    if len(factors) == 1:
        value = evaluator.evaluate(factors[0])
    else:
        values = [evaluator.real(f) for f in factors]
        main = max(values, key=lambda value: len(value.axes))
        value = product(evaluator, values, f"{builder.naming.stem(main)}_scaled")
    if not all(is_zero_outside(evaluator, f) for f in factors):
        value = evaluator.masked(value, over, 0.0)
    return builder.cast(value, dtype)


def is_zero_outside(evaluator: Evaluator, factor: Expr) -> bool:
    """Whether the value is 0 by itself where the tile has no positions."""
    match factor:
        case Ref(name, _, _) | Read(Ref(name, _, _), _, 0):
            return name in evaluator.context.buffers or name in evaluator.zero_outside
        case _:
            return False


def _vanishes_outside(evaluator: Evaluator, factors: list[Expr]) -> bool:
    """Whether a product is 0 where the tile has no positions: one factor is, and none is infinite.

    The others hold what they are at 0 there: 1 / y and log(y) are infinite, and 0 * inf is NaN.
    """
    zero = [is_zero_outside(evaluator, factor) for factor in factors]
    others = [factor for factor, is_zero in zip(factors, zero, strict=True) if not is_zero]
    return any(zero) and all(map(_is_finite, others))


def _is_finite(expr: Expr) -> bool:
    if not expr.axes or isinstance(expr, Ref | Read):
        return True
    return isinstance(expr, Call) and expr.fn in _FINITE and all(map(_is_finite, expr.children))
