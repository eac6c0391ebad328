"""What the parts of the emitter share: names, texts, the layout, and the statements at hand.

Each part writes the ops of one kind and takes the scope; ``kernel_text`` drives them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...ir.never_nan import never_nan
from ...ir.tile import Cast, DType, Elementwise, HostArgument, Op, ParamArgument, Program, Value
from ..python_text import Text, call, comment, name, statement
from .arguments import argument_names
from .layout import Order, choose_layout
from .names import TAKEN
from .uses import computed_with, count_uses, going_on, handed_over, scopes, turned_masks

_WIDEST_INLINE = 60  # characters of a value that is still written where it is used


@dataclass
class Body:
    """Lines in the making."""

    depth: int
    lines: list[str] = field(default_factory=list)
    once: dict[object, str] = field(default_factory=dict)  # what need not be computed again

    def add(self, value: Text, before: str = "", after: str = "") -> None:
        """A statement: what comes before and after its one expression."""
        self.lines.extend(statement(value, self.depth, before, after))

    def assign(self, variable: str, value: Text) -> None:
        """``variable = value``; several variables have commas between."""
        self.add(value, f"{variable} = ")

    def say(self, text: str) -> None:
        """A comment."""
        indent = "    " * self.depth
        self.lines.extend(indent + line for line in comment(text, len(indent)))


class KernelScope:
    """Names, texts and statements of one kernel; ``device`` is what it calls.

    ``functions`` are those that the module has already, by name; the kernel adds its own. With
    ``wide_dots`` bfloat16 is widened before products: Triton's interpreter keeps it as bits,
    and would multiply those.
    """

    def __init__(
        self,
        program: Program,
        wide_dots: bool = False,
        functions: dict[str, str] | None = None,
    ) -> None:
        self.program = program
        self.wide_dots = wide_dots
        self.layout = choose_layout(program)
        self.device: set[str] = set()
        self.functions = {} if functions is None else functions
        narrow = any(buffer.dtype.is_narrow for buffer in program.buffers.values())
        # What is rounded to 8 or 11 bits in memory anyway needs no more than tf32's 11 in between.
        self.precision = "tf32" if narrow else "ieee"
        self.uses = count_uses(program.body)
        self.computed = computed_with(program.body)
        self.handed = handed_over(program.body)
        self.going_on = going_on(program.body)
        self.scope_of = scopes(program.body)
        self.masks_turned = turned_masks(program.body, self.layout)
        self.conditions: dict[str, Elementwise] = {}
        self.texts: dict[str, Text] = {}
        self.constants: dict[str, float | int | bool] = {}
        self.nonnegative: set[str] = set()
        self.never_nan = never_nan(program.body)
        self.bases: dict[object, str] = {}
        self.taken: set[str] = {a for a in argument_names(program)}
        self.counted: set[str] = set()  # variables of loops
        self.bodies = [Body(1)]
        self.grid_names: set[str] = set()
        self.outs: set[str] = set()
        self.loaded: set[str] = set()
        self.starts: dict[str, Value] = {}  # positions of a tile -> where it starts
        # Along these axes maxima may lose a NaN: a sweep over keys finds it in the weights again.
        self.quick_over: frozenset[str] = frozenset()
        self.quick: set[str] = set()  # such maxima
        self.kept: set[str] = set()  # variables of the top level that loops made
        self.compile_time = {
            a.name
            for a in program.arguments
            if (isinstance(a, ParamArgument) and not a.runtime)
            or (isinstance(a, HostArgument) and a.fixed)
        }

    def define(self, op: Op, out: Value, text: Text) -> None:
        """Write a statement, or keep the text for the one place that uses it."""
        once = self.read_once(out)
        pure = isinstance(op, Elementwise | Cast)
        last = out.name in self.handed and self.uses[out.name] == 1
        if (once and pure and len(text.code) <= _WIDEST_INLINE) or last:
            self.texts[out.name] = text
            return
        counts = not out.axes and out.dtype in (DType.INT32, DType.INT64)
        self.assign(out, text, "index" if counts else "tile")

    def assign(self, out: Value, text: Text, what: str = "tile") -> None:
        """Write a statement for a value."""
        variable = self.unique(out.name, what)
        self.bodies[-1].assign(variable, text)
        self.name_value(out.name, variable)

    def read_once(self, value: Value) -> bool:
        """Whether a value is read in one place, in the scope that makes it."""
        return self.uses[value.name] == 1 and self.scope_of[value.name][1]

    def outermost(self, key: object, hint: str, text: Text) -> Text:
        """The variable of the top level that holds a value."""
        if key not in self.bases:
            self.bases[key] = self.unique(hint)
            self.bodies[0].assign(self.bases[key], text)
        return name(self.bases[key])

    def is_outermost(self, value: Value) -> bool:
        """Whether a value is known at the top level."""
        known = value.name in self.grid_names or value.name in self.constants
        return known or self.scope_of.get(value.name, (1, False))[0] == 0

    def once(self, key: object, hint: str, text: Text) -> Text:
        """The variable that holds a value, which is computed once where it is in reach."""
        for body in self.bodies:
            if key in body.once:
                return name(body.once[key])
        variable = self.unique(hint)
        self.bodies[-1].assign(variable, text)
        self.bodies[-1].once[key] = variable
        return name(variable)

    def own_function(self, hint: str, text: str) -> str:
        """The name of a function that only this module needs; equal ones are one."""
        for known, same in self.functions.items():
            if same == text:
                return known
        stem, count = f"_{hint}", 1
        while (known := stem if count == 1 else f"{stem}_{count}") in self.functions:
            count += 1
        self.functions[known] = text
        return known

    def name_value(self, value: str, variable: str) -> None:
        """Let a value stand under a variable."""
        self.texts[value] = name(variable)

    def unique(self, hint: str, what: str = "tile") -> str:
        """A variable name; those of a loop's body are free again after the loop.

        A loop's own variable outlives it, and none changes its type in a later loop: it is free for
        an index, not for a tile. One that a buffer has already says ``what`` it is.
        """
        barred = self.taken if what == "index" else self.taken | self.counted
        stem = re.sub(r"(_\d+)+$", "", hint) or hint
        stem = f"{stem}_" if stem in TAKEN else stem
        stem = f"{stem}_{what}" if stem in self.program.buffers else stem
        made, count = stem, 1
        while made in barred:
            count += 1
            made = f"{stem}_{count}"
        self.taken.add(made)
        return made

    def blocks(self, order: Order, between: str = ", ") -> str:
        """The block sizes of axes."""
        return between.join(self.program.tile(a).symbol for a in order)

    def offset(self, dim: str) -> str:
        """The positions of a tile from its start, the same for all tiles of one block size."""
        return f"{(self.program.tile(dim).like or dim).lower()}_offset"

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
        return text.then(f"[{places}]")

    def ordered(self, value: Value, order: Order) -> Text:
        """A value's text with its axes in an order of their own."""
        return self.turned(self.texts[value.name], self.layout.of(value), order)

    def turned(self, text: Text, given: Order, wanted: Order) -> Text:
        """A tile with its axes in another order; registers are moved if it is another."""
        if given == wanted:
            return text
        if len(given) == 2:
            return call("tl.trans", text)
        places = [given.index(axis) for axis in wanted]
        return call("tl.permute", text, f"{places}")
