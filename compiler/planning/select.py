"""A selection as kernels."""

from __future__ import annotations

from dataclasses import replace

from ...ir.expression import (
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
from ...ir.mixer import Select
from ...ir.plan import Buffer
from ...ir.rewriting import walk
from ...ir.selection_tasks import ChoiceTask, OwnNumbers
from ...ir.targets import CpuTarget
from ...ir.tile import DType
from ..tiles.moving import move
from .plan_builder import PlanBuilder

# Functions of real numbers whose results are among what they are given, or exact.
_EXACT = frozenset("where min max neg abs relu sign floor ceil round detach".split())
_ROWS = 16  # the fewest of a block
# Programs that rows are dealt out to, so that cores and multiprocessors have one or two each.
_SHARES_CPU, _SHARES_GPU = 64, 256


def plan_select(builder: PlanBuilder, stage: Select) -> None:
    """The kernel of a selection."""
    if len(stage.over) > 1:
        _over_several(builder, stage)
        return
    among = None if stage.among is None else builder.inlined(stage.among)
    always = None if stage.always is None else builder.inlined(stage.always)
    if stage.rule != "above" or stage.listed is not None:
        _by_rows(builder, stage, among, always)
        return
    chosen: Expr = call("gt", builder.inlined(stage.score), builder.inlined(stage.bound))
    if among is not None:
        chosen = call("and", among, chosen)
    if always is not None:
        chosen = call("or", always, chosen)
    builder.names[stage.output] = builder.result(stage.output, chosen, "the choice")


def _over_several(builder: PlanBuilder, stage: Select) -> None:
    """Several axes as one, the last fastest.

    x[I, N, M] over N and M --> x[I, N=z // M, M=z % M] over Z, and what is chosen at z = n * M + m
    """
    joined = builder.free_dim("_".join(stage.over))
    last, at = stage.over[-1], dict[str, Expr]()
    whole: Expr = Size(last)
    flat: Expr = Index(last)
    at[last] = call("mod", Index(joined), whole)
    for dim in reversed(stage.over[:-1]):
        at[dim] = call("mod", call("floordiv", Index(joined), whole), Size(dim))
        flat = call("add", call("mul", Index(dim), whole), flat)
        whole = call("mul", whole, Size(dim))
    builder.add_dim(joined, whole)

    def along(expr: Expr | None) -> Expr | None:
        return None if expr is None else move(builder.inlined(expr), at)

    score = along(stage.score)
    assert score is not None
    chosen = builder.free_name(f"{stage.output}_{joined.lower()}")
    one = replace(
        stage,
        over=(joined,),
        score=score,
        among=along(stage.among),
        always=along(stage.always),
        output=chosen,
    )
    _by_rows(builder, one, one.among, one.always, _is_read(builder, stage.output))
    if chosen in builder.names:
        value = Read(builder.names[chosen], ((joined, flat),))
        builder.names[stage.output] = builder.result(stage.output, value, "the choice")


def _by_rows(
    builder: PlanBuilder,
    stage: Select,
    among: Expr | None,
    always: Expr | None,
    read: bool = False,
) -> None:
    """The choice by a kernel that goes over rows, and makes their numbers where it can.

    ``read``: what is chosen is asked for, whatever it is called.
    """
    (over,) = stage.over
    rows = builder.order(stage.queries)
    score, bound = builder.inlined(stage.score), builder.inlined(stage.bound)
    tiled = builder.tiled(score, rows)[-1:]
    x, own = _own_numbers(builder, stage, score, rows, tiled)
    read = read or stage.listed is None or _is_read(builder, stage.output)
    chosen = stage.output if read else None
    if chosen is not None:
        builder.names[chosen] = _declare(builder, chosen, stage.queries | {over}, Kind.BOOL)
    if stage.listed is not None:
        assert stage.slots is not None
        builder.context.ranges.made[stage.listed] = call("sub", Index(over), 1)
        axes = stage.queries | {stage.slots}
        builder.names[stage.listed] = _declare(builder, stage.listed, axes, Kind.INT)
    made = " and ".join(name for name in (chosen, stage.listed) if name is not None)
    which = {"top": "the largest", "above": "the large ones", "mass": "the largest, by their mass,"}
    task = ChoiceTask(
        name=builder.kernel_name(chosen or stage.output),
        x=x,
        over=over,
        kept=_read(builder, bound),
        tiled=tuple(tiled),
        about=f"{made}: {which[stage.rule]} along {over}",
        reason=f"{which[stage.rule]} along {over} are selected",
        among=None if among is None else _read(builder, among),
        rows=rows,
        rule=stage.rule,
        chosen=chosen,
        always=None if always is None else _read(builder, always),
        own=own,
        listed=stage.listed,
        slots=stage.slots or "",
    )
    builder.tasks.append(task)


def _is_read(builder: PlanBuilder, name: str) -> bool:
    return name in builder.read or name in {o.name for o in builder.mixer.outputs}


def _read(builder: PlanBuilder, expr: Expr) -> Expr:
    """What the kernel reads in each pass."""
    return builder.materialised(expr, None, None, inside=True)


def _declare(builder: PlanBuilder, name: str, axes: frozenset[str], kind: Kind) -> Ref:
    """The buffer of a result: an output of the mixer, or in an order of the plan's own."""
    dtype = DType.BOOL if kind is Kind.BOOL else DType.INT32
    output = next((o for o in builder.mixer.outputs if o.name == name), None)
    if output is not None:
        buffer = Buffer(name, output.dims, dtype, "output")
    else:
        buffer = Buffer(name, builder.order(axes), dtype, "temporary")
    builder.context.buffers[name] = buffer
    return Ref(name, axes, kind)


def _own_numbers(
    builder: PlanBuilder, stage: Select, score: Expr, rows: tuple[str, ...], tiled: list[str]
) -> tuple[Expr, OwnNumbers | None]:
    """What the kernel ranks, and where it keeps it: what rounds is made once.

    A score that is read, or chosen from what is read, has the same bits at each pass.
    """
    (over,) = stage.over
    fixed = builder.context.sizes
    long = [d for d in tiled if d in score.axes and d not in fixed]
    x = builder.materialised(score, long[0] if long else None, over, inside=True)
    if not _rounds(x):
        return x, None
    if not long or over in fixed or any(d in fixed for d in rows):
        return builder.ranked(score, over), None
    (row,) = long
    shares = builder.free_dim(f"{row}_shares")
    most = _SHARES_CPU if isinstance(builder.target, CpuTarget) else _SHARES_GPU
    blocks = call("floordiv", call("add", Size(row), _ROWS - 1), _ROWS)
    builder.add_dim(shares, call("min", Literal(most), blocks))
    block = builder.free_dim(f"{row}_block")
    builder.block_lengths[block] = row
    name = builder.free_name(f"{stage.output}_score")
    dims = (*(d for d in rows if d != row), shares, over, block)
    builder.context.buffers[name] = Buffer(name, dims, DType.FLOAT32, "temporary")
    builder.findings.append(
        f"scores of a block of rows at a time: each of up to {most} programs keeps those of the "
        f"rows that it has at hand, made once"
    )
    return x, OwnNumbers(name, shares, block)


def _rounds(expr: Expr) -> bool:
    """Whether making a number may round it, one time this way and another time that way."""
    return any(_rounds_itself(node) for node in walk(expr))


def _rounds_itself(node: Expr) -> bool:
    match node:
        case Call(fn):
            return node.kind is Kind.REAL and fn not in _EXACT
        case Reduce(op):
            return node.kind is Kind.REAL and op not in ("max", "min")
        case Cumsum() | Solve():
            return node.kind is Kind.REAL
    return False


__all__ = ["plan_select"]
