"""The forms of a mixer as statements of torch: dense attention, and loops that are loops."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Sequence
from dataclasses import replace

from ...ir.expression import Call, Expr, Kind, Literal, Reduce, Ref, call
from ...ir.mixer import (
    Attention,
    Equation,
    Line,
    Map,
    Mixer,
    Recurrence,
    Rounds,
    Select,
    Stage,
    State,
    assignments,
)
from ...ir.names import names_in
from ...ir.optional import expressions
from ...ir.rewriting import every_node, rebuild, transform
from ..python_text import comment
from ..reference.bodies import moves
from ..reference.scope import shared_nodes
from ..statements import Spellings, Statement
from ..triton.lines import wrap
from .terms import Pieces, Terms, factors_of
from .text import ATOM, UNARY, Order, Piece, order_of

# Words of the code itself, beside Python's.
OWN = frozenset(keyword.kwlist) | frozenset("torch math device read self range float".split())
_PAIR, _QUERY = "visible pair", "visible query"  # no spec can spell them


class Statements:
    """The lines of a function body in the making, and the names that it uses."""

    def __init__(self, mixer: Mixer, sizes: dict[str, str]) -> None:
        self.mixer, self.sizes = mixer, Spellings(sizes)
        self.statements: list[Statement] = []
        self.positions: list[Statement] = []
        self.depth = 1
        self.lets = {e.name: e for e in mixer.lets}
        self.taken = {*OWN, *sizes.values(), *(p.name for p in mixer.params)}
        self.variables: dict[str, str] = {}
        for name in _names(mixer):
            self.variables[name] = self.fresh(name)
        self.used: set[str] = set()
        self._places: dict[str, Piece] = {}
        self._parts: set[str] = set()
        self.terms = Terms(
            order=_order(mixer, sizes),
            names=Pieces(self.sizes),
            position=self._position,
            sizes=self.sizes,
            sources=dict(mixer.sequences),
            keep=self._keep,
            used=self.used,
            shared=shared_nodes(expressions(mixer)),
            lazily=self._lazily,
        )

    @property
    def order(self) -> Order:
        """The order of all dims."""
        return self.terms.order

    def fresh(self, wish: str) -> str:
        """A variable that nothing else has."""
        name, n = f"{wish}_" if wish in OWN else wish, 2
        while name in self.taken:
            name, n = f"{wish}_{n}", n + 1
        self.taken.add(name)
        return name

    def add(self, text: str, name: str | None = None) -> None:
        """A statement, in as many lines as it takes; of one for ``name`` alone, what for."""
        lines = ("    " * self.depth + line for line in wrap(text, 4 * self.depth))
        made = name if self.depth == 1 else None  # in a loop other turns may read it
        self.statements.append(Statement(tuple(lines), self.sizes.asked(), made))

    def pin(self) -> None:
        """What was asked for so far is for several statements: it stays, whichever do."""
        self.statements.append(Statement((), self.sizes.asked()))

    def say(self, text: str) -> None:
        """A comment."""
        indent = 4 * self.depth
        lines = (" " * indent + line for line in comment(text, indent))
        self.statements.append(Statement(tuple(lines)))

    def assign(self, variable: str, piece: Piece, name: str | None = None) -> Piece:
        """``variable = piece``; what stands for it. ``name``: the mixer's, read by that alone."""
        self.add(f"{variable} = {piece.code}", name)
        return replace(piece, code=variable, level=ATOM)

    def define(self, name: str, expr: Expr) -> None:
        """A name of the mixer as a variable."""
        piece = self.terms.write(expr).of_kind(expr.kind)
        self.terms.names[name] = self.assign(self.variables[name], piece, name)

    def _keep(self, wish: str, code: str) -> str:
        name = self.fresh(wish)
        self.add(f"{name} = {code}")
        return name

    def _lazily(self, name: str) -> None:
        if name not in self.terms.names:
            self.define(name, self.lets[name].value)

    def _position(self, dim: str) -> Piece:
        if dim not in self._places:
            name = self.fresh(dim.lower() if dim.lower() != dim else f"at_{dim}")
            around = self.sizes.asked()
            size = self.sizes.get(dim, dim)
            line = f"    {name} = torch.arange({size}, device={self.terms.device})"
            self.positions.append(Statement((line,), self.sizes.asked()))
            self.sizes.note(*around)
            self._places[dim] = Piece(name, (dim,), Kind.INT)
        return self._places[dim]

    def stage(self, stage: Stage) -> None:
        """The statements of one stage."""
        match stage:
            case Map(equations):
                for equation in equations:
                    self.define(equation.name, equation.value)
            case Attention():
                _Attend(self, stage).run()
            case Recurrence():
                _Loop(self, stage).run()
            case Select():
                _write_select(self, stage)


