"""Plans and tile programs as text: what ``MIXC_DUMP`` writes and ``mixc show`` prints.

causal_o(q: float32[B, H, I, D], ...) grid(I by BLOCK_I descending, H, B)
  q_tile: float32[D, I] = load q[b, h, i, d] where i_exists else 0
  for j_start in 0 .. j_full_stop by BLOCK_J carrying m = m_0:
    score: float32[I, J] = dot(q_tile, k_tile) over D
    yield m_new
"""

from __future__ import annotations

from .plan import Plan
from .task import buffers_of
from .tile import (
    Argument,
    BufferArgument,
    Cast,
    Combine,
    Comment,
    Constant,
    Convolve,
    Dot,
    Elementwise,
    For,
    HostArgument,
    Load,
    Op,
    ParamArgument,
    Program,
    Range,
    Reduce,
    Rename,
    Scan,
    Search,
    SizeArgument,
    Solve,
    Store,
    Substitute,
    Value,
)
from .transform import Transform


def write_plan(plan: Plan) -> str:
    """The kernels in order with the reason for each, the buffers, then every program."""
    lines = [f"plan of {plan.mixer.name} in {plan.dtype.value}"]
    lines += [f"  {dim} = {size}" for dim, size in plan.sizes]
    lines += [f"  found: {finding}" for finding in plan.findings]
    for buffer in plan.buffers:
        shape = ", ".join(buffer.dims)
        lines.append(f"  {buffer.role} {buffer.name}: {buffer.dtype.value}[{shape}]")
    for loop, places in plan.stretches:
        steps = [t.name for t in plan.tasks] if plan.tasks else []
        steps = [k.program.name for k in plan.kernels] or steps
        way = ", the last first" if loop.reverse else ""
        lines.append(
            f"  for each row along {loop.over}{way}: {', '.join(steps[p] for p in places)}"
        )
        lines += [f"    {view}: a row of {whole}" for view, whole in (*loop.rows, *loop.made)]
        for state in loop.states:
            turn = f"{state.start}, then {state.after} of the row before; at last {state.end}"
            lines.append(f"    {state.before}: {turn}")
    for task in () if plan.kernels else plan.tasks:
        reads = ", ".join(sorted(buffers_of(task) - {*task.writes}))
        lines.append(f"  {task.name} ({task.schedule}): {reads} -> {', '.join(task.writes)}")
        lines.append(f"    {task.about}")
        lines.append(f"    because {task.reason}")
    for kernel in plan.kernels:
        reads = ", ".join(kernel.reads)
        made = ", ".join(kernel.writes)
        lines.append(f"  {kernel.program.name} ({kernel.schedule}): {reads} -> {made}")
        lines.append(f"    because {kernel.reason}")
    programs = [write_program(kernel.program) for kernel in plan.kernels]
    return "\n\n".join(["\n".join(lines), *programs]) + "\n"


def write_program(program: Program) -> str:
    """One tile program, an op a line."""
    arguments = ", ".join(_argument(a) for a in program.arguments)
    lines = [f"{program.name}({arguments})"]
    for axis in program.grid:
        cut = f" by BLOCK_{axis.dim}" if axis.tiled else ""
        order = ", the last first" if axis.descending else ""
        lines.append(f"  grid {axis.position.name} over {axis.dim}{cut}{order}")
    for tile in program.blocks:
        whole = f", all {tile.size} positions" if tile.whole else ""
        lines.append(f"  tile {tile.symbol} = {tile.block}{whole}")
    lines += [f"  launch {name} = {value}" for name, value in program.launch]
    lines += [f"  promise {promise}" for promise in program.promises]
    for op in program.body:
        lines.extend(f"  {line}" for line in write_op(op))
    return "\n".join(lines)


def _argument(argument: Argument) -> str:
    match argument:
        case BufferArgument(name, dims, dtype, written):
            return f"{'out ' if written else ''}{name}: {dtype.value}[{', '.join(dims)}]"
        case SizeArgument(dim):
            return f"size {dim}"
        case HostArgument(name, _, value):
            return f"{name} = {value}"
        case ParamArgument(name, _, runtime):
            return f"{'runtime ' if runtime else ''}param {name}"


