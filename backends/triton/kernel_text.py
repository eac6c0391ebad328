"""One tile program as the text of one Triton kernel.

A value that is used once is written where it is used; the others become statements under the
names that the program gives them. Broadcasts and transposes follow from axis names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...ir.sign import keeps_nonnegative
from ...ir.tile import (
    Carried,
    Cast,
    Combine,
    Comment,
    Constant,
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
    all_ops,
)
from .along_axis import write_combine, write_reduce, write_rename, write_scan
from .arguments import argument_groups, argument_names
from .functions import ATOM, SUM, TRITON_TYPE, Text, write_call, write_number
from .grid_text import grid_axes, grid_lines
from .layout import Order, choose_layout, dot_operands
from .lines import fill, wrap
from .memory import write_load, write_search, write_store
from .names import TAKEN
from .systems import write_solve, write_substitute
from .uses import computed_with, count_uses, handed_over, scopes, turned_masks

_WIDEST_INLINE = 60  # characters of a value that is still written where it is used


@dataclass
class _Body:
    """Lines in the making."""

    depth: int
    lines: list[str] = field(default_factory=list)
    once: dict[object, str] = field(default_factory=dict)  # what need not be computed again

    def add(self, text: str) -> None:
        self.lines.extend("    " * self.depth + line for line in wrap(text, 4 * self.depth))


class KernelText:
    """The writer of one kernel; ``text`` is the result, ``device`` what it calls.

    ``functions`` are those that the module has already, by name; the kernel adds its own. ``sizes``
    are the lengths known at compile time. With
    ``wide_dots`` bfloat16 is widened before products: Triton's interpreter keeps it as bits,
    and would multiply those.
    """

    def __init__(
        self,
        program: Program,
        kernel_name: str,
        wide_dots: bool = False,
        functions: dict[str, str] | None = None,
        sizes: Mapping[str, int] = {},
    ) -> None:
        self.program = program
        self._wide_dots = wide_dots
        self.layout = choose_layout(program)
        self.device: set[str] = set()
        self.functions = {} if functions is None else functions
        narrow = any(buffer.dtype.is_narrow for buffer in program.buffers.values())
        # What is rounded to 8 or 11 bits in memory anyway needs no more than tf32's 11 in between.
        self.precision = "tf32" if narrow else "ieee"
        self.uses = count_uses(program.body)
        self._computed = computed_with(program.body)
        self._handed = handed_over(program.body)
        self._scope_of = scopes(program.body)
        self._turned = turned_masks(program.body, self.layout)
        self.conditions: dict[str, Elementwise] = {}
        self.texts: dict[str, Text] = {}
        self.constants: dict[str, float | int | bool] = {}
        self.nonnegative: set[str] = set()
        self._bases: dict[object, str] = {}
        self._taken: set[str] = {a for a in argument_names(program)}
        self._bodies = [_Body(1)]
        self._grid_names: set[str] = set()
        self._outs: set[str] = set()
        self.loaded: set[str] = set()
        self.starts: dict[str, Value] = {}  # positions of a tile -> where it starts
        self._kept: set[str] = set()  # variables of the top level that loops made
        self._compile_time = {
            a.name
            for a in program.arguments
            if (isinstance(a, ParamArgument) and not a.runtime)
            or (isinstance(a, HostArgument) and a.fixed)
        }
        self._write_grid(sizes)
        self._write_ops(program.body)
        self.signature = tuple(self._signature(kernel_name))
        self.body = tuple(self._bodies[0].lines)
        self.text = "\n".join([*self.signature, *self.body])

    # ------------------------------------------------------------------------- signature

    def _signature(self, name: str) -> list[str]:
        lines = [f"def {name}("]
        for group in argument_groups(self.program):
            lines.extend(fill(group, 4))
        return [*lines, "):"]

    # ------------------------------------------------------------------------------ grid

    def _write_grid(self, sizes: Mapping[str, int]) -> None:
        body = self._bodies[0]
        for argument in self.program.arguments:
            match argument:
                case SizeArgument(dim):
                    self.name_value(dim, dim)
                    self.nonnegative.add(dim)
                case HostArgument(arg) | ParamArgument(arg):
                    self.name_value(arg, arg)
                    if argument.nonnegative:
                        self.nonnegative.add(arg)
                case _:
                    pass
        for tile in self.program.blocks:
            self.name_value(tile.symbol, tile.symbol)
            self.nonnegative.add(tile.symbol)
        positions = [axis.position.name for axis in grid_axes(self.program)]
        names = {position: self.unique(position) for position in positions}
        for line in grid_lines(self.program, names, sizes):
            body.add(line)
        for position, name in names.items():
            self.name_value(position, name)
            self._grid_names.add(position)
            self.nonnegative.add(position)

    # ------------------------------------------------------------------------------- ops

    def _write_ops(self, ops: tuple[Op, ...]) -> None:
        for op in ops:
            self.write(op)

    def write(self, op: Op) -> None:
        """The statements of one op."""
        _WRITERS[type(op)](self, op)

    def define(self, op: Op, out: Value, text: Text) -> None:
        """Write a statement, or keep the text for the one place that uses it."""
        once = self.uses[out.name] == 1 and self._scope_of[out.name][1]
        pure = isinstance(op, Elementwise | Cast)
        last = out.name in self._handed and self.uses[out.name] == 1
        if (once and pure and len(text.code) <= _WIDEST_INLINE) or last:
            self.texts[out.name] = text
            return
        name = self.unique(out.name)
        self.statement(f"{name} = {text.code}")
        self.name_value(out.name, name)

    def statement(self, code: str) -> None:
        """Add a line to what is being written."""
        self._bodies[-1].add(code)

    def outermost(self, key: object, name: str, code: str) -> str:
        """The variable of the top level that holds ``code``."""
        if key not in self._bases:
            self._bases[key] = self.unique(name)
            self._bodies[0].add(f"{self._bases[key]} = {code}")
        return self._bases[key]

    def is_outermost(self, value: Value) -> bool:
        """Whether a value is known at the top level."""
        known = value.name in self._grid_names or value.name in self.constants
        return known or self._scope_of.get(value.name, (1, False))[0] == 0

    def once(self, key: object, name: str, code: Callable[[], str]) -> str:
        """The variable that holds ``code``, which is computed once where it is in reach."""
        for body in self._bodies:
            if key in body.once:
                return body.once[key]
        variable = self.unique(name)
        self.statement(f"{variable} = {code()}")
        self._bodies[-1].once[key] = variable
        return variable

    def own_function(self, name: str, text: str) -> str:
        """The name of a function that only this module needs; equal ones are one."""
        for known, same in self.functions.items():
            if same == text:
                return known
        stem, count = f"_{name}", 1
        while (known := stem if count == 1 else f"{stem}_{count}") in self.functions:
            count += 1
        self.functions[known] = text
        return known

    def name_value(self, value: str, variable: str) -> None:
        """Let a value stand under a variable."""
        self.texts[value] = Text(variable, ATOM, frozenset({variable}))

    def unique(self, hint: str) -> str:
        """A variable name; those of a loop's body are free again after the loop."""
        stem = re.sub(r"(_\d+)+$", "", hint) or hint
        stem = f"{stem}_" if stem in TAKEN else stem
        stem = f"{stem}_tile" if stem in self.program.buffers else stem
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    def _constant(self, op: Constant) -> None:
        self.constants[op.out.name] = op.value
        if not op.out.axes:
            self.texts[op.out.name] = write_number(op.value)
            if op.value >= 0:
                self.nonnegative.add(op.out.name)
            return
        shape = f"[{self.blocks(self.layout.of(op.out))}]"
        dtype = TRITON_TYPE[op.out.dtype]
        if op.value == 0:
            code = f"tl.zeros({shape}, {dtype})"
        else:
            code = f"tl.full({shape}, {write_number(op.value).code}, {dtype})"
        self.texts[op.out.name] = Text(code)

    def blocks(self, order: Order, between: str = ", ") -> str:
        """The block sizes of axes."""
        return between.join(self.program.tile(a).symbol for a in order)

    def _range(self, op: Range) -> None:
        (dim,) = op.out.axes
        name = self.unique(op.out.name)
        code = f"tl.arange(0, {self.blocks((dim,))})"
        if op.start is not None:
            offset = self.offset(dim)
            if offset not in self._taken:
                self._taken.add(offset)
                self._bodies[0].add(f"{offset} = {code}")
                self._kept.add(offset)
            self.starts[op.out.name] = op.start
            if op.out.name not in self._computed:  # it only places loads and stores
                return
            code = f"{self.texts[op.start.name].at(SUM)} + {offset}"
        if op.start is None or op.start.name in self.nonnegative:
            self.nonnegative.add(op.out.name)
        self._bodies[-1].add(f"{name} = {code}")
        self.name_value(op.out.name, name)

    def offset(self, dim: str) -> str:
        """The positions of a tile from its start, the same for all tiles of one block size."""
        return f"{(self.program.tile(dim).like or dim).lower()}_offset"

    def _elementwise(self, op: Elementwise) -> None:
        if op.out.dtype is DType.BOOL:
            self.conditions[op.out.name] = op
            if op.out.name in self._turned:
                return
        order = self.layout.of(op.out)
        args = [self.shaped(a, order) for a in op.args]
        constants = [self.constants.get(a.name) for a in op.args]
        signs = [a.name in self.nonnegative for a in op.args]
        if op.out.dtype in (DType.INT32, DType.INT64) and keeps_nonnegative(
            op.fn, op.args, signs, constants[-1], {tile.symbol for tile in self.program.tiles}
        ):
            self.nonnegative.add(op.out.name)
        whole = op.out.dtype in (DType.INT32, DType.INT64)
        text, device = write_call(op.fn, args, constants, all(signs), whole)
        if device is not None:
            self.device.add(device)
        self.define(op, op.out, text)

    def shaped(self, value: Value, order: Order) -> Text:
        """A value's text, shaped to meet a tile whose axes are ``order``."""
        text = self.texts[value.name]
        own = self.layout.of(value)
        if not own or own == order:
            return text
        shared = tuple(a for a in order if a in own)
        text = self.turned(text, own, shared)
        if shared == order:
            return text
        places = ", ".join(":" if a in own else "None" for a in order)
        return Text(f"{text.at(ATOM)}[{places}]", ATOM, text.reads)

    def _cast(self, op: Cast) -> None:
        text = self.shaped(op.x, self.layout.of(op.out))
        if op.x.name in self.nonnegative:
            self.nonnegative.add(op.out.name)
        if op.x.name in self._compile_time:  # a plain number, which meets any type
            self.texts[op.out.name] = text
            return
        if op.out.dtype is DType.INT64 and not op.out.axes:  # it may be a plain number here
            self.define(op, op.out, Text(f"tl.cast({text.code}, tl.int64)", ATOM, text.reads))
            return
        code = f"{text.at(ATOM)}.to({TRITON_TYPE[op.out.dtype]})"
        self.define(op, op.out, Text(code, ATOM, text.reads))

    # ------------------------------------------------------------------------------ dots

    def _dot(self, op: Dot) -> None:
        (a, a_order), (b, b_order) = dot_operands(op, self.layout.order)
        texts = [self._operand(a, a_order), self._operand(b, b_order)]
        if op.acc is not None:
            texts.append(self.shaped(op.acc, self.layout.of(op.out)))
        args = [t.code for t in texts]
        reads = frozenset[str]().union(*(t.reads for t in texts))
        if op.masked:
            if op.acc is None:
                args.append(f"tl.zeros([{self.blocks(self.layout.of(op.out))}], tl.float32)")
            args += [f"{a == op.a}", f'"{self.precision}"']
            self.device.add("masked_dot")
        elif a.dtype is DType.FLOAT32:
            args.append(f'input_precision="{self.precision}"')
        name = "_masked_dot" if op.masked else "tl.dot"
        self.define(op, op.out, Text(f"{name}({', '.join(args)})", ATOM, reads))

    def _operand(self, value: Value, order: Order) -> Text:
        text = self.ordered(value, order)
        if self._wide_dots and value.dtype is DType.BFLOAT16:
            text = Text(f"{text.at(ATOM)}.to(tl.float32)", ATOM, text.reads)
        return text

    def ordered(self, value: Value, order: Order) -> Text:
        """A value's text with its axes in an order of their own."""
        return self.turned(self.texts[value.name], self.layout.of(value), order)

    def turned(self, text: Text, given: Order, wanted: Order) -> Text:
        """A tile with its axes in another order; registers are moved if it is another."""
        if given == wanted:
            return text
        if len(given) == 2:
            return Text(f"tl.trans({text.code})", ATOM, text.reads)
        places = [given.index(axis) for axis in wanted]
        return Text(f"tl.permute({text.code}, {places})", ATOM, text.reads)

    # ----------------------------------------------------------------------------- loops

    def _for(self, op: For) -> None:
        variables = [self._carry(c) for c in op.carried]
        before = set(self._taken)
        variable = self.unique(op.variable.name)
        self.name_value(op.variable.name, variable)
        if op.start.name in self.nonnegative:
            self.nonnegative.add(op.variable.name)
        start, stop = (self.texts[v.name].code for v in (op.start, op.stop))
        step = "" if op.step == 1 else f", {op.step}"
        loop = "range"
        stages = dict(self.program.launch).get("num_stages", 1)
        if stages > 1 and len(self._bodies) == 1 and _walks_rows(op):  # else no load is pipelined
            loop, step = "tl.range", f"{step}, num_stages={stages}"
        outer = self._bodies[-1]
        self._bodies.append(_Body(outer.depth + 1))
        self._write_ops(op.body)
        self._carry_on(variables, [self.texts[v.name] for v in op.yields])
        inner = self._bodies.pop()
        self._taken = before | set(self._bases.values()) | self._kept
        outer.add(f"for {variable} in {loop}({start}, {stop}{step}):")
        outer.lines.extend(inner.lines or ["    " * inner.depth + "pass"])
        for carried, name in zip(op.carried, variables, strict=True):
            self.name_value(carried.out.name, name)

    def _carry(self, carried: Carried) -> str:
        """The variable that a loop updates; the one of the loop before, if it goes on there."""
        text = self.texts[carried.initial.name]
        handed = carried.initial.name in self._outs | self.loaded
        if handed and self._uses_left(carried.initial) and self._is_made_here(carried.initial):
            name = text.code
        else:
            name = self.unique(carried.inner.name)
            code = text.code
            if not carried.inner.axes and not text.reads:
                code = f"tl.full([], {code}, {TRITON_TYPE[carried.inner.dtype]})"
            self._bodies[-1].add(f"{name} = {code}")
        self.name_value(carried.inner.name, name)
        self._outs.add(carried.out.name)
        return name

    def _is_made_here(self, value: Value) -> bool:
        return self._scope_of[value.name][0] == len(self._bodies) - 1

    def _uses_left(self, value: Value) -> bool:
        return self.uses[value.name] == 1

    def _carry_on(self, variables: list[str], texts: list[Text]) -> None:
        """Assign what the next turn gets, no variable before its old value was read."""
        pending = [(v, t) for v, t in zip(variables, texts, strict=True) if t.code != v]
        while pending:
            for n, (variable, text) in enumerate(pending):
                others = [t for m, (_, t) in enumerate(pending) if m != n]
                if all(variable not in t.reads for t in others):
                    self._bodies[-1].add(f"{variable} = {text.code}")
                    del pending[n]
                    break
            else:
                names = ", ".join(v for v, _ in pending)
                codes = ", ".join(t.code for _, t in pending)
                self._bodies[-1].add(f"{names} = {codes}")
                return

    def _comment(self, op: Comment) -> None:
        self._bodies[-1].add(f"# {op.text}")


