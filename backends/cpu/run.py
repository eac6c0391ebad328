"""Run a mixer's generated kernels on the CPU."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from ...ir.binding import Number, bind_sizes, evaluate_host, param_values, shape_of
from ...ir.grouping import QueryGroups
from ...ir.mixer import Mixer, Recurrence
from ...ir.optional import without_inputs
from ...ir.plan import Buffer, Plan
from ...ir.roles import feature_dims, shares_of_keys
from ...ir.tile import BufferArgument, DType, HostArgument, ParamArgument, SizeArgument
from ..precision import working_dtype
from .build import build, find_compiler, load_function
from .configure import BLOCK_KEYS_OF_ONE_ROW, BY_ROWS, configure, defaults, short_rows
from .emit import emit_source
from .target import CpuTarget

Lower = Callable[..., Plan]  # (mixer, sizes, dtype, splits=1, recurrence="chunk")
# The knobs to take for these sizes in this dtype; what it leaves out has its default.
Choose = Callable[[Mapping[str, int], torch.dtype], Mapping[str, int]]
_MOST_LAUNCHES = 256  # shapes that are remembered: a decoder's grow at every call
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
    """A plan that has been built: the function, and for which plan."""

    plan: Plan
    mixer: Mixer
    function: Any


@dataclass
class Launch:
    """All of a call that shapes, strides and params decide; a call only adds addresses."""

    module: Module
    inputs: tuple[tuple[str, torch.dtype], ...]
    made: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]  # outputs and temporaries
    fixed: tuple[Tensor, ...]  # constant tables, kept alive
    arguments: array[int]
    places: tuple[tuple[int, str], ...]  # where in the arguments each buffer's address goes
    results: tuple[tuple[str, tuple[int, ...] | None], ...]
    empty: bool
    alone: bool = False  # whether one thread does it all

    def run(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One call."""
        at: dict[str, Tensor] = {}
        for name, dtype in self.inputs:
            tensor = tensors[name]
            at[name] = tensor if tensor.dtype is dtype else tensor.to(dtype)
        for name, shape, dtype in self.made:
            at[name] = torch.empty(shape, dtype=dtype, device=_CPU)
        arguments = array("q", self.arguments)
        for place, name in self.places:
            arguments[place] = at[name].data_ptr()
        if not self.empty:
            threads = 1 if self.alone else torch.get_num_threads()
            self.module.function(arguments.buffer_info()[0], threads)
        return {n: at[n] if s is None else at[n].view(s) for n, s in self.results}