def _write_select(text: Statements, stage: Select) -> None:
    """All names that the stage makes."""
    text.say(f"a selection over {', '.join(stage.over)}")
    text.used.add("choose")
    rows = text.order.of(stage.queries)
    dims = (*rows, *stage.over)

    def laid_out(expr: Expr | None, kind: Kind, wanted: tuple[str, ...]) -> str:
        if expr is None:
            return "None"
        piece = text.terms.write(expr).of_kind(kind)
        if not piece.tensor:
            piece = Piece(text.terms.as_tensor(piece.code), (), kind)
        piece = text.terms.expanded(piece, wanted)
        code = text.order.permuted(piece.code, piece.dims, wanted)
        return f"{code}.{f'flatten({len(rows)})' if wanted == dims else 'unsqueeze(-1)'}"

    parts = [
        laid_out(stage.score, Kind.REAL, dims),
        laid_out(stage.among, Kind.BOOL, dims),
        f'"{stage.rule}"',
        laid_out(stage.bound, Kind.INT if stage.rule == "top" else Kind.REAL, rows),
        laid_out(stage.always, Kind.BOOL, dims),
        "0" if stage.slots is None else text.sizes.get(stage.slots, stage.slots),
    ]
    made = [text.variables[result.name] for result in stage.results]
    listed = made[-1] if len(made) > 1 else "_"
    text.add(f"{made[0]}, {listed} = choose({', '.join(parts)})")
    shape = ", ".join(text.sizes.get(dim, dim) for dim in dims)
    _define(text, stage.output, f"{made[0]}.reshape({shape})", dims, Kind.BOOL)
    if stage.listed is not None and stage.slots is not None:
        _define(text, stage.listed, listed, (*rows, stage.slots), Kind.INT)


def _define(text: Statements, name: str, code: str, dims: tuple[str, ...], kind: Kind) -> None:
    """The name as a piece with its axes in order."""
    order = text.order.of(dims)
    permuted = text.order.permuted(code, dims, order)
    piece = Piece(permuted, order, kind)
    text.terms.names[name] = text.assign(text.variables[name], piece, name)


def _names(mixer: Mixer) -> dict[str, None]:
    """Every name that has a value."""
    found = dict.fromkeys(i.name for i in mixer.inputs)
    found |= dict.fromkeys(t.name for t in mixer.tables)
    found |= dict.fromkeys(e.name for e in mixer.lets)
    for stage in mixer.stages:
        made = stage.equations if isinstance(stage, Map) else stage.results
        found |= dict.fromkeys(one.name for one in made)
    return found


def _order(mixer: Mixer, sizes: Collection[str]) -> Order:
    layouts = [i.dims for i in mixer.inputs] + [o.dims for o in mixer.outputs]
    nodes = every_node(expressions(mixer))
    others = sorted({*sizes, *(dim for node in nodes for dim in node.axes)})
    return order_of(layouts, others)


