"""The rules of the plan and tile levels, checked before a backend sees a program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .errors import ArgumentError, PromiseError, VerificationError
from .expression import Ref
from .plan import Buffer, Plan
from .promises import CommonBlocks
from .rewriting import every_node
from .row_loop import RowLoop, members
from .task import ConvolutionTask, Task, TransformTask, buffers_of
from .tile import (
    Carried,
    Cast,
    Combine,
    Comment,
    Constant,
    Convolve,
    Dot,
    DType,
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
    operands,
)
from .transform import Transform

# No axis is longer: so sums and differences of two places take 32 bits.
LONGEST = 2**30


def verify_plan(plan: Plan) -> None:
    """Tasks and kernels are sound and have names of their own; buffers are written, then read.

    Where both are there, each kernel keeps to the buffers that its task names.
    """
    if plan.tasks:
        _verify_steps(plan, [(t.name, _reads(plan, t), t.writes) for t in plan.tasks])
        for task in plan.tasks:
            _verify_task(plan, task)
        if not plan.kernels:
            return
    _verify_steps(plan, [(k.program.name, k.reads, k.writes) for k in plan.kernels])
    for loop, inside in plan.stretches:
        if any(plan.kernels[place].transform is not None for place in inside):
            raise VerificationError(f"a row along {loop.over} has a transform")
    cut: dict[CommonBlocks, int] = {}
    for kernel in plan.kernels:
        verify_program(kernel.program)
        _cut_alike(kernel.program, cut)
    if plan.tasks:
        verify_kernels(plan)


def _verify_steps(plan: Plan, steps: Sequence[tuple[str, Iterable[str], Iterable[str]]]) -> None:
    """Tasks or kernels, each with its name, what it reads and what it writes."""
    written = {b.name for b in plan.buffers if b.role in ("input", "table")}
    names = [name for name, _, _ in steps]
    accesses = [(tuple(reads), tuple(writes)) for _, reads, writes in steps]
    loops = [(loop, members(loop, accesses)) for loop in plan.loops]
    for loop, places in loops:
        _verify_loop(plan, loop, [names[place] for place in places])
        if places != [*range(places[0], places[-1] + 1)]:
            raise VerificationError(f"the kernels of rows along {loop.over} do not stand together")
    for place, (name, reads, writes) in enumerate(steps):
        for loop in (loop for loop, places in loops if places[0] == place):
            for needed in sorted(loop.needs - written):
                raise VerificationError(f"rows along {loop.over} read {needed} before it is made")
            written |= loop.seen
        if names.count(name) > 1:
            raise VerificationError(f"two kernels are called {name}")
        for read in reads:
            if read not in written:
                raise VerificationError(f"{name} reads {read} before it is made")
        for made in writes:
            if made in written:
                raise VerificationError(f"{name} writes {made} a second time")
            written.add(made)
        for loop in (loop for loop, places in loops if places[-1] == place):
            for left in sorted(loop.filled - written):
                raise VerificationError(f"no kernel of a row along {loop.over} makes {left}")
            written |= loop.gives
    missing = [o.name for o in plan.mixer.outputs if o.name not in written]
    if missing:
        raise VerificationError(f"no kernel makes the output {missing[0]}")
    for output in plan.mixer.outputs:
        if output.dtype == "float32" and plan.buffer(output.name).dtype is not DType.FLOAT32:
            raise VerificationError(f"the output {output.name} is to be float32")


def _verify_loop(plan: Plan, loop: RowLoop, names: Sequence[str]) -> None:
    """Views have the axes of a row of what they are of; the memory of a state is of one kind."""
    known = {buffer.name: buffer for buffer in plan.buffers}
    for name in (*loop.views, *loop.needs, *loop.filled, *loop.gives):
        if name not in known:
            raise VerificationError(f"rows along {loop.over}: {name} is no buffer")
        if (known[name].role == "view") != (name in loop.views):
            raise VerificationError(f"rows along {loop.over}: {name} is a {known[name].role}")
    if not names:
        raise VerificationError(f"no kernel has a row along {loop.over}")
    for view, whole in (*loop.rows, *loop.made):
        dims = tuple(dim for dim in known[whole].dims if dim != loop.over)
        if known[whole].dims.count(loop.over) != 1 or not _is_like(known[view], known[whole], dims):
            raise VerificationError(f"{view} is no row of {whole} along {loop.over}")
    for state in loop.states:
        first, *others = (known[name] for name in state.names)
        if any(not _is_like(other, first, first.dims) for other in others):
            raise VerificationError(f"{', '.join(state.names)} are not of one kind")


def _is_like(buffer: Buffer, other: Buffer, dims: tuple[str, ...]) -> bool:
    return buffer.dims == dims and buffer.dtype is other.dtype


def _reads(plan: Plan, task: Task) -> frozenset[str]:
    """The buffers that a task reads, of which each name has to be one."""
    known = {buffer.name for buffer in plan.buffers}
    reads = buffers_of(task) - {*task.writes}
    unknown = sorted(reads - known)
    if unknown:
        raise VerificationError(f"{task.name} reads {unknown[0]}, which is no buffer")
    return reads


def _verify_task(plan: Plan, task: Task) -> None:
    """Buffers are read and written along the axes that they have."""
    dims = {buffer.name: frozenset(buffer.dims) for buffer in plan.buffers}
    for name in task.writes:
        if name not in dims:
            raise VerificationError(f"{task.name} writes {name}, which is no buffer")
    if isinstance(task, ConvolutionTask):
        _verify_convolution(task, dims[task.result])
    if isinstance(task, TransformTask):
        _verify_transform(plan, task.name, task.transform)
    for node in every_node(task.expressions):
        if not isinstance(node, Ref) or node.name in task.local:
            continue
        if node.dims != dims[node.name]:
            read, has = (", ".join(sorted(d)) for d in (node.dims, dims[node.name]))
            raise VerificationError(f"{task.name} reads {node.name}[{read}]; it has [{has}]")


def _verify_convolution(task: ConvolutionTask, dims: frozenset[str]) -> None:
    """Each factor has the axis that it is walked along, the result those that are left."""
    fits = task.lag in task.kernel.axes and task.over in task.signal.axes
    fits = fits and {task.row_sign, task.lag_sign} <= {1, -1} and not task.offset.axes
    others = (task.kernel.axes - {task.lag}) | (task.signal.axes - {task.over})
    fits = fits and task.row not in others and task.axes == dims
    if not fits or task.lanes not in {None, *(dims - {task.row})}:
        raise VerificationError(f"{task.name} is no sum over lags of {task.row} - {task.lag}")


def _verify_transform(plan: Plan, name: str, transform: Transform) -> None:
    """What is transformed has the axes that are summed over, what is filled those of the rows."""
    for fault in transform.faults({buffer.name: buffer.dims for buffer in plan.buffers}):
        raise VerificationError(f"{name} {fault}")


def verify_kernels(plan: Plan) -> None:
    """A kernel for each task, which reads and writes no other buffers than the task names."""
    if len(plan.kernels) != len(plan.tasks):
        raise VerificationError(f"{len(plan.tasks)} tasks, but {len(plan.kernels)} kernels")
    for task, kernel in zip(plan.tasks, plan.kernels, strict=True):
        name = kernel.program.name
        if name != task.name:
            raise VerificationError(f"the kernel of {task.name} is called {name}")
        if frozenset(kernel.writes) != frozenset(task.writes):
            raise VerificationError(f"{name} writes {', '.join(kernel.writes)}: not as its task")
        more = sorted({*kernel.reads} - buffers_of(task))
        if more:
            raise VerificationError(f"{name} reads {more[0]}, of which its task says nothing")


def verify_program(program: Program) -> None:
    """Values are made once and before use, axes are tiled, and each op's types fit."""
    _Checker(program).run()


