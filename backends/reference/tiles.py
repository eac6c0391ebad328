"""The meaning of the tile level: a plan's programs executed instance by instance, with torch.

Real numbers are all of one type, float64 unless told otherwise, whatever the program says: what is
left is the structure, exactly. Every access is checked: one that lies outside its buffer, one that
reads what nobody wrote, a second write to an element, and an output left unwritten are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from ...ir.binding import Number, shape_of
from ...ir.errors import VerificationError
from ...ir.host import evaluate_host
from ...ir.plan import Kernel, Plan
from ...ir.tile import (
    BufferArgument,
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
from ...ir.transform import Transform
from ...ir.verify_plan import verify_lengths
from .convolve import convolve
from .elementwise import FUNCTIONS
from .row_loops import rows_of
from .tile_memory import Memory, OutsideError, allocate, places, torch_dtype
from .transform import transform

_Places = tuple[slice | None, ...]
Watch = Callable[[Program, Mapping[str, int], Op, Tensor], None]
_REDUCTIONS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "sum": torch.sum,
    "max": torch.amax,
    "min": torch.amin,
    "prod": torch.prod,
    "any": torch.any,
    "all": torch.all,
}
_INT32 = 2**31


def run_plan(
    plan: Plan,
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    params: Mapping[str, Number] = {},
    dtype: torch.dtype = torch.float64,
    watch: Watch | None = None,
) -> dict[str, Tensor]:
    """The outputs of a plan by name, in their declared layouts.

    Args:
        tensors: the inputs of ``plan.mixer``.
        sizes: the length of every dim (``bind_sizes``); those the plan was made for have to agree.
        params: values of run-time params.
        dtype: what real numbers are computed in.
        watch: told of every value that is made: by which program, where in its grid, by which op.

    Raises:
        VerificationError: lengths that the plan is not made for, or an access that a program may
            not make.
    """
    verify_lengths(plan, sizes)
    lengths = {**sizes, **dict(plan.sizes)}
    lengths |= {dim: int(evaluate_host(n, lengths)) for dim, n in plan.own_sizes.items()}
    given = {p.name: p.value for p in plan.mixer.params if p.runtime}
    numbers = {n: evaluate_host(e, lengths, dict(plan.params)) for n, e in given.items()}
    numbers |= {**dict(plan.params), **params}
    own = (buffer for buffer in plan.buffers if buffer.role != "view")
    memory = {b.name: allocate(plan, b, tensors, lengths, dtype) for b in own}

    def launch(kernels: Sequence[Kernel]) -> None:
        for kernel in kernels:
            _Launch(kernel.program, memory, lengths, numbers, dtype, watch).run()

    done = 0
    for loop, inside in plan.stretches:
        launch(plan.kernels[done : inside.start])
        for row in rows_of(loop, plan, memory, lengths, dtype):
            memory |= row
            launch(plan.kernels[inside.start : inside.stop])
        done = inside.stop
    launch(plan.kernels[done:])
    made = {}
    for output in plan.mixer.outputs:
        result = memory[output.name]
        if not result.is_whole():
            raise VerificationError(f"no kernel writes some elements of {output.name}")
        made[output.name] = result.data.reshape(shape_of(output.layout, lengths))
    return made


@dataclass
class _Launch:
    """One kernel on its grid; ``values`` are those of the instance at hand, axes by name."""

    program: Program
    memory: Mapping[str, Memory]
    sizes: Mapping[str, int]
    params: Mapping[str, Number]
    dtype: torch.dtype
    watch: Watch | None
    values: dict[str, Tensor] = field(default_factory=dict)
    place: dict[str, int] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)  # where the blocks at hand begin, by dim
    # Found once per set of axes: their blocks in order, and where a value's axes lie among others.
    shapes: dict[frozenset[str], list[int]] = field(default_factory=dict)
    alignments: dict[tuple[frozenset[str], frozenset[str]], _Places] = field(default_factory=dict)

    def run(self) -> None:
        """Every instance of the grid, one after another."""
        program = self.program
        arguments = self._arguments()
        steps = [program.tile(g.dim).block if g.tiled else 1 for g in program.grid]
        starts = [
            range(0, self.sizes[g.dim], step) for g, step in zip(program.grid, steps, strict=True)
        ]
        for at in product(*starts):
            self.place = {g.position.name: p for g, p in zip(program.grid, at, strict=True)}
            first = {g.dim: p for g, p in zip(program.grid, at, strict=True) if g.tiled}
            self.starts = {t.dim: 0 for t in program.tiles if t.whole} | first
            self.values = dict(arguments)
            self.values |= {name: torch.tensor(p) for name, p in self.place.items()}
            self._ops(program.body)

    def _arguments(self) -> dict[str, Tensor]:
        made = {t.symbol: torch.tensor(t.block) for t in self.program.tiles}
        for argument in self.program.arguments:
            match argument:
                case SizeArgument(dim):
                    made[dim] = torch.tensor(self.sizes[dim])
                case HostArgument(name, dtype, value):
                    made[name] = self._number(evaluate_host(value, self.sizes, self.params), dtype)
                case ParamArgument(name, dtype):
                    made[name] = self._number(self.params[name], dtype)
                case BufferArgument():
                    pass
        return made

    def _number(self, number: Number, dtype: DType) -> Tensor:
        return torch.tensor(number, dtype=torch_dtype(dtype, self.dtype))

    def _fail(self, message: str) -> VerificationError:
        here = ", ".join(f"{name} = {p}" for name, p in self.place.items())
        return VerificationError(f"{self.program.name} at {here}: {message}")

    # ------------------------------------------------------------------------------- ops

    def _ops(self, ops: tuple[Op, ...]) -> None:
        for op in ops:
            match op:
                case Comment():
                    pass
                case For():
                    self._loop(op)
                case Store():
                    self._store(op)
                case Combine():
                    self._combine(op)
                case Convolve():
                    self._convolve(op)
                case Transform():
                    self._transform(op)
                case _:
                    self._set(op.out, self._value(op))
                    if self.watch is not None:
                        self.watch(self.program, self.place, op, self.values[op.out.name])

    def _set(self, out: Value, result: Tensor) -> None:
        if out.dtype is DType.INT32 and (held := self._held(out.axes, result)).numel():
            low, high = (int(end) for end in held.aminmax())
            if not -_INT32 <= low <= high < _INT32:
                raise self._fail(f"{out} overflows: {low} ... {high}")
        result = result.to(torch_dtype(out.dtype, self.dtype))
        self.values[out.name] = result.expand(self._shape(out.axes)) if out.axes else result

    def _held(self, axes: frozenset[str], result: Tensor) -> Tensor:
        """What a value has of positions that there are: in the padding of a block an integer may
        wrap, as it does in a kernel; a result that were made of that would be wrong."""
        if result.dim() != len(axes):
            return result
        for number, dim in enumerate(sorted(axes)):
            if dim in self.starts and dim in self.sizes:
                there = max(0, self.sizes[dim] - self.starts[dim])
                result = result.narrow(number, 0, min(there, result.shape[number]))
        return result

    def _shape(self, axes: frozenset[str]) -> list[int]:
        if axes not in self.shapes:
            self.shapes[axes] = [self.program.tile(d).block for d in sorted(axes)]
        return self.shapes[axes]

    def _aligned(self, value: Value, axes: frozenset[str]) -> Tensor:
        """A value's tensor, ready to meet others with ``axes``, which are in order of name."""
        tensor = self.values[value.name]
        if value.axes == axes or not value.axes:
            return tensor
        if (value.axes, axes) not in self.alignments:
            places = tuple(slice(None) if d in value.axes else None for d in sorted(axes))
            self.alignments[value.axes, axes] = places
        return tensor[self.alignments[value.axes, axes]]

    def _value(self, op: Op) -> Tensor:
        match op:
            case Constant(out, value):
                return self._number(value, out.dtype)
            case Range(out, start):
                (dim,) = out.axes
                steps = torch.arange(self.program.tile(dim).block)
                return steps if start is None else self.values[start.name] + steps
            case Elementwise(_, "as_float", (x,)):
                return self.values[x.name].to(torch.int32).view(torch.float32).to(self.dtype)
            case Elementwise(out, fn, args):
                return FUNCTIONS[fn](*(self._aligned(a, out.axes) for a in args))
            case Cast(out, x):
                return self._cast(self.values[x.name], out.dtype)
            case Load():
                return self._load(op)
            case Dot(out, a, b, over, acc, masked):
                every = out.axes | {over}
                left, right = self._aligned(a, every), self._aligned(b, every)
                product = left * right
                if masked:
                    product = torch.where(left == 0, 0.0, product)
                result = product.sum(sorted(every).index(over))
                return result if acc is None else result + self.values[acc.name]
            case Reduce(_, fn, x, over):
                return _REDUCTIONS[fn](self.values[x.name], sorted(x.axes).index(over))
            case Scan(_, x, over, reverse, fn):
                return _scan(self.values[x.name], sorted(x.axes).index(over), reverse, fn)
            case Rename(out, x, axis, to):
                return self._renamed(x, axis, to)
            case Substitute():
                return self._substitute(op)
            case Solve():
                return self._solve(op)
            case Search():
                return self._search(op)
        raise TypeError(type(op).__name__)

    def _renamed(self, x: Value, axis: str, to: str) -> Tensor:
        """A value's tensor with one axis called otherwise, its axes in order of name again."""
        names = [to if d == axis else d for d in sorted(x.axes)]
        return self.values[x.name].permute([names.index(d) for d in sorted(names)])

    def _substitute(self, op: Substitute) -> Tensor:
        """Row by row, as it is defined."""
        a = self._in_order(op.a, [op.rows, op.columns])
        others = sorted(op.out.axes - {op.rows})
        b = self._aligned(op.b, op.out.axes).expand(self._shape(op.out.axes))
        x = b.movedim(sorted(op.out.axes).index(op.rows), 0).clone()
        for row in range(1, x.shape[0]):
            x[row] += torch.tensordot(a[row, :row], x[:row], 1)
        order = [op.rows, *others]
        return x.permute([order.index(d) for d in sorted(order)])

    def _solve(self, op: Solve) -> Tensor:
        """On the positions that exist; 0 past them."""
        size = self.program.tile(op.left).size
        others = sorted(op.vector.axes - {op.left})
        matrix = self._in_order(op.matrix, [op.left, op.right])[:size, :size]
        vector = self._in_order(op.vector, [op.left, *others])[:size]
        x = torch.linalg.solve(matrix, vector.reshape(vector.shape[0], -1))
        block = self.program.tile(op.right).block
        whole = torch.zeros(block, x.shape[1], dtype=x.dtype)
        whole[: x.shape[0]] = x
        order = [op.right, *others]
        whole = whole.reshape(block, *vector.shape[1:])
        return whole.permute([order.index(d) for d in sorted(order)])

    def _in_order(self, value: Value, order: list[str]) -> Tensor:
        names = sorted(value.axes)
        return self.values[value.name].permute([names.index(d) for d in order])

    def _combine(self, op: Combine) -> None:
        """One position after another, the far ones on the left."""
        axis = sorted(op.xs[0].axes).index(op.over)
        rows = [self.values[x.name].unbind(axis) for x in op.xs]
        count = len(rows[0])
        order = range(count - 1, -1, -1) if op.reverse else range(count)
        so_far: list[Tensor] = []
        made: list[list[Tensor]] = [[torch.empty(0)] * count for _ in op.outs]
        for at in order:
            here = [tensors[at] for tensors in rows]
            so_far = self._together(op, so_far, here, axis) if so_far else here
            for column, tensor in zip(made, so_far, strict=True):
                column[at] = tensor
        for out, column in zip(op.outs, made, strict=True):
            self._set(out, torch.stack(column, axis))

    def _together(
        self, op: Combine, left: list[Tensor], right: list[Tensor], axis: int
    ) -> list[Tensor]:
        for values, tensors in ((op.left, left), (op.right, right)):
            for value, tensor in zip(values, tensors, strict=True):
                self._set(value, tensor.unsqueeze(axis))
        self._ops(op.body)
        return [self.values[v.name].select(axis, 0) for v in op.results]

    def _cast(self, x: Tensor, dtype: DType) -> Tensor:
        if dtype.is_float or dtype is DType.BOOL or not x.is_floating_point():
            return x
        return torch.nan_to_num(x).clamp(-_INT32, _INT32 - 1).trunc()

    def _loop(self, op: For) -> None:
        start, stop = (int(self.values[v.name]) for v in (op.start, op.stop))
        step = self.program.step(op)
        state = [self.values[c.initial.name] for c in op.carried]
        dims = [tile.dim for tile in self.program.tiles if tile.symbol == op.step]
        for turn in range(start, stop, step):
            self.starts |= dict.fromkeys(dims, turn)
            self.values[op.variable.name] = torch.tensor(turn)
            for carried, value in zip(op.carried, state, strict=True):
                self.values[carried.inner.name] = value
            self._ops(op.body)
            state = [self.values[v.name] for v in op.yields]
        for carried, value in zip(op.carried, state, strict=True):
            self.values[carried.out.name] = value

    # ---------------------------------------------------------------------------- memory

    def _elements(self, op: Load | Store, axes: frozenset[str]) -> tuple[Tensor, Tensor | None]:
        """Flat places in a buffer over ``axes`` (0 where masked), and the mask."""
        memory, shape = self.memory[op.buffer], self._shape(axes)
        mask = None if op.mask is None else self._aligned(op.mask, axes).expand(shape)
        index = [self._aligned(v, axes) for _, v in op.index]
        try:
            flat = places(index, memory.shape, mask)
        except OutsideError as outside:
            dim, value = op.index[outside.axis]
            size = memory.shape[outside.axis]
            what = f"{op.out.name} reads" if isinstance(op, Load) else f"{op.value.name} goes to"
            how = "no mask" if op.mask is None else f"mask {op.mask.name}"
            raise self._fail(
                f"{what} {op.buffer} outside: {dim} = {outside.place} with {size} positions"
                f" ({value.name}, {how})"
            ) from None
        return flat.expand(shape), mask

    def _load(self, op: Load) -> Tensor:
        memory = self.memory[op.buffer]
        flat, mask = self._elements(op, op.out.axes)
        fill = self._number(op.fill, op.out.dtype)
        if memory.data.numel() == 0:
            return fill
        if not memory.has_all(flat, mask):
            raise self._fail(f"{op.out.name} reads elements of {op.buffer} that nobody wrote")
        return memory.data[flat] if mask is None else torch.where(mask, memory.data[flat], fill)

    def _store(self, op: Store) -> None:
        memory = self.memory[op.buffer]
        axes = frozenset[str]().union(*(v.axes for _, v in op.index))
        flat, mask = self._elements(op, axes)
        value = self._aligned(op.value, axes).expand(flat.shape)
        if mask is not None:
            flat, value = flat[mask], value[mask]
        if op.add and not memory.add(flat, value):
            raise self._fail(f"{op.value.name} is added to elements of {op.buffer} without a value")
        again = self.program.buffers[op.buffer].kept
        if not op.add and not memory.write(flat, value, again):
            raise self._fail(f"{op.value.name} goes to elements of {op.buffer} that have a value")

    def _convolve(self, op: Convolve) -> None:
        numbers = {v.name: int(self.values[v.name]) for v in operands(op)}
        block = 1 if op.lanes is None else self.program.tile(op.lanes).block
        fault = convolve(op, self.memory, numbers, block)
        if fault is not None:
            raise self._fail(fault)

    def _transform(self, op: Transform) -> None:
        fault = transform(op, self.memory)
        if fault is not None:
            raise self._fail(fault)

    def _search(self, op: Search) -> Tensor:
        memory = self.memory[op.buffer]
        table = memory.data.reshape(memory.shape)
        places = {dim: int(self.values[v.name]) for dim, v in op.index}
        line = table[
            tuple(
                slice(int(self.values[op.size.name])) if d == op.dim else places[d]
                for d in memory.buffer.dims
            )
        ]
        if bool((line[1:] < line[:-1]).any()):
            raise self._fail(f"{op.buffer} is searched along {op.dim}, and is not sorted")
        value = self.values[op.value.name]
        return (line <= value if op.side == "right" else line < value).sum()


def _scan(x: Tensor, axis: int, reverse: bool, fn: str) -> Tensor:
    """A running sum, product or maximum, in either direction."""
    x = x.flip(axis) if reverse else x
    match fn:
        case "sum":
            made = x.cumsum(axis)
        case "prod":
            made = x.cumprod(axis)
        case "max":
            made = x.cummax(axis).values
        case _:
            raise TypeError(fn)
    return made.flip(axis) if reverse else made