@dataclass
class CpuRunner:
    """A mixer that runs by native kernels, built once per set of feature sizes and dtype.

    ``lower`` is the compiler's; backends do not know it, so it is handed in. ``configuration``
    overrides default knobs by name; ``choose`` gives it anew for the sizes of a call. ``flags``
    are further ones for the C++ compiler, ``target`` is this machine's where it is left out. A call
    whose tensors have up to ``alone_bytes`` runs on one thread: for steps, which are done before a
    second one is awake.
    """

    mixer: Mixer
    lower: Lower
    configuration: Mapping[str, int] = field(default_factory=dict)
    choose: Choose | None = None
    flags: tuple[str, ...] = ()
    target: CpuTarget | None = None
    alone_bytes: int = 0
    plans: dict[object, Plan] = field(default_factory=dict)
    groups: dict[object, QueryGroups] = field(default_factory=dict)
    modules: dict[object, Module] = field(default_factory=dict)
    launches: dict[object, Launch] = field(default_factory=dict)

    def __call__(
        self, tensors: Mapping[str, Tensor], params: Mapping[str, Number] = {}
    ) -> dict[str, Tensor]:
        """The outputs by name.

        Args:
            tensors: inputs by name, on the CPU; real ones in one dtype.
            params: values of run-time params.

        Raises:
            ArgumentError: tensors that do not fit the spec.
            UnsupportedError: no C++ compiler.
        """
        key = (
            tuple([(n, t.shape, t.stride(), t.dtype) for n, t in tensors.items()]),
            tuple(params.items()) if params else (),
        )
        launch = self.launches.get(key)
        if launch is None:
            launch = self._prepare(tensors, params)
            if len(self.launches) >= _MOST_LAUNCHES:
                self.launches.pop(next(iter(self.launches)))  # the oldest
            self.launches[key] = launch
        return launch.run(tensors)

    def source(self, sizes: Mapping[str, int], dtype: torch.dtype) -> str:
        """The C++ that a call with these feature sizes runs."""
        plan = self._plan(self.mixer, sizes, dtype)
        return emit_source(plan, self._target).text

    # ----------------------------------------------------------------------------- building

    @property
    def _target(self) -> CpuTarget:
        return self.target or find_compiler().target

    def _chosen(self, sizes: Mapping[str, int], dtype: torch.dtype) -> Mapping[str, int]:
        return self.configuration if self.choose is None else self.choose(sizes, dtype)

    def _plan(
        self, mixer: Mixer, sizes: Mapping[str, int], dtype: torch.dtype, shares: int = 1
    ) -> Plan:
        """The plan with every knob set; lengths that are not given are long."""
        chosen = self._chosen(sizes, dtype)
        knobs = {**defaults(self._target), **chosen}
        fixed = {d: sizes[d] for d in sorted(feature_dims(mixer)) if d in sizes}
        inputs = tuple(i.name for i in mixer.inputs)
        by_rows = chosen.get(BY_ROWS.name, BY_ROWS.default)
        key = (inputs, mixer.sizes, tuple(fixed.items()), dtype, shares, by_rows)
        if key not in self.plans:
            name = str(dtype).removeprefix("torch.")
            more: dict[str, Any] = {"splits": shares} if shares > 1 else {}
            if any(isinstance(stage, Recurrence) for stage in mixer.stages):
                more["recurrence"] = "loop" if by_rows else "chunk"
            self.plans[key] = self.lower(mixer, fixed, name, **more)
        plan = self.plans[key]
        short = short_rows(plan, {**sizes, **dict(plan.sizes)})
        if 1 in short.values() and "block_keys" not in chosen:
            knobs["block_keys"] = BLOCK_KEYS_OF_ONE_ROW
        return configure(plan, knobs, short)

    def _module(self, mixer: Mixer, sizes: Mapping[str, int], dtype: torch.dtype) -> Module:
        shares = self._chosen(sizes, dtype).get("splits")
        if shares is None:
            shares = shares_of_keys(mixer, sizes, torch.get_num_threads(), rows=64)
        plan = self._plan(mixer, sizes, dtype, shares)
        key = (tuple(i.name for i in mixer.inputs), mixer.sizes, dtype, _setting(plan))
        if key not in self.modules:
            source = emit_source(plan, self._target)
            path = build(source.text, mixer.name, self.flags)
            self.modules[key] = Module(plan, mixer, load_function(path, source.entry))
        return self.modules[key]

    def _groups(self, mixer: Mixer) -> QueryGroups:
        names = tuple(i.name for i in mixer.inputs)
        if names not in self.groups:
            self.groups[names] = QueryGroups(mixer)
        return self.groups[names]

    # ---------------------------------------------------------------------------- launching

    def _prepare(self, tensors: Mapping[str, Tensor], params: Mapping[str, Number]) -> Launch:
        mixer = without_inputs(
            self.mixer, [i.name for i in self.mixer.inputs if i.name not in tensors]
        )
        sizes = bind_sizes(mixer, {n: tuple(t.shape) for n, t in tensors.items()}, params)
        mixer, sizes = self._groups(mixer).grouped(sizes)
        dtype = working_dtype(mixer, tensors)
        module = self._module(mixer, sizes, dtype)
        launch = _Arguments(module, tensors, sizes, param_values(mixer, sizes, params)).launch()
        given = sum(tensors[name].nbytes for name, _ in launch.inputs)
        made = sum(prod(shape) * dtype.itemsize for _, shape, dtype in launch.made)
        launch.alone = given + made <= self.alone_bytes
        return launch


