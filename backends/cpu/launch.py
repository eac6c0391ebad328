"""The launch of a built module, as Python made once: it fills in addresses, strides and sizes."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...ir.binding import Number, evaluate_host, param_values
from ...ir.expression import Expr, Kind, Scalar
from ...ir.host import host_code
from ...ir.mixer import Layout, Mixer
from ...ir.plan import Buffer, Kernel, Plan
from ...ir.plan_memory import bytes_made
from ...ir.row_loop import RowLoop
from ...ir.tile import BufferArgument, DType, HostArgument, ParamArgument, SizeArgument
from ...ir.transform import Transform
from ..fourier import fourier
from ..prepared import NO_ANSWER, compiled, numbers_of
from .large_pages import AT_LEAST, in_large_pages

_CPU = torch.device("cpu")
_TORCH: Mapping[DType, torch.dtype] = {
    DType.BOOL: torch.bool,
    DType.INT32: torch.int32,
    DType.INT64: torch.int64,
    DType.FLOAT16: torch.float16,
    DType.BFLOAT16: torch.bfloat16,
    DType.FLOAT32: torch.float32,
}


@dataclass(frozen=True)
class Module:
    """A plan that has been built: the functions of its runs of kernels, and for which plan."""

    plan: Plan
    mixer: Mixer
    functions: tuple[Any, ...]


@dataclass(frozen=True)
class Signature:
    """What calls have in common: their tensors' names and dtypes in order, the params that they
    give, and the dims whose sizes they come with."""

    inputs: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    params: tuple[str, ...]
    dims: tuple[str, ...]


class Launch:
    """Calls of a module. ``run(sizes, numbers, threads, *tensors)`` gives the outputs in order;
    without ``threads`` there is nothing to compute."""

    def __init__(self, module: Module, signature: Signature) -> None:
        self.module, self.signature = module, signature
        self.outputs = tuple(output.name for output in module.mixer.outputs)
        self.dtypes = tuple(_TORCH[module.plan.buffer(name).dtype] for name in self.outputs)
        numbers = _numbers(module.plan)
        self._real = tuple(dtype.is_float for _, dtype in numbers)
        self._values = (*(value for value, _ in numbers), bytes_made(module.plan))
        more = _more_sizes(module.plan, {dim: f"n{n}" for n, dim in enumerate(signature.dims)})
        self._code = numbers_of(module.mixer, signature.dims, self._values, signature.params, more)
        self.run: Callable[..., tuple[Tensor, ...]] = _LaunchText(self, len(numbers)).function

    def numbers(self, sizes: tuple[int, ...], params: tuple[Number, ...] = ()) -> tuple[int, ...]:
        """The numbers that the kernels are passed beside sizes, as 64 bits, and last how many bytes
        a call makes, outputs and temporaries."""
        try:
            *found, made = self._code(sizes, *params)
        except NO_ANSWER:
            by_dim = self._sizes(sizes)
            given = dict(zip(self.signature.params, params, strict=True))
            values = param_values(self.module.mixer, by_dim, given)
            *found, made = [evaluate_host(value, by_dim, values) for value in self._values]
        bits = [_bits(n) if real else int(n) for n, real in zip(found, self._real, strict=True)]
        return (*bits, int(made))

    def _sizes(self, sizes: tuple[int, ...]) -> dict[str, int]:
        """The sizes by dim, with those that are the plan's own."""
        by_dim = dict(zip(self.signature.dims, sizes, strict=True)) | dict(self.module.plan.sizes)
        own = self.module.plan.own_sizes
        return by_dim | {dim: int(evaluate_host(size, by_dim)) for dim, size in own.items()}


