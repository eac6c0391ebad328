"""What the parts of the C++ emitter share: names, arrays, and the lines of the body at hand.

Each part writes one kind of op and takes the scope; ``kernel_text`` drives them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.knob import Knob
from ...ir.targets import CpuTarget
from ...ir.tile import Constant, Dot, Op, Program, Rename, Value
from .functions import ARRAY_TYPE, SCALAR_TYPE, Text, write_number
from .fusion import Fusion
from .layout import choose_layout
from .local_arrays import LocalArrays
from .memory import AccessReader
from .names import taken
from .operand_forms import operand_requests, tile_dots


@dataclass(frozen=True, slots=True)
class Array:
    """A local array: its name in the text, and the axes it has, row-major.

    ``row``: what rows are apart, in elements, where that is known to the text only: tiles that are
    read or written where they lie in memory.
    """

    name: str
    axes: tuple[str, ...]
    row: str | None = None


class KernelScope:
    """Names, arrays and lines of one kernel; ``sizes`` are known at compile time."""

    def __init__(self, program: Program, target: CpuTarget, sizes: Mapping[str, int] = {}) -> None:
        self.program = program
        self.target = target
        self.sizes = sizes
        self.blocks = {t.dim: t.block for t in program.tiles}
        tiled = tile_dots(program, target)
        self.tiled = frozenset(dot.out.name for dot in tiled)  # what dots of tiles make
        self.half_tiles = any(self.blocks[dot.over] % 32 for dot in tiled)
        self.layout = choose_layout(program, target.lanes, self.tiled)
        self.fusion = Fusion(program, self.layout, target.lanes)
        self.reader = AccessReader(self.fusion.makers, lambda v: self.scalar(v).code)
        self.locals = LocalArrays(self.fresh)
        self.arrays: dict[str, Array] = {}
        self.forms: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
        self.scalars: dict[str, Text] = {}
        self.taken: set[str] = {
            *taken(target),
            *(f"{word}_{tile.dim}" for tile in program.tiles for word in ("at", "from")),
        }
        self.bodies: list[list[str]] = [[]]
        self._owner: dict[str, str] = {}  # of an array: the value that it holds
        self.written: set[int] = set()  # ops, by identity
        self.yields: list[Mapping[str, Value]] = []  # of the loops around, by what is handed over
        self.plain, self.operand_forms = operand_requests(
            program, self.layout, self.fusion, target, self.tiled
        )
        self.loops_around = 0
        self.row: Value | None = None  # the variable of a loop over rows
        # Along these axes maxima may lose a NaN: a sweep over keys finds it in the weights again.
        self.quick_over: frozenset[str] = frozenset()
        self.rows_fit = True  # whether its rows, some turns ahead, leave its states the L1
        self.counting: dict[str, str] = {}  # of axes: how many positions anything is stored of
        # Of tiles that a nest writes to memory: an array in its stead, and the condition for that.
        self.apart: dict[str, tuple[str, str]] = {}
        self.direct: dict[tuple[str, str], tuple[str, str, str]] = {}
        self.direct_right: dict[tuple[str, str], tuple[str, str]] = {}

    def knob(self, knob: Knob) -> int:
        """What the program's launch settings say of a knob, else its default."""
        return dict(self.program.launch).get(knob.name, knob.default)

    def fresh(self, hint: str) -> str:
        """A name that is not taken, as near to ``hint`` as can be."""
        name, count = hint, 1
        while name in self.taken:
            count += 1
            name = f"{hint}_{count}"
        self.taken.add(name)
        return name

    def add(self, *lines: str) -> None:
        """Add lines to the body at hand."""
        self.bodies[-1].extend(lines)

    def add_inside(self, head: str, body: list[str]) -> None:
        """Add a block of lines."""
        self.add(head, *(f"  {line}" for line in body), "}")

    def scalar(self, value: Value) -> Text:
        """The text of a value without axes."""
        if value.name not in self.scalars:
            maker = self.fusion.makers.get(value.name)
            assert isinstance(maker, Constant), value
            return Text(write_number(maker.value, value.dtype), value.dtype)
        return self.scalars[value.name]

    def scalar_name(self, value: Value) -> str:
        """The variable of a value without axes that is assigned later."""
        return self.scalars[value.name].code

    def declare_scalar(self, value: Value, code: str) -> None:
        """Give a value without axes a variable of its own."""
        name = self.fresh(value.name)
        self.add(f"const {SCALAR_TYPE[value.dtype]} {name} = {code};")
        self.scalars[value.name] = Text(name, value.dtype)

    def array(self, value: Value) -> Array:
        """The array of a value with axes."""
        return self.arrays[value.name]

    def element(self, array: Array) -> str:
        """The element of an array at the positions ``at_<axis>``."""
        if array.row is None:
            return f"{array.name}[{self.place(array.axes)}]"
        row, column = array.axes
        return f"{array.name}[at_{row} * {array.row} + at_{column}]"

    def place(self, axes: tuple[str, ...]) -> str:
        """The place in an array at the positions ``at_<axis>``."""
        terms, stride = [], 1
        for axis in reversed(axes):
            terms.append(f"at_{axis}" if stride == 1 else f"at_{axis} * {stride}")
            stride *= self.blocks[axis]
        return " + ".join(reversed(terms)) or "0"

    def in_vectors(self, axes: tuple[str, ...]) -> bool:
        """Whether the last axis of a tile holds whole vectors."""
        return self.blocks[axes[-1]] % self.target.lanes == 0

    def size(self, axes: tuple[str, ...]) -> int:
        """The number of elements of a tile."""
        total = 1
        for axis in axes:
            total *= self.blocks[axis]
        return total

    def declare(self, value: Value) -> Array:
        """The array of a value, declared where there is none yet."""
        if value.name not in self.arrays:
            axes = self.layout.of(value)
            name = self.fresh(value.name)
            kind = ARRAY_TYPE[value.dtype]
            self.local(kind, name, self.size(axes))
            self.bind(value, name, axes)
        return self.arrays[value.name]

    def local(self, kind: str, name: str, count: int) -> None:
        """Declare an array."""
        self.add(*self.locals.declare(kind, name, count))

    def bind(self, value: Value, name: str, axes: tuple[str, ...]) -> None:
        """Let a value be an array that is there, and whose own it then is."""
        self.arrays[value.name] = Array(name, axes)
        self._owner[name] = value.name

    def take(self, value: Value, source: Value) -> None:
        """Let a value overwrite the array of another, which nothing needs any more."""
        array = self.arrays[source.name]
        self.bind(value, array.name, array.axes)

    def is_free(self, value: Value, *doing: Op) -> bool:
        """Whether a value has an array that may be overwritten while some ops are done."""
        array = self.arrays.get(value.name)
        if array is None or self._owner.get(array.name) != value.name:
            return False
        done = self.written | {id(op) for op in doing}
        readers = self.fusion.chain_readers(value.name)
        return self.is_current(value) and all(id(r) in done for r in readers)

    def renamed(self, op: Rename) -> Array:
        """The array of a value under the name that one of its axes gets."""
        array = self.arrays[op.x.name]
        return Array(array.name, tuple(op.to if a == op.axis else a for a in array.axes))

    def needs_plain(self, value: Value) -> bool:
        """Whether something reads the value's array of numbers."""
        if value.name in self.plain:
            return True
        others = any(self._reads_numbers(r, value) for r in self.fusion.readers[value.name])
        if value.name in self.fusion.nest_of:
            return value.name in self.fusion.stored and others
        return others

    def _reads_numbers(self, reader: Op, value: Value) -> bool:
        if isinstance(reader, Rename):
            return self.needs_plain(reader.out)
        return not isinstance(reader, Dot) or reader.acc == value

    def length(self, dim: str) -> str:
        """How many positions of a dim there are."""
        sizes = {t.dim: t.size for t in self.program.tiles if t.size is not None} | dict(self.sizes)
        if dim in sizes:
            return str(sizes[dim])
        return self.scalars[dim].code

    def may_overwrite(self, old: Value, new: Value, *doing: Op) -> bool:
        """Whether a value can take the place of another of the same type.

        What a loop hands over is not put where another of its values will be.
        """
        if old.axes != new.axes or ARRAY_TYPE[old.dtype] != ARRAY_TYPE[new.dtype]:
            return False
        handed = self.yields[-1] if self.yields else {}
        if new.name in handed:
            own = handed[new.name].name
            taken = {self.arrays[v.name].name for v in handed.values() if v.name != own}
            if old.name in self.arrays and self.arrays[old.name].name in taken:
                return False
        return self.is_free(old, *doing)

    def is_current(self, value: Value) -> bool:
        """Whether a value belongs to the body at hand: a loop around it does not need it again."""
        return self.fusion.depth[value.name] == self.loops_around
