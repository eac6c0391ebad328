"""What rows carry through one pass over the keys, with a running normaliser.

Where the weight is exponential in the score, w(s - m) = w(s) w(-m), sums taken against one
maximum m are brought to another by a factor; so one pass keeps m, the sum and the outputs, all
relative to the largest score so far (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al.
2022, arXiv 2205.14135). Other elementwise weights need no maximum. Exponentials are taken to
base 2: a score is kept as it is and multiplied by log2(e) in the operation that takes the maximum
off, unrounded, so that large scores lose nothing. A positive number that scales every score is
part of that factor: the maximum is that of what it scales.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

from ...ir.expression import Expr, Kind, Literal, Ref, call
from ...ir.normaliser import Plain, Rescaled
from ...ir.rewriting import substitute, walk, with_names
from ...ir.task import AttentionTask
from ...ir.tile import DType, Value
from ..tiles.contraction import contract, factors_of
from ..tiles.evaluator import Evaluator
from ..tiles.grid import first_of, store_result
from ..tiles.key_blocks import LoopBody
from .running_max import raised

_LOG2_E = math.log2(math.e)


def start(
    evaluator: Evaluator, task: AttentionTask, rows: frozenset[str]
) -> list[tuple[str, Value]]:
    """What rows carry before they see a key, by name: maximum, sum, outputs."""
    match task.form:
        case Rescaled() as form:
            return _start_rescaled(evaluator, task, form, rows)
        case Plain() as form:
            return _start_plain(evaluator, task, form, rows)


def body(evaluator: Evaluator, task: AttentionTask, rows: frozenset[str]) -> LoopBody:
    """What a block of keys makes of what the rows carry."""
    match task.form:
        case Rescaled() as form:
            return _rescaled_body(evaluator, task, form, rows)
        case Plain() as form:
            return _plain_body(evaluator, task, form, rows)


def store(evaluator: Evaluator, task: AttentionTask, state: Sequence[Value]) -> None:
    """Store what is made of what rows carry, once they have seen all keys."""
    match task.form:
        case Rescaled() as form:
            _store_rescaled(evaluator, task, form, state)
        case Plain() as form:
            _store_plain(evaluator, task, form, state)


# ------------------------------------------------------------------------- exponential weights


def _start_rescaled(
    evaluator: Evaluator, task: AttentionTask, form: Rescaled, rows: frozenset[str]
) -> list[tuple[str, Value]]:
    builder = evaluator.builder
    row_max: Value = builder.constant(form.start, DType.FLOAT32, rows)
    row_sum: Value = builder.constant(0.0, DType.FLOAT32, rows)
    if task.sink is not None:
        row_max, row_sum = _with_sink(evaluator, task.sink, form, rows)
        row_max, row_sum = _in_first_share(evaluator, task, [(row_max, form.start), (row_sum, 0.0)])
    outputs = [_zero_output(evaluator, task, rows, value) for _, value in task.outputs]
    return [("row_max", row_max), ("row_sum", row_sum), *outputs]


def _rescaled_body(
    evaluator: Evaluator, task: AttentionTask, form: Rescaled, rows: frozenset[str]
) -> LoopBody:
    builder = evaluator.builder
    whole = written(form.exponent, task.score)
    exponent, per_unit = _scale_apart(evaluator, whole)
    name = "score" if exponent == whole else ""  # what is scaled has a name of its own
    infinite = builder.constant(-math.inf, DType.FLOAT32)

    def body(
        state: tuple[Value, ...], mask: Expr | None, exists: Value | None
    ) -> tuple[Value, ...]:
        row_max, row_sum, *sums = state
        score = evaluator.real(exponent, name)
        visible = exists
        if mask is not None:
            visible = evaluator.both(evaluator.condition(mask, "visible"), exists)
        if visible is not None:
            score = evaluator.where(visible, score, infinite, "score")
        score = evaluator.spread(score, rows | {task.over}, score.name)
        largest = builder.reduce("max", score, task.over, "score_max")
        block_max = builder.elementwise("mul", largest, per_unit, dtype=DType.FLOAT32)
        new_max = raised(evaluator, row_max, block_max)
        safe = _finite(evaluator, new_max)
        scaled = builder.elementwise("mul", score, per_unit, dtype=DType.FLOAT32)
        weight = _exp2(evaluator, scaled, safe, "weight")
        if form.factor != Literal(1):
            weight = _with_factor(evaluator, weight, written(form.factor, task.score), visible)
        rescale = _exp2(evaluator, row_max, safe, "rescale")
        kept = builder.elementwise("mul", row_sum, rescale, dtype=DType.FLOAT32)
        added = builder.reduce("sum", weight, task.over, "weight_sum")
        new_sum = builder.elementwise("add", kept, added, dtype=DType.FLOAT32)
        kept_sums = [
            builder.elementwise("mul", s, rescale, dtype=DType.FLOAT32, hint=f"{name}_sum")
            for s, (name, _) in zip(sums, task.outputs, strict=True)
        ]
        hidden = visible if mask is not None else None
        made = _weighted_sums(evaluator, task, weight, kept_sums, hidden, mask is not None)
        return (new_max, new_sum, *made)

    return body


def _store_rescaled(
    evaluator: Evaluator, task: AttentionTask, form: Rescaled, state: Sequence[Value]
) -> None:
    builder = evaluator.builder
    row_max, row_sum, *sums = state
    axes = row_sum.axes
    sum_ref, scale_ref = Ref("total", axes, Kind.REAL), Ref("scale", axes, Kind.REAL)
    builder.bind(sum_ref, row_sum)
    denominator_expr = substitute(
        form.denominator,
        {r: sum_ref if r.name == "total" else scale_ref for r in _refs(form.denominator)},
    )
    if scale_ref in set(walk(denominator_expr)):
        scale = builder.elementwise("exp2", _finite(evaluator, row_max), dtype=DType.FLOAT32)
        builder.bind(scale_ref, scale)
    _store_outputs(evaluator, task, sums, evaluator.real(denominator_expr))
    if task.row_sum is not None and task.row_max is not None:
        store_from_one(evaluator, task.row_sum, row_sum)
        store_from_one(evaluator, task.row_max, _finite(evaluator, row_max))
    if task.lse is not None:
        log2 = builder.elementwise("log2", row_sum, dtype=DType.FLOAT32)
        log2 = builder.elementwise("add", _finite(evaluator, row_max), log2, dtype=DType.FLOAT32)
        per_bit = builder.constant(1 / _LOG2_E, DType.FLOAT32)
        lse = builder.elementwise("mul", log2, per_bit, dtype=DType.FLOAT32, hint="lse")
        infinite = builder.constant(math.inf, DType.FLOAT32)  # inf - inf is a NaN in the sum
        above = builder.elementwise("eq", row_max, infinite, dtype=DType.BOOL)
        lse = evaluator.where(above, row_max, lse, "lse")
        zero = builder.constant(0.0, DType.FLOAT32)
        some = builder.elementwise("ne", row_sum, zero, dtype=DType.BOOL)  # also a NaN
        empty = builder.constant(-math.inf, DType.FLOAT32)
        store_from_one(evaluator, task.lse, evaluator.where(some, lse, empty, "lse"))


def _with_sink(
    evaluator: Evaluator, sink: Expr, form: Rescaled, rows: frozenset[str]
) -> tuple[Value, Value]:
    """Maximum and sum to start from, when a logit without a value has been seen."""
    builder = evaluator.builder
    logit = evaluator.real(written(form.exponent, sink), "sink")
    logit = _in_base_two(evaluator, evaluator.spread(logit, rows, logit.name), "sink_log2e")
    least = builder.constant(form.start, DType.FLOAT32)
    row_max = logit
    if form.start > -math.inf:
        row_max = builder.elementwise("max", logit, least, dtype=DType.FLOAT32, hint="row_max")
    row_sum = _exp2(evaluator, logit, _finite(evaluator, row_max), "row_sum")
    if form.factor != Literal(1):
        row_sum = _with_factor(evaluator, row_sum, written(form.factor, sink), None)
    return row_max, row_sum


def _in_first_share(
    evaluator: Evaluator, task: AttentionTask, values: list[tuple[Value, float]]
) -> list[Value]:
    """Each value in the first share of the keys, another number in the others."""
    if task.split is None:
        return [value for value, _ in values]
    builder = evaluator.builder
    zero = builder.constant(0, DType.INT32)
    share = evaluator.position(task.split.dim)
    first = builder.elementwise("eq", share, zero, dtype=DType.BOOL, hint="first")
    numbers = [builder.constant(number, DType.FLOAT32) for _, number in values]
    return [
        evaluator.where(first, value, number)
        for (value, _), number in zip(values, numbers, strict=True)
    ]


def _with_factor(evaluator: Evaluator, weight: Value, factor: Expr, visible: Value | None) -> Value:
    """The weight times a factor that is no exponential, 0 where nothing is visible."""
    builder = evaluator.builder
    scaled = builder.elementwise("mul", weight, evaluator.real(factor), dtype=DType.FLOAT32)
    if visible is None:
        return scaled
    zero = builder.constant(0.0, DType.FLOAT32)
    return evaluator.where(visible, scaled, zero, "weight")


def _refs(expr: Expr) -> list[Ref]:
    return [n for n in walk(expr) if isinstance(n, Ref) and n.name in ("total", "scale")]


def _finite(evaluator: Evaluator, row_max: Value) -> Value:
    """The maximum, or 0 for a row that has seen nothing: so that no inf - inf arises."""
    builder = evaluator.builder
    infinite = builder.constant(-math.inf, DType.FLOAT32)
    zero = builder.constant(0.0, DType.FLOAT32)
    some = builder.elementwise("gt", row_max, infinite, dtype=DType.BOOL)
    return evaluator.where(some, row_max, zero, "finite_max")


def _exp2(evaluator: Evaluator, a: Value, b: Value, hint: str) -> Value:
    builder = evaluator.builder
    gap = builder.elementwise("sub", a, b, dtype=DType.FLOAT32)
    return builder.elementwise("exp2", gap, dtype=DType.FLOAT32, hint=hint)


def written(form: Expr, score: Expr) -> Expr:
    """An expression in ``Ref("score")`` with the score written out."""
    return with_names(form, {"score": score})


def _scale_apart(evaluator: Evaluator, exponent: Expr) -> tuple[Expr, Value]:
    """What varies of an exponent, and the number with which exp2(number * it) is exp(exponent)."""
    factors = factors_of(exponent)
    numbers = [f for f in factors if evaluator.fixed_number(f) is not None]
    base: Expr = Literal(_LOG2_E)
    scale = reduce(_times, numbers, base)
    if len(numbers) in (0, len(factors)) or (evaluator.fixed_number(scale) or 0) <= 0:
        return exponent, evaluator.builder.constant(_LOG2_E, DType.FLOAT32)
    varying = [f for f in factors if f not in numbers]
    return reduce(_times, varying), evaluator.real(scale, "scale_log2e")


def _times(a: Expr, b: Expr) -> Expr:
    return call("mul", a, b)


def _in_base_two(evaluator: Evaluator, exponent: Value, hint: str = "") -> Value:
    """exp(x) is exp2 of this."""
    builder = evaluator.builder
    per_nat = builder.constant(_LOG2_E, DType.FLOAT32)
    return builder.elementwise("mul", exponent, per_nat, dtype=DType.FLOAT32, hint=hint)


# ------------------------------------------------------------------------------ other weights


def _start_plain(
    evaluator: Evaluator, task: AttentionTask, form: Plain, rows: frozenset[str]
) -> list[tuple[str, Value]]:
    builder = evaluator.builder
    outputs = [_zero_output(evaluator, task, rows, value) for _, value in task.outputs]
    if not needs_sum(task, form):
        return outputs
    row_sum: Value = builder.constant(0.0, DType.FLOAT32, rows)
    if task.sink is not None:
        sink = evaluator.real(written(form.weight, task.sink), "sink")
        row_sum = evaluator.spread(sink, rows, sink.name)
        (row_sum,) = _in_first_share(evaluator, task, [(row_sum, 0.0)])
    return [("row_sum", row_sum), *outputs]


def _plain_body(
    evaluator: Evaluator, task: AttentionTask, form: Plain, rows: frozenset[str]
) -> LoopBody:
    builder = evaluator.builder
    weight_expr = written(form.weight, task.score)
    summed = needs_sum(task, form)
    zero = builder.constant(0.0, DType.FLOAT32)

    def body(
        state: tuple[Value, ...], mask: Expr | None, exists: Value | None
    ) -> tuple[Value, ...]:
        weight = evaluator.real(weight_expr, "weight")
        visible = exists
        if task.across:  # rows past the end would count in sums along the rows
            visible = evaluator.both(exists, evaluator.bounds_of([task.block]))
        if mask is not None:
            visible = evaluator.both(evaluator.condition(mask, "visible"), visible)
        if visible is not None:
            weight = evaluator.where(visible, weight, zero, "weight")
        weight = evaluator.spread(weight, rows | {task.over}, weight.name)
        sums = list(state[1:] if summed else state)
        made: list[Value] = []
        if summed:
            added = builder.reduce("sum", weight, task.over, "weight_sum")
            made.append(builder.elementwise("add", state[0], added, dtype=DType.FLOAT32))
        hidden = visible if mask is not None or task.across else None
        masked = mask is not None
        made += _weighted_sums(evaluator, task, weight, sums, hidden, masked)
        _sums_across(evaluator, task, weight, hidden, masked)
        return tuple(made)

    return body


def _store_plain(
    evaluator: Evaluator, task: AttentionTask, form: Plain, state: Sequence[Value]
) -> None:
    builder = evaluator.builder
    sums, denominator = list(state), form.denominator
    if needs_sum(task, form):
        row_sum = sums.pop(0)
        sum_ref = Ref("total", row_sum.axes, Kind.REAL)
        builder.bind(sum_ref, row_sum)
        denominator = substitute(denominator, dict.fromkeys(_refs(denominator), sum_ref))
    value = None if denominator in (Literal(1), Literal(1.0)) else evaluator.real(denominator)
    _store_outputs(evaluator, task, sums, value)
    if task.lse is not None:
        log = builder.elementwise("log", row_sum, dtype=DType.FLOAT32, hint="lse")
        store_from_one(evaluator, task.lse, log)
    if task.row_sum is not None:
        store_from_one(evaluator, task.row_sum, row_sum)


def needs_sum(task: AttentionTask, form: Plain) -> bool:
    """Whether rows carry the sum of their weights."""
    return bool(_refs(form.denominator) or task.lse or task.row_sum or task.split)


# ------------------------------------------------------------------------------------- shared


def _zero_output(
    evaluator: Evaluator, task: AttentionTask, rows: frozenset[str], value: Expr
) -> tuple[str, Value]:
    """A running output, zero, with the rows' axes and the value's own."""
    own = evaluator.tile_axes(value.axes - {task.over})
    name = next(name for name, v in task.outputs if v is value)
    return f"{name}_sum", evaluator.builder.constant(0.0, DType.FLOAT32, rows | own)


def _weighted_sums(
    evaluator: Evaluator,
    task: AttentionTask,
    weight: Value,
    sums: Sequence[Value],
    visible: Value | None,
    masked: bool,
) -> list[Value]:
    """Each running output plus the sum over the block of weight * gain * value.

    Of gains and values only those of ``visible`` pairs count (None: every row sees all), whatever
    the others hold, also where they are infinite (``masked``).
    """
    made = []
    for (name, value), running in zip(task.outputs, sums, strict=True):
        factors = _factors_seen(evaluator, task, weight, value, task.over, visible)
        mask = factors[0] if masked else None
        made.append(contract(evaluator, factors, (task.over,), None, f"{name}_sum", running, mask))
    return made


def _sums_across(
    evaluator: Evaluator, task: AttentionTask, weight: Value, visible: Value | None, masked: bool
) -> None:
    """The sums along the rows, of what this block of rows adds to the results for these keys."""
    for name, value in task.across:
        factors = _factors_seen(evaluator, task, weight, value, task.block, visible)
        mask = factors[0] if masked else None
        part = contract(evaluator, factors, (task.block,), None, f"{name}_part", None, mask)
        store_result(evaluator, name, part, add=True)


def _factors_seen(
    evaluator: Evaluator,
    task: AttentionTask,
    weight: Value,
    value: Expr,
    over: str,
    visible: Value | None,
) -> list[Expr]:
    """The factors of what is summed over ``over``: first the weight of ``visible`` pairs."""
    factors = [*([] if task.gain is None else factors_of(task.gain)), *factors_of(value)]
    seen = weight
    if visible is not None:
        of_pairs = [f for f in factors if over in f.axes and f.axes.isdisjoint(task.values)]
        factors = [f for f in factors if f not in of_pairs]
        seen = _times_visible(evaluator, weight, of_pairs, visible)
    weight_ref = evaluator.named(seen)
    evaluator.zero_outside.add(weight_ref.name)
    return [weight_ref, *factors]


def _times_visible(
    evaluator: Evaluator, weight: Value, factors: Sequence[Expr], visible: Value
) -> Value:
    """The weights times what each pair, or each key, has as a factor; 0 where it is not visible."""
    if not factors:
        return weight
    builder = evaluator.builder
    zero = builder.constant(0.0, DType.FLOAT32)
    for factor in factors:
        weight = builder.elementwise("mul", weight, evaluator.real(factor), dtype=DType.FLOAT32)
    return evaluator.where(visible, weight, zero, "weight")


def _store_outputs(
    evaluator: Evaluator, task: AttentionTask, sums: Sequence[Value], denominator: Value | None
) -> None:
    builder = evaluator.builder
    for (name, _), value in zip(task.outputs, sums, strict=True):
        result = value
        if denominator is not None:
            zero = builder.constant(0.0, DType.FLOAT32)
            one = builder.constant(1.0, DType.FLOAT32)
            some = builder.elementwise("ne", denominator, zero, dtype=DType.BOOL, hint="some")
            divisor = evaluator.where(some, denominator, one, "divisor")
            kept = evaluator.where(some, value, zero)
            result = builder.elementwise("div", kept, divisor, dtype=DType.FLOAT32, hint=name)
        store_from_one(evaluator, name, result)


def store_from_one(evaluator: Evaluator, name: str, value: Value) -> None:
    """Write a result, from one of the programs that have it."""
    dims = evaluator.context.buffers[name].dims
    store_result(evaluator, name, value, first_of(evaluator, dims))


__all__ = ["body", "needs_sum", "start", "store", "store_from_one", "written"]