class _Attend:
    """An attention with every pair in memory."""

    def __init__(self, text: Statements, stage: Attention) -> None:
        self.text, self.stage, self.terms = text, stage, text.terms
        self.dims = text.order.of(stage.queries | {stage.over})
        self.mask: Piece | None = None

    def run(self) -> None:
        """All names that the stage makes."""
        text, stage, terms = self.text, self.stage, self.terms
        text.say(f"attention over {stage.over}")
        score = terms.write(stage.score).of_kind(Kind.REAL)
        score = text.assign(text.fresh("score"), terms.expanded(score, self.dims))
        if stage.mask is not None:
            mask = terms.write(stage.mask).of_kind(Kind.BOOL)
            if not mask.tensor:
                mask = replace(mask, code=terms.as_tensor(mask.code), tensor=True)
            self.mask = text.assign(text.fresh("seen"), mask)
            dims = self.mask.dims
            terms.names[_PAIR] = self.mask
            if stage.over in dims:
                seen = terms._reduced("any", self.mask, [stage.over])
                terms.names[_QUERY] = seen
            hidden = 'float("-inf")' if self._is_softmax() else "0.5"
            score = text.assign(score.code, terms.chosen(self.mask, score, hidden))
        share, total = self._shares(score)
        self._outputs(share)
        if stage.lse is not None:
            some = f"{total.code} != 0"
            log = f"torch.log(torch.where({some}, {total.code}, 1.0))"
            code = f'torch.where({some}, {log}, float("-inf"))'
            lse = terms.expanded(Piece(code, total.dims), stage.queries)
            terms.names[stage.lse] = text.assign(text.variables[stage.lse], lse, stage.lse)
        if stage.weights is not None:
            terms.names[stage.weights] = text.assign(
                text.variables[stage.weights], share, stage.weights
            )

    def _is_softmax(self) -> bool:
        match self.stage.weight:
            case Call("exp" | "exp2", (Ref("score"),)):
                return True
            case _:
                return False

    def _shares(self, score: Piece) -> tuple[Piece, Piece]:
        """The weights of the pairs, normalised, and their total before."""
        text, stage, terms = self.text, self.stage, self.terms
        terms.names["score"] = score
        weight = terms.write(self._of_visible(stage.weight)).of_kind(Kind.REAL)
        weight = terms.expanded(weight, self.dims)
        if self.mask is not None and not self._is_softmax():
            weight = terms.chosen(self.mask, weight, "0.0")
        if not weight.code.isidentifier():
            weight = text.assign(text.fresh("weight"), weight)
        total = terms._reduced("sum", weight, [stage.over])
        if stage.sink is not None:
            terms.names["score"] = terms.write(stage.sink).of_kind(Kind.REAL)
            sunk = terms.expanded(terms.write(stage.weight), stage.queries)
            total = Piece(f"{total.at(UNARY)} + {sunk.at(UNARY)}", total.dims)
            terms.names["score"] = score
        if isinstance(stage.denominator, Literal) and stage.denominator.value == 1:
            if stage.lse is not None:
                total = text.assign(text.fresh("total"), total)
            return weight, total
        if stage.lse is not None or "total" in names_in(stage.denominator):
            total = text.assign(text.fresh("total"), total)
        terms.names["total"] = total
        divisor = terms.write(self._of_visible(stage.denominator)).of_kind(Kind.REAL)
        if not divisor.tensor:
            code = f"{weight.at(UNARY)} / {divisor.at(UNARY)}"
            return text.assign(text.fresh("share"), Piece(code, weight.dims)), total
        if not divisor.code.isidentifier():
            divisor = text.assign(text.fresh("divisor"), divisor)
        return self._divided(weight, divisor), total

    def _divided(self, weight: Piece, divisor: Piece) -> Piece:
        """weight / divisor, and 0 where that is 0."""
        order, text = self.text.order, self.text
        dims = order.of({*weight.dims, *divisor.dims})
        safe = f"torch.where({divisor.code} == 0, 1.0, {divisor.code})"
        under = order.aligned(Piece(safe, divisor.dims), dims)
        above = order.aligned(weight, dims)
        share = Piece(f"{above.at(UNARY)} / {under.at(ATOM)}", dims)
        share = text.assign(text.fresh("share"), share)
        if self._is_softmax() and isinstance(self.stage.denominator, Ref):
            return share
        some = Piece(f"{divisor.code} != 0", divisor.dims, Kind.BOOL, 0)
        return text.assign(share.code, self.terms.chosen(some, share, "0.0"))

    def _outputs(self, share: Piece) -> None:
        text, stage, terms = self.text, self.stage, self.terms
        factors = [share]
        if stage.gain is not None:
            factors.append(terms.write(stage.gain).of_kind(Kind.REAL))
        text.pin()
        for output in stage.outputs:
            values = [terms.write(f) for f in factors_of(output.value)]
            made = terms.contracted([*factors, *values], [stage.over])
            made = terms.expanded(made, stage.queries)
            terms.names[output.name] = text.assign(text.variables[output.name], made, output.name)

    def _of_visible(self, expr: Expr) -> Expr:
        """Reductions over pairs see visible pairs only."""
        if self.mask is None:
            return expr
        dims, over = frozenset(self.mask.dims), self.stage.over
        pair = Ref(_PAIR, dims, Kind.BOOL)
        query = Ref(_QUERY, dims - {over}, Kind.BOOL)

        def change(node: Expr) -> Expr | None:
            if not isinstance(node, Reduce) or not set(node.over) & set(self.dims):
                return None
            inner = frozenset[str]().union(*(c.axes for c in node.children)) | set(node.over)
            seen = pair if over in inner else query
            return replace(
                node, where=seen if node.where is None else call("and", node.where, seen)
            )

        return transform(expr, change)