def verify_lengths(plan: Plan, sizes: Mapping[str, int]) -> None:
    """The lengths of a launch are ones that the plan was made for.

    Raises:
        PromiseError: a fixed size is another one, positions of one sequence differ in number,
            groups do not divide their heads, or a place past the end takes more than 32 bits.
        ArgumentError: integers of the spec take more than 64 bits at these lengths.
    """
    name = plan.mixer.name
    for dim, fixed in plan.sizes:
        if sizes.get(dim, fixed) != fixed:
            raise PromiseError(f"{name} is made for {dim} = {fixed}, not {sizes[dim]}")
    for dim, other in plan.mixer.sequences:
        if sizes[dim] != sizes[other]:
            raise PromiseError(f"{name}: {dim} = {sizes[dim]} is not {other} = {sizes[other]}")
    for groups, heads in plan.mixer.heads:
        if {groups, heads} <= sizes.keys() and sizes[heads] % max(sizes[groups], 1):
            raise PromiseError(
                f"{name}: {groups} = {sizes[groups]} does not divide {heads} = {sizes[heads]}"
            )
    for dim, size in sizes.items():
        if not 0 <= size <= LONGEST:
            raise PromiseError(f"{name}: {dim} = {size} is not within 0 ... {LONGEST}")
    for dim, most in plan.limits:
        if sizes.get(dim, 0) > most:
            raise ArgumentError(
                f"{name}: expected {dim} of at most {most}, got {sizes[dim]}: beyond, an integer of"
                " the spec takes more than 64 bits; keep its parts small (`(j % 5) ** 3 % 5`)"
            )