class _LaunchText:
    """The writer of a launch's function."""

    def __init__(self, launch: Launch, numbers: int) -> None:
        self.module, self.signature = launch.module, launch.signature
        self.plan, self.mixer = self.module.plan, self.module.mixer
        self.names = {dim: f"n{place}" for place, dim in enumerate(self.signature.dims)}
        self.lines = [_unpacked([*self.names.values()], "sizes")]
        self.lines.append(_unpacked([*(f"h{n}" for n in range(numbers)), "made"], "numbers"))
        self.known: dict[str, Any] = {"array": array, "empty": torch.empty, "cpu": _CPU}
        self.known |= {"in_large_pages": in_large_pages}
        self.known |= {f"run{n}": function for n, function in enumerate(self.module.functions)}
        self.known |= {"fourier": fourier, "as_strided": torch.as_strided}
        self.variables: dict[str, str] = {}  # of buffers
        self.strides: dict[str, dict[str, str]] = {}
        self.names |= _more_sizes(self.plan, self.names)
        self.made: list[str] = []  # variables of what a call makes
        for buffer in self.plan.buffers:
            self._buffer(buffer)
        if self.made:
            self.lines.append(f"if made >= {AT_LEAST}: in_large_pages({', '.join(self.made)})")
        for loop in self.plan.loops:
            self._views(loop)
        self._call()
        tensors = [f"x{n}" for n in range(len(self.signature.inputs))]
        self.function = compiled(["sizes", "numbers", "threads", *tensors], self.lines, self.known)

    def _buffer(self, buffer: Buffer) -> None:
        match buffer.role:
            case "input":
                self._input(buffer)
            case "table":
                self._table(buffer)
            case "view":
                pass
            case _:
                own = self.variables[buffer.name] = f"y{len(self.variables)}"
                dtype = self._constant(_TORCH[buffer.dtype])
                shape = "".join(f"{self.names[dim]}, " for dim in buffer.dims)
                self.lines.append(f"{own} = empty(({shape}), dtype={dtype}, device=cpu)")
                self.made.append(own)
                self._contiguous(buffer)

    def _input(self, buffer: Buffer) -> None:
        place = self.signature.inputs.index(buffer.name)
        own = self.variables[buffer.name] = f"x{place}"
        if self.signature.dtypes[place] is not _TORCH[buffer.dtype]:
            self.lines.append(f"{own} = {own}.to({self._constant(_TORCH[buffer.dtype])})")
        layout = self.mixer.input(buffer.name).layout
        axes = [f"{own}_{axis}" for axis in range(len(layout))]
        self.lines.append(_unpacked(axes, f"{own}.stride()"))
        self.strides[buffer.name] = {
            dim: self._product(product[inner + 1 :], axis)
            for axis, product in zip(axes, layout, strict=True)
            for inner, dim in enumerate(product)
        }

    def _table(self, buffer: Buffer) -> None:
        table = next(t for t in self.mixer.tables if t.name == buffer.name)
        values = torch.tensor(list(table.values), dtype=_TORCH[buffer.dtype], device=_CPU)
        self.variables[buffer.name] = self._constant(values.reshape(table.shape))
        self._contiguous(buffer)

    def _contiguous(self, buffer: Buffer) -> None:
        inner = {dim: buffer.dims[n + 1 :] for n, dim in enumerate(buffer.dims)}
        self.strides[buffer.name] = {dim: self._product(dims) for dim, dims in inner.items()}

    def _views(self, loop: RowLoop) -> None:
        """A row has the strides of what it is of; a state those of its memory."""
        for view, whole in (*loop.rows, *loop.made):
            self.variables[view] = self.variables[whole]
            self.strides[view] = self.strides[whole]
        for state in loop.states:
            for name in (state.before, state.end):
                self.variables[name] = self.variables[state.start]
                self.strides[name] = self.strides[state.start]

    def _loop(self, loop: RowLoop) -> Iterator[str]:
        """What the entry takes for a loop: the number of rows, for each view where its first row
        is and how many bytes lie from row to row, and the two places of each state."""
        count = self.names[loop.over]
        yield count
        for view, whole in (*loop.rows, *loop.made):
            own, stride = self.variables[view], self.strides[whole][loop.over]
            step = f"{self.plan.buffer(whole).dtype.size_bytes} * {stride}"
            last = f" + ({count} - 1) * {step}" if loop.reverse else ""
            yield f"{own}.data_ptr(){last}"
            yield f"-{step}" if loop.reverse else step
        for state in loop.states:
            yield f"{self.variables[state.start]}.data_ptr()"
            yield f"{self.variables[state.after]}.data_ptr()"

    def _call(self) -> None:
        self.lines.append("if threads:")
        number = iter(range(len(_numbers(self.plan))))
        runs = iter(range(len(self.module.functions)))
        for run in self.plan.runs:
            if (transform := run[0].transform) is not None:
                self.lines.append(f"  {self._transform(transform)}")
                continue
            values = self._arguments(run, number)
            self.lines.append(f"  arguments = array('q', ({''.join(f'{v}, ' for v in values)}))")
            self.lines.append(f"  run{next(runs)}(arguments.buffer_info()[0], threads)")
        results = [self._result(output.name, output.layout) for output in self.mixer.outputs]
        self.lines.append(f"return ({''.join(f'{result}, ' for result in results)})")

    def _arguments(self, run: Sequence[Kernel], number: Iterator[int]) -> list[str]:
        """What the kernels of a run are passed; ``number`` counts the numbers of all."""
        values: list[str] = []
        for kernel in run:
            for argument in kernel.program.arguments:
                if isinstance(argument, BufferArgument):
                    values.append(f"{self.variables[argument.name]}.data_ptr()")
                    values.extend(self.strides[argument.name][dim] for dim in argument.dims)
            for argument in kernel.program.arguments:
                if isinstance(argument, SizeArgument):
                    values.append(self.names[argument.dim])
                elif _value(argument) is not None:
                    values.append(f"h{next(number)}")
        loops = (loop for loop, _ in self.plan.loops_of(run))
        values.extend(value for loop in loops for value in self._loop(loop))
        return values

    def _transform(self, op: Transform) -> str:
        """The call of a transform, on views whose axes are in one order."""
        order = op.order(self.plan.buffer(op.results[0]).dims)
        operands, parts = op.places(order, lambda name: self.plan.buffer(name).dims)
        given = [self._view(*operand) for operand in operands]
        made = ["None" if part is None else self._view(*part) for part in parts]
        real, imaginary = given[0], given[1] if len(given) > 1 else "None"
        axes = self._constant(op.axis_signs(order))
        return f"fourier({real}, {imaginary}, ({', '.join(made)}), {axes})"

    def _view(self, name: str, places: list[int]) -> str:
        """A buffer with its axes in another order."""
        buffer = self.plan.buffer(name)
        if places == sorted(places) and buffer.role != "input":
            return self.variables[name]
        dims = [buffer.dims[place] for place in places]
        sizes, strides = ([known[d] for d in dims] for known in (self.names, self.strides[name]))
        listed = [f"({''.join(f'{part}, ' for part in parts)})" for parts in (sizes, strides)]
        return f"as_strided({self.variables[name]}, {', '.join(listed)})"

    def _result(self, name: str, layout: Layout) -> str:
        own = self.variables[name]
        if tuple((dim,) for dim in self.plan.buffer(name).dims) == layout:
            return own
        return f"{own}.view(({''.join(f'{self._product(product)}, ' for product in layout)}))"

    def _product(self, dims: tuple[str, ...], *more: str) -> str:
        return " * ".join([*more, *(self.names[dim] for dim in dims)]) or "1"

    def _constant(self, value: object) -> str:
        """A name for a value that the lines read."""
        name = next((n for n, known in self.known.items() if known is value), None)
        if name is None:
            name = f"k{len(self.known)}"
            self.known[name] = value
        return name


def _unpacked(names: list[str], value: str) -> str:
    return f"({''.join(f'{name}, ' for name in names)}) = {value}"


def _numbers(plan: Plan) -> list[tuple[Expr, DType]]:
    """The numbers that kernels are passed beside sizes, in order."""
    arguments = [argument for kernel in plan.kernels for argument in kernel.program.arguments]
    return [found for argument in arguments if (found := _value(argument)) is not None]


def _value(argument: object) -> tuple[Expr, DType] | None:
    match argument:
        case HostArgument(_, dtype, value):
            return value, dtype
        case ParamArgument(name, dtype, True):
            return Scalar(name, Kind.REAL if dtype.is_float else Kind.INT), dtype
        case _:
            return None


def _more_sizes(plan: Plan, names: Mapping[str, str]) -> dict[str, str]:
    """The code of sizes that are fixed, and of counts of blocks."""
    more = {dim: str(size) for dim, size in plan.sizes}
    known = {**names, **more}
    return more | {dim: host_code(size, known) for dim, size in plan.own_sizes.items()}


def _bits(value: Number) -> int:
    """A real number as 64 bits."""
    (bits,) = struct.unpack("q", struct.pack("d", value))
    return int(bits)


__all__ = ["Launch", "Module", "Signature"]
