"""Walks over blocks or rows in runs, where a condition holds in some and not in others.

    for t in 0 ... T: body(t >= low and t < high)
    --> for t in 0 ... low: body(false); for t in low ... high: body(true);
        for t in high ... T: body(false)

What a false condition makes 0 is gone from its run with all that it is multiplied by; a state that
is 0 before and stays 0 is not carried there. So a program that holds a few keys of a sequence, each
written at its own row, has nothing to do before their rows but to store zeros, and reads no key
after them. ``low`` and ``high`` are ends of blocks, or any rows where the walk is row by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ...ir.names import free_name
from ...ir.plan import Kernel, Plan
from ...ir.renaming import with_values
from ...ir.tile import (
    Comment,
    Constant,
    DType,
    Elementwise,
    For,
    Op,
    Program,
    Value,
    all_ops,
    made_by,
)
from .fold_known import Known, Number
from .remove_dead_ops import remove_dead_ops
from .walk_parts import names_of, row_walk_of, walk_of, with_comments


def walk_in_runs(plan: Plan) -> Plan:
    """Every walk that has such a condition as several."""
    kernels = tuple(_in_runs(kernel) for kernel in plan.kernels)
    return plan if kernels == plan.kernels else replace(plan, kernels=kernels)


def _in_runs(kernel: Kernel) -> Kernel:
    walk = walk_of(kernel.program) or row_walk_of(kernel.program)
    if walk is None:
        return kernel
    runs = Runs(kernel.program, walk)
    return replace(kernel, program=runs.rewritten()) if runs.bounds else kernel


@dataclass(frozen=True)
class _Run:
    """A stretch of a walk, and what is known there of its conditions."""

    start: Value
    stop: Value
    known: Mapping[str, bool]
    about: str


@dataclass
class Runs:
    """One walk, while it is cut in runs."""

    program: Program
    walk: For
    before: list[Op] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Find the conditions, each with the end of blocks that it compares the walk's place to."""
        self.taken = names_of(self.program)
        self.makers = {v.name: op for op in self.program.body for v in made_by(op)}
        inside = (value for op in all_ops(self.walk.body) for value in made_by(op))
        self.inside = {v.name for v in (*inside, *(c.inner for c in self.walk.carried))}
        self.bounds: dict[str, Value] = {}  # by the function that compares
        self.conditions: dict[str, list[str]] = {"ge": [], "lt": []}
        if not self._is_whole(self.walk.start):
            return
        for op in self.walk.body:
            match op:
                case Elementwise(out, "ge" | "lt" as fn, (place, bound)):
                    whole = place == self.walk.variable and self._is_whole(bound)
                    if whole and self.bounds.setdefault(fn, bound) == bound:
                        self.conditions[fn].append(out.name)

    def _is_whole(self, value: Value) -> bool:
        """Whether a value from before the walk is a number of whole blocks, or of rows."""
        if self.walk.step == 1:
            return not value.axes and value.name not in self.inside
        match self.makers.get(value.name):
            case Constant(_, number):
                return number == 0
            case Elementwise(_, "mul", args):
                return any(a.name == self.walk.step or self._is_whole(a) for a in args)
            case Elementwise(_, "add" | "sub" | "min" | "max", args):
                return all(self._is_whole(arg) for arg in args)
        return False

    def rewritten(self) -> Program:
        """The program with a loop for each run."""
        runs = [*self._runs()]
        body: list[Op] = []
        state = {c.inner: c.initial for c in self.walk.carried}
        for run in runs:
            last = run is runs[-1]
            loop = self._loop(run, state, last)
            handed = {c.inner: self._fresh(c.out) for c in loop.carried}
            if not last:
                carried = tuple(replace(c, out=handed[c.inner]) for c in loop.carried)
                loop = replace(loop, carried=carried)
                state |= handed
                loop = self._renamed(loop)
            body.append(loop)
        place = self.program.body.index(self.walk)
        ops = (*self.program.body[:place], *self.before, *body, *self.program.body[place + 1 :])
        made = remove_dead_ops(replace(self.program, body=ops))
        return replace(made, body=with_comments(made.body))

    def _runs(self) -> Iterator[_Run]:
        """The stretches in their order, each from where the one before ends."""
        start, known = self.walk.start, dict[str, bool]()
        dim = next((t.dim for t in self.program.tiles if t.symbol == self.walk.step), None)
        turns = about = f"blocks of {dim}" if dim else "rows"
        for fn, bound in sorted(self.bounds.items()):
            # no bound lies before the first row
            stop = bound if self._is_zero(start) else self._scalar("max", bound, start)
            stop = self._scalar("min", stop, self.walk.stop)
            at_once = {name: fn == "lt" for name in self.conditions[fn]}
            yield _Run(start, stop, known | at_once, f"{about} before {bound.name}")
            about = f"{turns} from {bound.name} on"
            start, known = stop, known | {name: not true for name, true in at_once.items()}
        yield _Run(start, self.walk.stop, known, about)

    def _scalar(self, fn: str, a: Value, b: Value) -> Value:
        out = self._fresh(Value(f"{self.walk.variable.name}_stop", DType.INT32))
        self.before.append(Elementwise(out, fn, (a, b)))
        return out

    def _fresh(self, value: Value) -> Value:
        name = free_name(value.name, self.taken)
        self.taken.add(name)
        return replace(value, name=name)

    def _loop(self, run: _Run, state: Mapping[Value, Value], last: bool) -> For:
        """The walk in one run. States that are 0 and stay so are numbers there; their names after
        the walk are the last run's to make."""
        numbers = (
            {} if last else {i.name: 0.0 for i, first in state.items() if self._is_zero(first)}
        )
        while True:
            known = Known({**self._written(), **run.known, **numbers})
            body = known.fold(self.walk.body)
            yields = [known.value(value) for value in self.walk.yields]
            pairs = list(zip(self.walk.carried, yields, strict=True))
            stay = {
                c.inner.name: 0.0
                for c, value in pairs
                if c.inner.name in numbers and known.number(value) == 0
            }
            if stay == numbers:
                break
            numbers = stay
        zeros = tuple(Constant(c.inner, 0.0) for c, _ in pairs if c.inner.name in numbers)
        kept = [(c, value) for c, value in pairs if c.inner.name not in numbers]
        return replace(
            self.walk,
            start=run.start,
            stop=run.stop,
            carried=tuple(replace(c, initial=state[c.inner]) for c, _ in kept),
            body=(Comment(run.about), *zeros, *body),
            yields=tuple(value for _, value in kept),
        )

    def _written(self) -> dict[str, Number]:
        """The numbers that are written out before the walk."""
        return {n: op.value for n, op in self.makers.items() if isinstance(op, Constant)}

    def _is_zero(self, value: Value) -> bool:
        maker = self.makers.get(value.name)
        return isinstance(maker, Constant) and maker.value == 0

    def _renamed(self, loop: For) -> For:
        """The loop with names of its own for all that it makes inside."""
        inside = [loop.variable, *(c.inner for c in loop.carried)]
        inside += [value for op in all_ops(loop.body) for value in made_by(op)]
        inside += [op.variable for op in all_ops(loop.body) if isinstance(op, For)]
        inside += [c.inner for op in all_ops(loop.body) if isinstance(op, For) for c in op.carried]
        names = {value: self._fresh(value) for value in inside}

        def renamed(value: Value) -> Value:
            return names.get(value, value)

        renamed_loop = with_values(loop, renamed)
        assert isinstance(renamed_loop, For)
        return renamed_loop


__all__ = ["walk_in_runs"]
