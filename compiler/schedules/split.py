"""Keys shared out among programs when there are too few queries to fill the machine.

Each program takes a share of a row block's keys and stores its sums unnormalised, with the maximum
that they are relative to; a second kernel brings the shares to one maximum and normalises
(Flash-Decoding, Dao et al. 2023; the merge is that of the running rescaling itself).
"""

from __future__ import annotations

import math

from ...ir.expression import Expr, Kind, Literal, Reduce, Ref, call
from ...ir.normaliser import Plain, Rescaled
from ...ir.rewriting import with_names
from ...ir.task import Split
from ...ir.tile import DType, Value
from ..tiles.evaluator import Evaluator


def share_of(
    evaluator: Evaluator, split: Split, start: Value, stop: Value, step: Value
) -> tuple[Value, Value]:
    """The part of a run from ``start`` to ``stop`` that falls to this program, in whole steps."""
    builder = evaluator.builder

    def integer(fn: str, *args: Value, hint: str = "") -> Value:
        return builder.elementwise(fn, *args, dtype=DType.INT32, hint=hint)

    zero, one = builder.constant(0, DType.INT32), builder.constant(1, DType.INT32)
    count = evaluator.size(split.dim)
    length = integer("max", integer("sub", stop, start), zero)
    less = integer("sub", step, one)
    blocks = integer("floordiv", integer("add", length, less), step)
    every = integer("floordiv", integer("add", blocks, integer("sub", count, one)), count)
    every = integer("mul", every, step, hint="share")
    begin = integer("mul", evaluator.position(split.dim), every)
    begin = integer("add", start, begin, hint="share_start")
    end = integer("min", stop, integer("add", begin, every), hint="share_stop")
    return begin, end


def merged(
    split: Split, form: Rescaled | Plain, values: tuple[Expr, ...], rows: frozenset[str]
) -> tuple[tuple[Expr, ...], Expr]:
    """The outputs and the log-sum as expressions in the shares.

    ``values`` are what the outputs sum (for their axes), ``rows`` the query axes.
    """
    dim = split.dim
    row_sum: Expr = Ref(split.row_sum, rows | {dim}, Kind.REAL)
    weight: Expr | None = None
    safe: Expr = Literal(0.0)
    if isinstance(form, Rescaled):
        row_max = Ref(split.row_max or "", rows | {dim}, Kind.REAL)
        largest = Reduce("max", row_max, (dim,))
        safe = call("where", call("gt", largest, -math.inf), largest, 0.0)
        weight = call("exp2", call("sub", row_max, safe))
        row_sum = call("mul", weight, row_sum)
    row_sum = Reduce("sum", row_sum, (dim,))
    denominator = with_names(form.denominator, {"total": row_sum, "scale": call("exp2", safe)})
    outputs: list[Expr] = []
    for name, value in zip(split.outputs, values, strict=True):
        part: Expr = Ref(name, rows | value.axes | {dim}, Kind.REAL)
        whole = Reduce("sum", part if weight is None else call("mul", weight, part), (dim,))
        if denominator == Literal(1) or denominator == Literal(1.0):
            outputs.append(whole)
            continue
        some = call("ne", denominator, 0.0)
        divisor = call("where", some, denominator, 1.0)
        outputs.append(call("where", some, call("div", whole, divisor), 0.0))
    lse = call("add", call("mul", safe, math.log(2)), call("log", row_sum))
    if isinstance(form, Rescaled):
        lse = call("where", call("eq", largest, math.inf), math.inf, lse)
    return tuple(outputs), lse