class _Loop:
    """A recurrence, row after row as it is written."""

    def __init__(self, text: Statements, stage: Recurrence) -> None:
        self.text, self.stage, self.terms = text, stage, text.terms
        self.states = {state.name: state for state in stage.states}
        self.own = {ref.name: ref for ref in stage.own}

    def run(self) -> None:
        """The loop, and the names that it makes, whole."""
        text, stage, terms = self.text, self.stage, self.terms
        text.say(f"recurrence along {stage.over}, row by row")
        made = [equation for equation, _ in assignments(stage.step)]
        values = [e.value for e in made] + ([] if stage.reset is None else [stage.reset])
        inner = {e.name for e in made} | self.states.keys()
        for name in sorted(names_in(*values) & text.lets.keys()):
            text._lazily(name)
        for state in stage.states:
            first = terms.write(state.initial).of_kind(state.kind)
            if not first.tensor:
                first = replace(first, kind=state.kind)
            first = terms.expanded(first, state.dims)
            terms.names[state.name] = text.assign(text.variables[state.name], first, state.name)
        step, reset = self._ahead(list(stage.step), inner), stage.reset
        if reset is not None:
            reset = self._hoisted(reset, stage.over, inner)
        self._turns(stage.over, step, reset, stage.reverse)

    def _ahead(self, step: list[Line], inner: set[str]) -> list[Line]:
        """The step without what is computed before the loop: terms that see other rows."""
        over, kept = self.stage.over, list[Line]()
        counts = [equation.name for equation, _ in assignments(tuple(step))]
        for line in step:
            if isinstance(line, Equation) and line.name not in self.states:
                sees = any(_sees(line.name, over, later) for later in step)
                if sees and counts.count(line.name) == 1 and not names_in(line.value) & inner:
                    self.text.define(line.name, line.value)
                    inner -= {line.name}
                    continue
            kept.append(self._hoisted_line(line, over, inner))
        return kept

    def _hoisted_line(self, line: Line, over: str, inner: set[str]) -> Line:
        match line:
            case Equation():
                return replace(line, value=self._hoisted(line.value, over, inner))
            case Rounds():
                return replace(
                    line, step=tuple(self._hoisted_line(one, over, inner) for one in line.step)
                )

    def _hoisted(self, expr: Expr, over: str, inner: Collection[str]) -> Expr:
        """``expr`` with a variable for each term that sees other rows than its own."""
        if not any(moves(node, over) for node in _nodes(expr)):
            return expr
        if names_in(expr).isdisjoint(inner) and over in expr.axes:
            name = f"{expr}"
            if name not in self.terms.names:
                piece = self.terms.write(expr)
                self.terms.names[name] = self.text.assign(self.text.fresh("rows"), piece)
            return Ref(name, expr.axes, expr.kind)
        return rebuild(expr, lambda child: self._hoisted(child, over, inner))

    def _turns(
        self, over: str, step: Sequence[Line], reset: Expr | None = None, reverse: bool = False
    ) -> None:
        text, terms = self.text, self.terms
        row = text.fresh(over.lower())
        own = [n for n in _made(step) if n not in self.states]
        kept = {n: text.fresh(f"{text.variables[n]}_rows") for n in own}
        for rows in kept.values():
            text.add(f"{rows} = []")
        size = text.sizes.get(over, over)
        turns = f"torch.arange({size}, device={terms.device})"
        text.add(f"for {row} in {turns}{'.flip(0)' if reverse else ''}:")
        text.depth += 1
        terms.rows[over] = row
        if reset is not None:
            self._reset(reset)
        for line in step:
            terms.done.clear()
            match line:
                case Equation():
                    self._line(line)
                case Rounds(inner, lines):
                    self._turns(inner, lines)
        dims = {n: self._row_dims(n) for n in own}
        for name, rows in kept.items():
            piece = terms.expanded(terms.row(terms.names[name]), dims[name])
            text.add(f"{rows}.append({piece.code})")
        del terms.rows[over]
        terms.done.clear()
        text.depth -= 1
        for name, rows in kept.items():
            self._together(name, rows, over, dims[name], reverse)

    def _row_dims(self, name: str) -> tuple[str, ...]:
        return self.text.order.of(self.own[name].dims - self.terms.rows.keys())

    def _together(
        self, name: str, rows: str, over: str, row: tuple[str, ...], reverse: bool
    ) -> None:
        """The rows of a name as one value."""
        dims = self.text.order.of({*row, over})
        listed = f"{rows}[::-1]" if reverse else rows
        axis = dims.index(over)
        code = f"torch.stack({listed}{f', {axis}' if axis else ''})"
        piece = Piece(code, dims, self.own[name].kind)
        self.terms.names[name] = self.text.assign(self.text.variables[name], piece, name)

    def _reset(self, reset: Expr) -> None:
        condition = self.terms.write(reset).of_kind(Kind.BOOL)
        if condition.code == "False":
            return
        if not condition.tensor:
            condition = replace(condition, code=f"torch.tensor({condition.code})", level=ATOM)
        for name, state in self.states.items():
            known = self.terms.names[name]
            dims = self.text.order.of({*condition.dims, *known.dims})
            here = self.text.order.aligned(condition, dims)
            zero = "0.0" if state.kind is Kind.REAL else "0"
            code = f"torch.where({here.code}, {zero}, {known.code})"
            self.terms.names[name] = self.text.assign(known.code, Piece(code, dims, state.kind))

    def _line(self, line: Equation) -> None:
        text, terms = self.text, self.terms
        piece = terms.write(line.value)
        state: State | None = self.states.get(line.name)
        if state is not None:
            piece = terms.expanded(piece.of_kind(state.kind), state.dims)
        terms.names[line.name] = text.assign(text.variables[line.name], piece, line.name)


def _made(step: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(equation.name for equation, _ in assignments(tuple(step))))


def _nodes(expr: Expr) -> list[Expr]:
    return list(every_node([expr]))


def _sees(name: str, over: str, line: Line) -> bool:
    """Whether a line sees other rows of a name."""
    lines = (line,) if isinstance(line, Equation) else line.step
    return any(
        moves(node, over) and name in names_in(node)
        for equation, _ in assignments(tuple(lines))
        for node in _nodes(equation.value)
    )


__all__ = ["OWN", "Statements"]
