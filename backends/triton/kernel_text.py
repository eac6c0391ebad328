"""One tile program as the text of one Triton kernel.

A value that is used once is written where it is used; the others become statements under the
names that the program gives them. Broadcasts and transposes follow from axis names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...ir.task import AttentionTask
from ...ir.tile import (
    Carried,
    Cast,
    Combine,
    Comment,
    Constant,
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
    all_ops,
)
from ..python_text import Text, call, fill, several
from .along_axis import write_combine, write_reduce, write_rename, write_scan
from .arguments import argument_groups
from .dots import write_dot
from .elementwise import write_cast, write_constant, write_elementwise, write_range
from .functions import TRITON_TYPE
from .grid_text import grid_axes, write_grid
from .kernel_scope import Body, KernelScope
from .memory import write_load, write_search, write_store
from .systems import write_solve, write_substitute
from .waits import waits_before


class KernelText(KernelScope):
    """The writer of one kernel; ``text`` is the result. ``sizes`` are known at compile time."""

    def __init__(
        self,
        program: Program,
        kernel_name: str,
        wide_dots: bool = False,
        functions: dict[str, str] | None = None,
        sizes: Mapping[str, int] = {},
        schedule: str = "",
    ) -> None:
        super().__init__(program, wide_dots, functions)
        if schedule == AttentionTask.schedule:
            self.quick_over = frozenset(tile.dim for tile in program.tiles if not tile.whole)
        self._write_grid(sizes)
        self._write_ops(program.body)
        self.signature = tuple(self._signature(kernel_name))
        self.body = tuple(self.bodies[0].lines)
        self.text = "\n".join([*self.signature, *self.body])

    # ------------------------------------------------------------------------- signature

    def _signature(self, name: str) -> list[str]:
        lines = [f"def {name}("]
        for group in argument_groups(self.program):
            lines.extend(fill(group, 4))
        return [*lines, "):"]

    # ------------------------------------------------------------------------------ grid

    def _write_grid(self, sizes: Mapping[str, int]) -> None:
        body = self.bodies[0]
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
        write_grid(self.program, body, names, sizes, self.unique)
        for position, name in names.items():
            self.name_value(position, name)
            self.grid_names.add(position)
            self.nonnegative.add(position)

    # ------------------------------------------------------------------------------- ops

    def _write_ops(self, ops: tuple[Op, ...], again: bool = False) -> None:
        waits = waits_before(ops, self.program.buffers, again)
        rest = iter(zip(ops, (*ops[1:], None), strict=False))
        for op, following in rest:
            if id(op) in waits:
                self.bodies[-1].add(call("tl.debug_barrier"))
            if isinstance(op, Load) and (cast := self._widened(op, following)) is not None:
                write_load(self, op, cast)
                next(rest)
            else:
                _WRITERS[type(op)](self, op)

    def _widened(self, op: Load, following: Op | None) -> Cast | None:
        """The next op, where all that is read of a loaded tile is the type that it gives.

        Read in one place a tile is widened there: until then it takes half the registers.
        """
        if not isinstance(following, Cast) or following.x != op.out:
            return None
        alone = self.uses[op.out.name] == 1 and following.out.dtype.is_float
        stays = not self.read_once(following.out) or following.out.name in self.going_on
        return following if alone and stays else None

    # ----------------------------------------------------------------------------- loops

    def _for(self, op: For) -> None:
        variables = [self._carry(c) for c in op.carried]
        before = set(self.taken)
        variable = self.unique(op.variable.name, "index")
        self.name_value(op.variable.name, variable)
        if op.start.name in self.nonnegative:
            self.nonnegative.add(op.variable.name)
        turns = self._turns(op)
        outer = self.bodies[-1]
        self.bodies.append(Body(outer.depth + 1))
        self._write_ops(op.body, again=True)
        self._carry_on(variables, [self.texts[v.name] for v in op.yields])
        inner = self.bodies.pop()
        self.taken = before | set(self.bases.values()) | self.kept
        self.counted.add(variable)
        outer.add(turns, f"for {variable} in ", ":")
        outer.lines.extend(inner.lines or ["    " * inner.depth + "pass"])
        for carried, name in zip(op.carried, variables, strict=True):
            self.name_value(carried.out.name, name)

    def _turns(self, op: For) -> Text:
        bounds = [self.texts[v.name] for v in (op.start, op.stop)]
        bounds += [] if op.step == 1 else [Text(f"{op.step}")]
        stages = dict(self.program.launch).get("num_stages", 1)
        if stages > 1 and len(self.bodies) == 1 and _walks_rows(op):  # else no load is pipelined
            return call("tl.range", *bounds, num_stages=stages)
        return call("range", *bounds)

    def _carry(self, carried: Carried) -> str:
        """The variable that a loop updates; the one of the loop before, if it goes on there."""
        text = self.texts[carried.initial.name]
        handed = carried.initial.name in self.outs | self.loaded
        if handed and self._uses_left(carried.initial) and self._is_made_here(carried.initial):
            name = text.code
        else:
            name = self.unique(carried.inner.name)
            if not carried.inner.axes and not text.reads:
                text = call("tl.full", "[]", text, TRITON_TYPE[carried.inner.dtype])
            self.bodies[-1].assign(name, text)
        self.name_value(carried.inner.name, name)
        self.outs.add(carried.out.name)
        return name

    def _is_made_here(self, value: Value) -> bool:
        return self.scope_of[value.name][0] == len(self.bodies) - 1

    def _uses_left(self, value: Value) -> bool:
        return self.uses[value.name] == 1

    def _carry_on(self, variables: list[str], texts: list[Text]) -> None:
        """Assign what the next turn gets, no variable before its old value was read."""
        pending = [(v, t) for v, t in zip(variables, texts, strict=True) if t.code != v]
        while pending:
            for n, (variable, text) in enumerate(pending):
                others = [t for m, (_, t) in enumerate(pending) if m != n]
                if all(variable not in t.reads for t in others):
                    self.bodies[-1].assign(variable, text)
                    del pending[n]
                    break
            else:
                names = ", ".join(v for v, _ in pending)
                self.bodies[-1].assign(names, several([t for _, t in pending]))
                return

    def _comment(self, op: Comment) -> None:
        self.bodies[-1].say(op.text)


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
    Constant: write_constant,
    Range: write_range,
    Elementwise: write_elementwise,
    Cast: write_cast,
    Load: write_load,
    Store: write_store,
    Search: write_search,
    Dot: write_dot,
    Reduce: write_reduce,
    Scan: write_scan,
    Combine: write_combine,
    Rename: write_rename,
    Substitute: write_substitute,
    Solve: write_solve,
    For: KernelText._for,
    Comment: KernelText._comment,
}
