"""A tile program in the making that knows, by plain torch, what it has to give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mixc.compiler.tiles.builder import Builder
from mixc.ir.mixer import Input, Mixer, Output
from mixc.ir.plan import Buffer, Kernel, Plan
from mixc.ir.tile import BufferArgument, DType, GridAxis, SizeArgument, Tile, Value
from mixc.ir.verify_plan import verify_plan

BOOL, INT, LONG = DType.BOOL, DType.INT32, DType.INT64
F16, BF16, F32 = DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32
TORCH: Mapping[DType, torch.dtype] = {d: getattr(torch, d.value) for d in DType}


@dataclass(frozen=True)
class Wanted:
    """What an output holds, and how far a backend may be from it, relatively and absolutely.

    ``rounded``: the values are those of a narrow type, which a backend that computes all real
    numbers in one type does not know; ``unrounded`` is what that gives.
    """

    exact: Tensor
    relative: float
    absolute: float
    unrounded: Tensor | None = None


@dataclass
class Trial:
    """A program, its inputs and what its outputs have to be.

    ``sizes`` gives the length of each dim. One of ``blocks`` is dealt out by the grid, so many
    positions at a time; one of ``single`` a position at a time; the others lie whole in a tile.
    ``like`` names a second axis over the positions of another; those of a product have ``at_least``
    16 positions in their tiles.
    """

    sizes: dict[str, int]
    blocks: Mapping[str, int] = field(default_factory=dict)
    single: str = ""
    like: Mapping[str, str] = field(default_factory=dict)
    at_least: int = 1
    b: Builder = field(default_factory=lambda: Builder("kernel"))
    given: dict[str, Tensor] = field(default_factory=dict)
    wanted: dict[str, Wanted] = field(default_factory=dict)
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = torch.Generator().manual_seed(7)
        self._starts: dict[str, Value] = {}
        for dim, size in self.sizes.items():
            whole = max(self.at_least, 1 << max(size - 1, 0).bit_length())
            if dim in self.single:
                self._grid(dim, tiled=False)
            elif dim in self.blocks:
                self.b.tiles[dim] = Tile(dim, self.blocks[dim])
                self._grid(dim, tiled=True)
            else:
                like = self.like.get(dim)
                self.b.tiles[dim] = Tile(dim, whole, whole=True, size=size, like=like)

    def _grid(self, dim: str, tiled: bool) -> None:
        self._starts[dim] = self.b.grid_position(dim, f"{dim.lower()}_start")
        self.b.grid.append(GridAxis(dim, self._starts[dim], tiled))
        self.size(dim)

    # ----------------------------------------------------------------------------- places

    def position(self, dim: str) -> Value:
        """Where along a dim: one number, or those of a tile."""
        start = self._starts.get(dim)
        return start if start is not None and dim in self.single else self.tile(dim, start)

    def tile(self, dim: str, start: Value | None) -> Value:
        """The positions of the tile of a dim that begins at ``start``."""
        return self.b.range(dim, start, dim.lower())

    def size(self, dim: str) -> Value:
        """A dim's length."""
        return self.b.scalar(SizeArgument(dim))

    def inside(self, dims: str, *places: Value) -> Value | None:
        """Which positions of a tile along dims exist."""
        mask: Value | None = None
        for dim, place in zip(dims, places, strict=True):
            if dim not in self.single:
                exists = self.ew("lt", place, self.size(dim), dtype=BOOL)
                mask = exists if mask is None else self.ew("and", mask, exists, dtype=BOOL)
        return mask

    # ----------------------------------------------------------------------------- memory

    def input(self, dims: str, values: Tensor | None = None, dtype: DType = F32) -> str:
        """An input of this trial with the values, or random ones."""
        name = f"x{len(self.given)}"
        if values is None:
            values = torch.randn([self.sizes[d] for d in dims], generator=self._random)
        self.given[name], self.dims[name] = values.to(TORCH[dtype]), tuple(dims)
        self.b.buffer(BufferArgument(name, tuple(dims), dtype))
        return name

    def known(self, name: str) -> Tensor:
        """An input as exactly as the backend gets it."""
        tensor = self.given[name]
        return tensor.double() if tensor.is_floating_point() else tensor

    def load(
        self,
        dims: str,
        values: Tensor | None = None,
        dtype: DType = F32,
        fill: float | int | bool = 0,
    ) -> tuple[Value, Tensor]:
        """The tile of a new input at the places of this instance, and the whole of it."""
        name = self.input(dims, values, dtype)
        return self.read(name, fill), self.known(name)

    def read(self, name: str, fill: float | int | bool = 0) -> Value:
        """The tile of an input at the places of this instance."""
        dims = "".join(self.dims[name])
        places = [self.position(dim) for dim in dims]
        mask = self.inside(dims, *places)
        return self.b.load(name, list(zip(dims, places, strict=True)), mask, fill)

    def output(
        self,
        dims: str,
        wanted: Tensor,
        dtype: DType = F32,
        relative: float = 2e-6,
        absolute: float = 1e-6,
        unrounded: Tensor | None = None,
    ) -> str:
        """A new output, and what it has to hold."""
        name = f"y{len(self.wanted)}"
        self.wanted[name] = Wanted(wanted, relative, absolute, unrounded)
        self.dims[name] = tuple(dims)
        self.b.buffer(BufferArgument(name, tuple(dims), dtype, written=True))
        return name

    def store(
        self,
        value: Value,
        dims: str,
        wanted: Tensor,
        relative: float = 2e-6,
        absolute: float = 1e-6,
        unrounded: Tensor | None = None,
    ) -> None:
        """Write a tile at the places of this instance."""
        name = self.output(dims, wanted, value.dtype, relative, absolute, unrounded)
        places = [self.position(dim) for dim in dims]
        self.b.store(name, list(zip(dims, places, strict=True)), value, self.inside(dims, *places))

    # -------------------------------------------------------------------------------- ops

    def ew(self, fn: str, *args: Value, dtype: DType = F32) -> Value:
        """An elementwise op."""
        return self.b.elementwise(fn, *args, dtype=dtype)

    def number(self, value: float | int | bool, dtype: DType = F32) -> Value:
        """A constant."""
        return self.b.constant(value, dtype)

    # ------------------------------------------------------------------------------- plan

    def plan(self) -> Plan:
        """The program as a plan, checked."""
        layouts = {name: tuple((d,) for d in dims) for name, dims in self.dims.items()}
        mixer = Mixer(
            "handmade",
            tuple(Input(name, layouts[name]) for name in self.given),
            tuple(Output(name, layouts[name]) for name in self.wanted),
            (),
            sequences=tuple(self.like.items()),
        )
        program = self.b.finish()
        buffers = tuple(
            Buffer(b.name, b.dims, b.dtype, "output" if b.written else "input")
            for b in program.buffers.values()
        )
        kernel = Kernel(program, "by hand", tuple(self.wanted), "")
        plan = Plan(mixer, (kernel,), buffers, (), (), F32)
        verify_plan(plan)
        return plan