def _walks_rows(loop: For) -> bool:
    """Whether a loop loads row after row, nothing larger, or scans blocks of rows, and multiplies
    no tiles that it loads: those are then pipelined only where that is asked for."""
    body = tuple(all_ops(loop.body))
    loads = [op for op in body if isinstance(op, Load)]
    loaded = {op.out.name for op in loads}
    dots = [op for op in body if isinstance(op, Dot)]
    slow = any(isinstance(op, For | Substitute | Solve) for op in body)
    slow |= any(v.name in loaded for dot in dots for v in (dot.a, dot.b))
    slow |= bool(dots) and loop.step != 1
    rows = loop.step == 1 and (bool(dots) or all(len(op.out.axes) < 2 for op in loads))
    scans = any(isinstance(op, Combine) for op in body)
    return bool(loads) and (rows or scans) and not slow


# Each takes the op class that it stands for.
_WRITERS: Mapping[type, Callable[[KernelText, Any], None]] = {
    Constant: KernelText._constant,
    Range: KernelText._range,
    Elementwise: KernelText._elementwise,
    Cast: KernelText._cast,
    Load: write_load,
    Store: write_store,
    Search: write_search,
    Dot: KernelText._dot,
    Reduce: write_reduce,
    Scan: write_scan,
    Combine: write_combine,
    Rename: write_rename,
    Substitute: write_substitute,
    Solve: write_solve,
    For: KernelText._for,
    Comment: KernelText._comment,
}