def _cut_alike(program: Program, known: dict[CommonBlocks, int]) -> None:
    """A program cuts dims as those before it, where it has to; ``known`` gets what is new."""
    for promise in program.common_blocks:
        block = program.tile(promise.dim).block
        if known.setdefault(promise, block) != block:
            other = known[promise]
            raise PromiseError(f"{program.name}: {promise} of {other}; here they are of {block}")


class _Checker:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.blocks = {t.dim: t.block for t in program.tiles}
        self.known: dict[str, Value] = {}
        self.made: set[str] = set()

    def run(self) -> None:
        self._tiles()
        for axis in self.program.grid:
            self._make(axis.position)
        for tile in self.program.blocks:
            self._make(Value(tile.symbol, DType.INT32))
        for argument in self.program.arguments:
            match argument:
                case SizeArgument(dim):
                    self._make(Value(dim, DType.INT32))
                case HostArgument(name, dtype) | ParamArgument(name, dtype):
                    self._make(Value(name, dtype))
                case _:
                    pass
        self._ops(self.program.body)

    def _tiles(self) -> None:
        for tile in self.program.tiles:
            if tile.block < 1:
                self._broken(f"a block of {tile.block} positions of {tile.dim}")
            if tile.whole and tile.size is not None and tile.block < tile.size:
                self._broken(f"a block of {tile.block} does not hold all {tile.size} of {tile.dim}")
            if tile.like is not None and tile.block != self.blocks.get(tile.like, tile.block):
                self._broken(f"{tile.dim} does not have the block of {tile.like}")
        for promise in self.program.promises:
            if not isinstance(promise, CommonBlocks) and promise.dim in self.blocks:
                block = self.blocks[promise.dim]
                if not promise.is_kept_by(block):
                    self._broken(f"{promise}; {block} does not")

    def _same_blocks(self, dim: str, other: str) -> None:
        if self.blocks[dim] != self.blocks[other]:
            self._broken(f"{dim} has blocks of {self.blocks[dim]}, {other} of {self.blocks[other]}")

    def _broken(self, message: str) -> None:
        raise PromiseError(f"{self.program.name}: {message}")

    def _fail(self, message: str) -> None:
        raise VerificationError(f"{self.program.name}: {message}")

    def _make(self, value: Value) -> None:
        if value.name in self.made:
            self._fail(f"{value.name} is made twice")
        if not value.axes <= self.blocks.keys():
            self._fail(f"{value} has an axis that is not tiled")
        self.made.add(value.name)
        self.known[value.name] = value

    def _read(self, value: Value) -> None:
        if self.known.get(value.name) != value:
            self._fail(f"{value} is read where it is not known")

    def _ops(self, ops: tuple[Op, ...]) -> None:
        outside = dict(self.known)
        for op in ops:
            for value in operands(op):
                self._read(value)
            self._op(op)
        self.known = outside

    def _op(self, op: Op) -> None:
        match op:
            case Load(out, buffer, index, mask, _):
                self._memory(buffer, index, mask, out.axes, written=False)
            case Store(buffer, index, value, mask):
                axes = frozenset[str]().union(*(v.axes for _, v in index))
                if not value.axes <= axes:
                    self._fail(f"a store to {buffer} of {value}, whose axes have no place there")
                self._memory(buffer, index, mask, axes, written=True)
                return
            case Dot(out, a, b, over, _):
                self._dot(out, a, b, over)
            case Reduce(out, _, x, over):
                if over not in x.axes or out.axes != x.axes - {over}:
                    self._fail(f"{out} is no reduction of {x} over {over}")
            case Elementwise(out, _, args):
                if out.axes != frozenset[str]().union(*(a.axes for a in args)):
                    self._fail(f"{out} does not have the axes of its arguments")
            case For():
                self._loop(op)
                return
            case Convolve():
                self._convolve(op)
                return
            case Transform():
                self._transform(op)
                return
            case Comment():
                return
            case Combine():
                self._combine(op)
                return
            case Rename(out, x, axis, to):
                if axis not in x.axes or to in x.axes or out.axes != x.axes - {axis} | {to}:
                    self._fail(f"{out} is not {x} with {to} for {axis}")
                self._same_blocks(axis, to)
            case Substitute(out, a, b, rows, columns):
                if a.axes != {rows, columns} or columns in b.axes or out.axes != b.axes | {rows}:
                    self._fail(f"{out}: a substitution of {a} into {b} down {rows}")
                self._same_blocks(rows, columns)
            case Solve(out, matrix, vector, left, right):
                axes = vector.axes - {left} | {right}
                if matrix.axes != {left, right} or right in vector.axes or out.axes != axes:
                    self._fail(f"{out}: a solution of {matrix} for {vector}")
                self._same_blocks(left, right)
            case Constant() | Range() | Cast() | Scan() | Search():
                pass
        self._make(op.out)

    def _convolve(self, op: Convolve) -> None:
        placed, sized = dict(op.index), dict(op.sizes)
        walked = {op.result: op.row, op.kernel: op.lag, op.signal: op.over}
        for name, own in walked.items():
            argument = self.program.buffers.get(name)
            if argument is None or argument.written != (name == op.result):
                self._fail(f"{name} is no argument of a sum over lags")
                return
            more = {own} if name == op.result else {own, *op.summed}
            if own not in sized or not set(argument.dims) <= placed.keys() | more:
                self._fail(f"{name} has the dims {argument.dims}, and is placed by {op.index}")
        if op.lanes is not None and op.lanes not in self.blocks:
            self._fail(f"a sum over lags takes blocks of {op.lanes}, which is not tiled")

    def _transform(self, op: Transform) -> None:
        arguments = self.program.buffers
        for fault in op.faults({name: argument.dims for name, argument in arguments.items()}):
            self._fail(fault)
        if {name for name, argument in arguments.items() if argument.written} != {*op.results}:
            self._fail(f"its results are {', '.join(op.results)}, and others are written")
        if self.program.grid or len(self.program.body) > 1:
            self._fail("a transform is all that a program does, and has no grid")

    def _combine(self, op: Combine) -> None:
        groups = (op.outs, op.xs, op.left, op.right, op.results)
        kinds = [[(v.axes, v.dtype) for v in group] for group in groups]
        if any(kind != kinds[0] for kind in kinds) or len({v.axes for v in op.xs}) != 1:
            self._fail(f"{op.outs[0]}: what is combined has not one type throughout")
        if op.over not in op.xs[0].axes:
            self._fail(f"{op.outs[0]}: nothing to combine over {op.over}")
        before = dict(self.known)
        for value in (*op.left, *op.right):
            self._make(value)
        for inner in op.body:
            if not isinstance(inner, Elementwise | Constant | Cast | Comment):
                self._fail(f"{op.outs[0]}: {type(inner).__name__} in a combination")
            for value in operands(inner):
                self._read(value)
            self._op(inner)
        for value in op.results:
            self._read(value)
        self.known = before
        for value in op.outs:
            self._make(value)

    def _memory(
        self,
        buffer: str,
        index: tuple[tuple[str, Value], ...],
        mask: Value | None,
        axes: frozenset[str],
        written: bool,
    ) -> None:
        argument = self.program.buffers.get(buffer)
        if argument is None or (argument.written != written and not argument.kept):
            self._fail(f"{buffer} is no argument to {'write' if written else 'read'}")
            return
        if tuple(dim for dim, _ in index) != argument.dims:
            self._fail(f"{buffer} has the dims {argument.dims}, and is placed by {index}")
        if written and mask is not None and not mask.axes <= axes:
            self._fail(f"the mask {mask} of a store to {buffer} has axes of its own")

    def _dot(self, out: Value, a: Value, b: Value, over: str) -> None:
        if len(a.axes) != 2 or len(b.axes) != 2 or a.axes & b.axes != {over}:
            self._fail(f"{out}: a dot of {a} and {b} over {over}")
        if a.dtype != b.dtype:
            self._fail(f"{out}: a dot of unlike types, {a} and {b}")

    def _loop(self, op: For) -> None:
        if len(op.yields) != len(op.carried):
            self._fail(f"the loop over {op.variable} hands over {len(op.yields)} values")
        before = dict(self.known)
        self._make(op.variable)
        for carried in op.carried:
            self._same(carried)
            self._make(carried.inner)
        for inner in op.body:
            for value in operands(inner):
                self._read(value)
            self._op(inner)
        for carried, value in zip(op.carried, op.yields, strict=True):
            self._read(value)
            if value.axes != carried.inner.axes or value.dtype != carried.inner.dtype:
                self._fail(f"{carried.inner} becomes {value}")
        self.known = before
        for carried in op.carried:
            self._make(carried.out)

    def _same(self, carried: Carried) -> None:
        a, b, c = carried.inner, carried.initial, carried.out
        if not (a.axes == b.axes == c.axes and a.dtype == b.dtype == c.dtype):
            self._fail(f"a loop carries {b} as {a} and gives {c}")
