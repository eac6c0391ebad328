"""The plan level: kernels, and the buffers between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from .expression import Expr, Size, call
from .expression import Literal as Fixed
from .mixer import Mixer
from .promises import CommonBlocks
from .row_loop import Access, RowLoop, stretch
from .targets import EVERY_GPU, AnyTarget
from .task import Task, buffers_of
from .tile import BufferArgument, DType, Program
from .transform import Transform

if TYPE_CHECKING:
    import networkx


Role = Literal["input", "output", "table", "temporary", "view"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor: an input, an output, a constant table, or a temporary between kernels.

    A view is a name that a loop on the host gives to the memory of others (``RowLoop``).
    """

    name: str
    dims: tuple[str, ...]
    dtype: DType
    role: Role


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch: what it computes, by which schedule, and why it is a pass of its own."""

    program: Program
    schedule: str
    computes: tuple[str, ...]
    reason: str

    @property
    def transform(self) -> Transform | None:
        """What the library of a device does in place of a program that is emitted."""
        return next((op for op in self.program.body if isinstance(op, Transform)), None)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the buffers that the kernel reads."""
        return tuple(b.name for b in self.program.buffers.values() if not b.written)

    @property
    def writes(self) -> tuple[str, ...]:
        """Names of the buffers that the kernel writes."""
        return tuple(b.name for b in self.program.buffers.values() if b.written)


@dataclass(frozen=True)
class Plan:
    """Tasks in an order that respects what they read, then their kernels: one for each task.

    ``sizes`` and ``params`` are those fixed at compile time; ``findings`` are what was found,
    then a colon and why, with what was refused for which reason. ``names`` is what the spec
    calls an expression, ``integers`` how a buffer of integers was computed, ``shares`` into how
    many parts long axes are dealt out, ``one_sweep`` whether attentions over the same pairs may be
    one (``merge_sweeps``). ``loops`` are those of the host, each around some of the kernels.
    """

    mixer: Mixer
    kernels: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]
    sizes: tuple[tuple[str, int], ...]
    params: tuple[tuple[str, int | float | bool], ...]
    dtype: DType
    findings: tuple[str, ...] = ()
    block_counts: tuple[
        tuple[str, str], ...
    ] = ()  # (dim of buffers, the dim whose blocks it counts)
    block_lengths: tuple[
        tuple[str, str], ...
    ] = ()  # (dim of buffers, the dim that has such blocks)
    limits: tuple[tuple[str, int], ...] = ()  # dim, up to which length integers take 64 bits
    lengths: tuple[tuple[str, Expr], ...] = ()  # (dim of buffers, its size in those of the mixer)
    tasks: tuple[Task, ...] = ()
    names: tuple[tuple[Expr, str], ...] = ()
    integers: tuple[tuple[str, Expr], ...] = ()
    shares: int = 1
    target: AnyTarget = EVERY_GPU  # what its kernels have to fit
    chunk_kernels: int = 0  # that matrix states in chunks are dealt out to; 0: as the target likes
    one_sweep: bool = False
    loops: tuple[RowLoop, ...] = ()

    @property
    def stretches(self) -> tuple[tuple[RowLoop, range], ...]:
        """Each loop with the places of its kernels; of its tasks where there are no kernels."""
        steps: list[Access] = [(kernel.reads, kernel.writes) for kernel in self.kernels]
        steps = steps or [(buffers_of(task) - {*task.writes}, task.writes) for task in self.tasks]
        return tuple((loop, stretch(loop, steps)) for loop in self.loops)

    def block_count(self, name: str) -> tuple[str, int]:
        """The dim whose blocks ``name`` counts, or is as long as one of, and their size in the
        kernels that use it."""
        dim, program = self.counted_by(name)
        return dim, program.tile(dim).block

    def counted_by(self, name: str) -> tuple[str, Program]:
        """The dim of ``block_count``, and the first program whose blocks of it are meant."""
        dim = dict((*self.block_counts, *self.block_lengths))[name]
        return dim, next(
            k.program
            for k in self.kernels
            if any(name in b.dims for b in k.program.buffers.values())
        )

    @property
    def emitted(self) -> tuple[Kernel, ...]:
        """The kernels whose programs a backend writes."""
        return tuple(kernel for kernel in self.kernels if kernel.transform is None)

    @property
    def runs(self) -> tuple[tuple[Kernel, ...], ...]:
        """The kernels in turns: each transform by itself, and what is launched between two."""
        turns: list[list[Kernel]] = []
        for kernel in self.kernels:
            if kernel.transform is None and turns and turns[-1][0].transform is None:
                turns[-1].append(kernel)
            else:
                turns.append([kernel])
        return tuple(map(tuple, turns))

    def loops_of(self, run: Sequence[Kernel]) -> tuple[tuple[RowLoop, range], ...]:
        """The loops whose kernels a run has, with their places in it."""
        names = [kernel.program.name for kernel in run]
        firsts = [(loop, s, self.kernels[s.start].program.name) for loop, s in self.stretches]
        places = ((loop, s, names.index(first)) for loop, s, first in firsts if first in names)
        return tuple((loop, range(place, place + len(s))) for loop, s, place in places)

    @property
    def own_sizes(self) -> dict[str, Expr]:
        """The sizes of dims that buffers have and the mixer does not, in its sizes."""
        counts: dict[str, Expr] = {}
        for name, _ in self.block_counts:
            dim, block = self.block_count(name)
            counts[name] = call("floordiv", call("add", Size(dim), block - 1), block)
        for name, _ in self.block_lengths:
            counts[name] = Fixed(self.block_count(name)[1])
        return {**counts, **dict(self.lengths)}

    def with_common_blocks(self) -> Plan:
        """Programs that have to cut a dim alike take the block of the last of them, for which the
        others work."""
        known: dict[CommonBlocks, int] = {}
        kernels: list[Kernel] = []
        for kernel in reversed(self.kernels):
            program = kernel.program
            given = {p.dim: known[p] for p in program.common_blocks if p in known}
            program = program.with_blocks(given)
            known |= {p: program.tile(p.dim).block for p in program.common_blocks}
            kernels.insert(0, replace(kernel, program=program))
        return replace(self, kernels=tuple(kernels))

    def buffer(self, name: str) -> Buffer:
        """The buffer called ``name``."""
        return next(b for b in self.buffers if b.name == name)

    def graph(self) -> networkx.DiGraph[str]:
        """Kernels as nodes, an edge from the writer of a buffer to each reader of it."""
        import networkx

        graph: networkx.DiGraph[str] = networkx.DiGraph()
        writer = {name: k.program.name for k in self.kernels for name in k.writes}
        graph.add_nodes_from(k.program.name for k in self.kernels)
        for kernel in self.kernels:
            for name in kernel.reads:
                if name in writer:
                    graph.add_edge(writer[name], kernel.program.name, buffer=name)
        return graph


def argument_buffers(program: Program) -> tuple[BufferArgument, ...]:
    """The tensors of a program in the order of its arguments."""
    return tuple(program.buffers.values())
