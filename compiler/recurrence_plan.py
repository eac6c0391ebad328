"""The kernels of one recurrence: what is better computed for all rows at once, then the rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

from ..ir.errors import UnsupportedError
from ..ir.expression import (
    Cumsum,
    Expr,
    Index,
    Read,
    Reduce,
    Ref,
    Solve,
    rebuild,
    walk,
    with_names,
)
from ..ir.mixer import Line, Mixer, Recurrence, Rounds, Stage
from ..ir.optional import expressions
from ..ir.plan import Buffer, Kernel
from ..ir.tile import DType
from .analysis.recurrence.versions import Handed, Repeated, Step, Version, versions
from .schedules.loop import Carrying, LoopTask, loop
from .workspace import KIND_DTYPE, LIGHT, Workspace

# Elements of a state that a program of the loop schedule holds: registers of four warps.
_HELD = 4096


@dataclass
class RecurrencePlan:
    """The kernels of one recurrence, and its results made known to later stages."""

    work: Workspace
    stage: Recurrence
    lines: list[Version | Repeated] = field(default_factory=list)
    free: dict[str, Expr] = field(default_factory=dict)  # versions that no state goes into

    def run(self) -> None:
        """Plan it."""
        work = self.work
        step = versions(self._written_out())
        self._separate(step)
        used = names_read(work.mixer, self.stage)
        own = []
        for name, ref in step.own:
            value = self.free.get(ref.name)
            if value is not None:
                work.names[name] = work.named(name, value)
            elif name in used:
                own.append((self._declare(name, ref.axes | {self.stage.over}, ref), ref))
        states = tuple(self._carrying(step, name, name in used) for name, _ in step.before)
        written = [*own, *(s for s in states if s.last)]
        if written:
            self._loop(tuple(own), states)

    # ------------------------------------------------------------------------------- lines

    def _written_out(self) -> Recurrence:
        work, stage = self.work, self.stage
        made = {state.name for state in stage.states} | {ref.name for ref in stage.own}
        saved = {name: work.names.pop(name) for name in made if name in work.names}

        def line(one: Line) -> Line:
            match one:
                case Rounds(over, lines):
                    return Rounds(over, tuple(line(inner) for inner in lines))
                case _:
                    return replace(one, value=self._ungrouped(work.written_out(one.value)))

        states = tuple(
            replace(s, initial=self._ungrouped(work.written_out(s.initial))) for s in stage.states
        )
        reset = None if stage.reset is None else self._ungrouped(work.written_out(stage.reset))
        changed = replace(
            stage, states=states, step=tuple(line(one) for one in stage.step), reset=reset
        )
        work.names.update(saved)
        return changed

    def _ungrouped(self, expr: Expr) -> Expr:
        """Without the reads that spread groups over their heads: a program has one of each."""
        if isinstance(expr, Read):
            kept = tuple((d, e) for d, e in expr.at if (d, *e.axes) not in self.work.context.heads)
            if len(kept) < len(expr.at):
                inner = self._ungrouped(expr.x)
                return replace(expr, x=inner, at=kept) if kept else inner
        return rebuild(expr, self._ungrouped)

    def _separate(self, step: Step) -> None:
        """Lines that no state goes into are no part of the loop: they are written out."""
        names = {ref.name for _, ref in step.before}
        self.lines = self._without_free(step.lines, names)

    def _without_free(
        self, lines: tuple[Version | Repeated, ...], states: set[str]
    ) -> list[Version | Repeated]:
        kept: list[Version | Repeated] = []
        for line in lines:
            match line:
                case Version(ref, name, value):
                    value = with_names(value, self.free)
                    if _reads(value, states) or name in {s.name for s in self.stage.states}:
                        states.add(ref.name)
                        kept.append(Version(ref, name, self._prepared(value, states)))
                    else:
                        self.free[ref.name] = self.work.named(name, value)
                case Repeated(over, inner, handed, own):
                    states |= {h.start.name for h in handed} | {h.after.name for h in handed}
                    body = self._without_free(inner, states)
                    changed = tuple(
                        Handed(
                            self._prepared(with_names(h.before, self.free), states),
                            h.start,
                            self._prepared(with_names(h.end, self.free), states),
                            h.after,
                        )
                        for h in handed
                    )
                    for made, whole in own:
                        if made.name not in self.free:
                            raise UnsupportedError(
                                f"{self.work.mixer.name}: rows of {whole.name.partition('.')[0]}, "
                                f"made in the inner loop over {over}, are read after it"
                            )
                        self.free[whole.name] = self.free[made.name]
                    kept.append(Repeated(over, tuple(body), changed, ()))
        return kept

    def _prepared(self, expr: Expr, states: set[str]) -> Expr:
        """``expr`` with what is better computed for all rows at once in buffers."""
        if _reads(expr, states):
            return rebuild(expr, lambda child: self._prepared(child, states))
        if self._is_product(expr):
            return self.work.stored.get(expr) or self.work.store(
                self.work.temporary_name(expr), expr, None, "temporary", "a product for all rows"
            )
        if expr.children and not isinstance(expr, Read | Cumsum):
            expr = rebuild(expr, lambda child: self._prepared(child, states))
        return self.work.prepared(expr, None, None, inside=True)

    def _is_product(self, expr: Expr) -> bool:
        """A reduction of more terms than its operands have elements, row by row."""
        if not isinstance(expr, Reduce) or self.stage.over not in expr.axes:
            return False
        leaves = [n.axes for n in walk(expr.x) if isinstance(n, Ref)]
        return all(axes < expr.x.axes for axes in leaves) and len(leaves) > 1

    # ----------------------------------------------------------------------------- results

    def _declare(self, name: str, axes: frozenset[str], ref: Ref) -> str:
        """The buffer of a result: an output of the mixer, or a temporary."""
        work = self.work
        output = next((o for o in work.mixer.outputs if o.name == name), None)
        dims = work.order(axes) if output is None else output.dims
        dtype = KIND_DTYPE.get(ref.kind, DType.FLOAT32)
        if dtype is DType.FLOAT32 and self.stage.over in axes:
            wide = output is None and not axes & work.roles.features
            dtype = DType.FLOAT32 if wide else work.dtype
        role = "temporary" if output is None else "output"
        work.context.buffers[name] = Buffer(name, dims, dtype, role)
        work.names[name] = Ref(name, axes, ref.kind)
        return name

    def _carrying(self, step: Step, name: str, used: bool) -> Carrying:
        state = next(s for s in self.stage.states if s.name == name)
        initial = self.work.prepared(
            self._ungrouped(self.work.written_out(state.initial)), None, None
        )
        after = with_names(dict(step.after)[name], self.free)
        last = self._declare(name, state.dims, state.ref) if used else None
        before = dict(step.before)[name]
        return Carrying(name, state.dims, state.kind, initial, before, after, last)

    # -------------------------------------------------------------------------------- loop

    def _loop(self, own: tuple[tuple[str, Expr], ...], states: tuple[Carrying, ...]) -> None:
        work, stage = self.work, self.stage
        results = tuple(n for n, _ in own) + tuple(s.last for s in states if s.last)
        positions, tiled, blocks = self._grid(own, states)
        task = LoopTask(
            work.kernel_name(results[0]),
            stage.over,
            stage.reverse,
            tuple(self.lines),
            states,
            own,
            positions,
            tiled,
            f"{', '.join(results)}: row by row along {stage.over}",
        )
        made = loop(task, work.with_blocks(blocks), work.with_launch(LIGHT))
        work.kernels.append(Kernel(made, "loop", results, "the recurrence itself"))

    def _grid(
        self, own: tuple[tuple[str, Expr], ...], states: tuple[Carrying, ...]
    ) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, int]]:
        """Dims with one position per program, the dim cut into blocks, and its block."""
        work, stage = self.work, self.stage
        dims = frozenset[str]().union(*(s.dims for s in states), *(v.axes for _, v in own))
        dims -= {stage.over}
        groups = {g for g, h in work.context.heads if h in dims}
        mixed = _mixed(self.lines) | {
            line.over for line in self.lines if isinstance(line, Repeated)
        }
        listed = [d for s in stage.states for d in s.listed]
        own_dims = frozenset(d for d in dims if d in work.context.sizes or d in listed)
        free = [d for d in own_dims if d not in mixed]
        sizes = {d: work.context.sizes.get(d, 1 << 20) for d in own_dims}
        for dim in own_dims & mixed:
            if dim not in work.context.sizes:
                raise UnsupportedError(
                    f"{work.mixer.name}: the step mixes along {dim}, which is too long to hold"
                )
        tiled = max(
            free, key=lambda d: (sizes[d], listed.index(d) if d in listed else -1), default=None
        )
        positions = work.order(dims - own_dims - groups)
        if tiled is None:
            return positions, (), {}
        held = prod((sizes[d] for d in own_dims if d != tiled), start=1)
        block = max(16, min(128, _HELD // max(held, 1)))
        whole = 1 << (sizes[tiled] - 1).bit_length()
        return positions, (tiled,), {tiled: min(1 << (block.bit_length() - 1), max(whole, 16))}


def _reads(expr: Expr, names: set[str]) -> bool:
    return any(isinstance(n, Ref) and n.name in names for n in walk(expr))


def _mixed(lines: list[Version | Repeated] | tuple[Version | Repeated, ...]) -> frozenset[str]:
    """The axes along which some line needs other positions than its own."""
    dims: set[str] = set()
    for line in lines:
        match line:
            case Repeated(_, inner, handed):
                dims |= _mixed(inner)
                exprs = [e for h in handed for e in (h.before, h.end)]
            case Version(_, _, value):
                exprs = [value]
        for expr in exprs:
            for node in walk(expr):
                match node:
                    case Reduce() | Cumsum():
                        dims |= {node.over} if isinstance(node, Cumsum) else set(node.over)
                    case Solve(_, _, left, right):
                        dims |= {left, right}
                    case Read(_, at):
                        for dim, index in at:
                            if index != Index(dim):
                                dims |= {dim}
    return frozenset(dims)


def names_read(mixer: Mixer, stage: Stage) -> frozenset[str]:
    """Names that an output, a let, or a stage after this one reads."""
    later = mixer.stages[mixer.stages.index(stage) + 1 :]
    rest = replace(mixer, stages=later)
    found = {n.name for e in expressions(rest) for n in walk(e) if isinstance(n, Ref)}
    return frozenset(found | {output.name for output in mixer.outputs})


__all__ = ["RecurrencePlan", "names_read"]