def write_op(op: Op) -> list[str]:
    """The lines of one op."""
    match op:
        case Comment(text):
            return [f"# {text}"]
        case Store(buffer, index, value, mask, add):
            sign = "+=" if add else "="
            return [f"store {_place(buffer, index)} {sign} {value.name}{_where(mask)}"]
        case Convolve():
            return [_convolve(op)]
        case Transform():
            return [_transform(op)]
        case For():
            return _loop(op)
        case Combine():
            return _combine(op)
        case _:
            return [f"{op.out} = {_right_side(op)}"]


def _right_side(op: Op) -> str:
    match op:
        case Constant(_, value):
            return repr(value)
        case Range(_, start):
            return f"range from {'0' if start is None else start.name}"
        case Elementwise(_, fn, args):
            return f"{fn}({', '.join(a.name for a in args)})"
        case Cast(_, x):
            return f"cast {x.name}"
        case Load(_, buffer, index, mask, fill, again):
            tail = "" if mask is None else f"{_where(mask)} else {fill}"
            return f"load {_place(buffer, index)}{tail}{' again' if again else ''}"
        case Dot(_, a, b, over, acc, masked, exact):
            more = "" if acc is None else f" + {acc.name}"
            how = f"{'exact ' if exact else ''}{'masked ' if masked else ''}"
            return f"{how}dot({a.name}, {b.name}) over {over}{more}"
        case Reduce(_, fn, x, over):
            return f"{fn} {x.name} over {over}"
        case Scan(_, x, over, reverse, fn):
            return f"running {fn} {x.name} over {over}{' from the end' if reverse else ''}"
        case Rename(_, x, axis, to):
            return f"{x.name} with {to} for {axis}"
        case Substitute(_, a, b, rows, columns):
            return f"substitute {a.name} over {columns} into {b.name} down {rows}"
        case Solve(_, matrix, vector, left, right):
            return f"solve {matrix.name}[{left}, {right}] for {vector.name}"
        case Search(_, buffer, index, dim, _, value, side):
            return f"search {_place(buffer, index)} along {dim} for {value.name}, {side}"
    raise TypeError(type(op).__name__)


def _convolve(op: Convolve) -> str:
    places = {dim: value.name for dim, value in op.index}
    signs = ["+" if sign > 0 else "-" for sign in (op.row_sign, op.lag_sign)]
    place = f"{op.over} = {signs[0]} {op.row} {signs[1]} {op.lag} + {op.offset.name}"
    here = ", ".join(f"{dim} = {name}" for dim, name in places.items())
    sums = ", ".join((op.lag, *op.summed))
    terms = f"{op.kernel}[{op.lag}] * {op.signal}[{place}]"
    return f"convolve {op.result}[{op.row}] = sum {terms} over {sums} at {here}"


def _transform(op: Transform) -> str:
    made = ", ".join(
        f"{part} {name}"
        for part, name in zip(("re", "im"), op.parts, strict=True)
        if name is not None
    )
    given = " + i ".join(f"{o.buffer}[{', '.join(o.dims)}]" for o in op.operands)
    angles = " + ".join(f"{'-' if t.sign < 0 else ''}{t.over} {t.row}" for t in op.turns)
    sums = ", ".join(turn.over for turn in op.turns)
    return f"transform {made} = sum ({given}) turned by {angles} over {sums}"


def _combine(op: Combine) -> list[str]:
    names = [", ".join(v.name for v in vs) for vs in (op.xs, op.left, op.right, op.results)]
    way = " from the end" if op.reverse else ""
    head = f"{', '.join(map(str, op.outs))} = combine {names[0]} over {op.over}{way}"
    body = [f"  {line}" for inner in op.body for line in write_op(inner)]
    return [f"{head} by ({names[1]}), ({names[2]}):", *body, f"  -> {names[3]}"]


def _loop(op: For) -> list[str]:
    carried = ", ".join(f"{c.inner} = {c.initial.name}" for c in op.carried)
    start, stop = op.start.name, op.stop.name
    head = f"for {op.variable.name} in {start} .. {stop} by {op.step} carrying {carried}:"
    body = [f"  {line}" for inner in op.body for line in write_op(inner)]
    handed = ", ".join(v.name for v in op.yields)
    results = ", ".join(c.out.name for c in op.carried)
    return [head, *body, f"  yield {handed}", f"  -> {results}"]


def _place(buffer: str, index: tuple[tuple[str, Value], ...]) -> str:
    return f"{buffer}[{', '.join(v.name for _, v in index)}]"


def _where(mask: Value | None) -> str:
    return "" if mask is None else f" where {mask.name}"