def run_plan(
    plan: Plan,
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    params: Mapping[str, Number] = {},
    flags: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """The outputs of a plan by name, its programs run natively just as they are."""
    source = emit_source(plan, find_compiler().target)
    function = load_function(build(source.text, plan.mixer.name, flags), source.entry)
    numbers = param_values(plan.mixer, sizes, params)
    return (
        _Arguments(Module(plan, plan.mixer, function), tensors, sizes, numbers)
        .launch()
        .run(tensors)
    )


class _Arguments:
    """Finds what the kernels of a module are passed for tensors of given shapes."""

    def __init__(
        self,
        module: Module,
        tensors: Mapping[str, Tensor],
        sizes: Mapping[str, int],
        params: Mapping[str, Number],
    ) -> None:
        self.module, self.tensors, self.params = module, tensors, params
        self.plan = module.plan
        self.sizes = {**sizes, **dict(self.plan.sizes), **_block_counts(self.plan, sizes)}
        self.values = array("q")
        self.places: list[tuple[int, str]] = []
        self.strides: dict[str, dict[str, int]] = {}
        self.tables: list[Tensor] = []

    def launch(self) -> Launch:
        """The launch, with every number but the addresses."""
        made = []
        for buffer in self.plan.buffers:
            match buffer.role:
                case "input":
                    self._input(buffer)
                case "table":
                    self._table(buffer)
                case _:
                    shape = tuple(self.sizes[d] for d in buffer.dims)
                    self.strides[buffer.name] = _contiguous(buffer.dims, shape)
                    made.append((buffer.name, shape, _TORCH[buffer.dtype]))
        for kernel in self.plan.kernels:
            for argument in kernel.program.arguments:
                if isinstance(argument, BufferArgument):
                    self._buffer(argument)
            for argument in kernel.program.arguments:
                self._number(argument)
        return Launch(
            self.module,
            tuple((b.name, _TORCH[b.dtype]) for b in self.plan.buffers if b.role == "input"),
            tuple(made),
            tuple(self.tables),
            self.values,
            tuple(self.places),
            self._results(),
            empty=all(prod(shape) == 0 for _, shape, _ in made),
        )

    def _input(self, buffer: Buffer) -> None:
        tensor = self.tensors[buffer.name]
        own = tensor.stride()
        if tensor.dtype is not _TORCH[buffer.dtype]:
            own = tensor.to(_TORCH[buffer.dtype]).stride()
        strides = {}
        for axis, product in enumerate(self.module.mixer.input(buffer.name).layout):
            for place, dim in enumerate(product):
                inner = prod(self.sizes[d] for d in product[place + 1 :])
                strides[dim] = own[axis] * inner
        self.strides[buffer.name] = strides

    def _table(self, buffer: Buffer) -> None:
        table = next(t for t in self.module.mixer.tables if t.name == buffer.name)
        values = torch.tensor(list(table.values), dtype=_TORCH[buffer.dtype], device=_CPU)
        self.tables.append(values.reshape(table.shape))
        self.strides[buffer.name] = _contiguous(buffer.dims, table.shape)

    def _buffer(self, argument: BufferArgument) -> None:
        table = next((t for t in self.module.mixer.tables if t.name == argument.name), None)
        if table is None:
            self.places.append((len(self.values), argument.name))
            self.values.append(0)
        else:
            names = [b.name for b in self.plan.buffers if b.role == "table"]
            self.values.append(self.tables[names.index(argument.name)].data_ptr())
        self.values.extend(self.strides[argument.name][dim] for dim in argument.dims)

    def _number(self, argument: object) -> None:
        match argument:
            case SizeArgument(dim):
                self.values.append(self.sizes[dim])
            case HostArgument(_, dtype, value):
                self.values.append(_bits(evaluate_host(value, self.sizes, self.params), dtype))
            case ParamArgument(name, dtype, True):
                self.values.append(_bits(self.params[name], dtype))

    def _results(self) -> tuple[tuple[str, tuple[int, ...] | None], ...]:
        results = []
        for output in self.module.mixer.outputs:
            plain = tuple((d,) for d in self.plan.buffer(output.name).dims) == output.layout
            results.append((output.name, None if plain else shape_of(output.layout, self.sizes)))
        return tuple(results)


def _setting(plan: Plan) -> object:
    """What tells apart the plans of one mixer and dtype."""
    tiles = tuple((k.program.name, k.program.tiles, k.program.launch) for k in plan.kernels)
    return plan.sizes, tiles


def _block_counts(plan: Plan, sizes: Mapping[str, int]) -> dict[str, int]:
    counts = {}
    for name, _ in plan.block_counts:
        dim, block = plan.block_count(name)
        counts[name] = -(-sizes[dim] // block)
    return counts


def _contiguous(dims: tuple[str, ...], shape: tuple[int, ...]) -> dict[str, int]:
    return {dim: prod(shape[place + 1 :]) for place, dim in enumerate(dims)}


def _bits(value: Number, dtype: DType) -> int:
    if not dtype.is_float:
        return int(value)
    (bits,) = struct.unpack("q", struct.pack("d", float(value)))
    return int(bits)
