"""The forms of a mixer as statements of torch: dense attention, and loops that are loops."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Sequence
from dataclasses import replace

from ...ir.expression import Call, Expr, Kind, Literal, Reduce, Ref
from ...ir.expression import call as term
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
from ..python_text import Text, call, comment, infix, name
from ..reference.bodies import moves
from ..reference.scope import shared_nodes
from ..statements import Statement, assigned, written
from .terms import DEVICE, Terms, as_tensor, factors_of
from .text import Order, Piece, order_of

# Words of the code itself, beside Python's.
OWN = frozenset(keyword.kwlist) | frozenset("torch math device read self range float".split())
_PAIR, _QUERY = "visible pair", "visible query"  # no spec can spell them


class Statements:
    """The lines of a function body in the making, and the names that it uses."""

    def __init__(self, mixer: Mixer, sizes: Collection[str]) -> None:
        self.mixer = mixer
        self.statements: list[Statement] = []
        self.positions: list[Statement] = []
        self.depth = 1
        self.lets = {e.name: e for e in mixer.lets}
        self.taken = {*OWN, *sizes, *(p.name for p in mixer.params)}
        self.variables: dict[str, str] = {}
        for known in _names(mixer):
            self.variables[known] = self.fresh(known)
        self.used: set[str] = set()
        self._places: dict[str, Piece] = {}
        self._parts: set[str] = set()
        self.terms = Terms(
            order=_order(mixer, sizes),
            names={},
            position=self._position,
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
        made, n = f"{wish}_" if wish in OWN else wish, 2
        while made in self.taken:
            made, n = f"{wish}_{n}", n + 1
        self.taken.add(made)
        return made

    def add(self, value: Text, before: str = "", after: str = "") -> None:
        """A statement, in as many lines as it takes."""
        self.statements.append(written(value, self.depth, before, after))

    def say(self, text: str) -> None:
        """A comment."""
        indent = 4 * self.depth
        lines = (" " * indent + line for line in comment(text, indent))
        self.statements.append(Statement(tuple(lines)))

    def assign(self, variable: str, piece: Piece) -> Piece:
        """``variable = piece``; what stands for it."""
        return replace(piece, text=self.give(variable, piece.text))

    def give(self, variable: str, value: Text) -> Text:
        """``variable = value``; in a loop other turns may read it."""
        if self.depth == 1:
            self.statements.append(assigned(variable, value))
        else:
            self.add(value, f"{variable} = ")
        return name(variable)

    def define(self, known: str, expr: Expr) -> None:
        """A name of the mixer as a variable."""
        self.stand_for(known, self.terms.write(expr).of_kind(expr.kind))

    def stand_for(self, known: str, piece: Piece) -> None:
        """Let the variable of a name of the mixer hold a piece."""
        self.terms.names[known] = self.assign(self.variables[known], piece)

    def _keep(self, wish: str, value: Text) -> Text:
        return self.give(self.fresh(wish), value)

    def _lazily(self, known: str) -> None:
        if known not in self.terms.names:
            self.define(known, self.lets[known].value)

    def _position(self, dim: str) -> Piece:
        if dim not in self._places:
            variable = self.fresh(dim.lower() if dim.lower() != dim else f"at_{dim}")
            places = call("torch.arange", name(dim), device=DEVICE)
            self.positions.append(assigned(variable, places))
            self._places[dim] = Piece(name(variable), (dim,), Kind.INT)
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

    def laid_out(expr: Expr | None, kind: Kind, wanted: tuple[str, ...]) -> Text | str:
        if expr is None:
            return "None"
        piece = text.terms.write(expr).of_kind(kind)
        if not piece.tensor:
            piece = Piece(as_tensor(piece.text), (), kind)
        piece = text.terms.expanded(piece, wanted)
        permuted = text.order.permuted(piece.text, piece.dims, wanted)
        return permuted.then(f".flatten({len(rows)})" if wanted == dims else ".unsqueeze(-1)")

    chosen = call(
        "choose",
        laid_out(stage.score, Kind.REAL, dims),
        laid_out(stage.among, Kind.BOOL, dims),
        f'"{stage.rule}"',
        laid_out(stage.bound, Kind.INT if stage.rule == "top" else Kind.REAL, rows),
        laid_out(stage.always, Kind.BOOL, dims),
        0 if stage.slots is None else name(stage.slots),
    )
    made = [text.variables[result.name] for result in stage.results]
    places = made[-1] if len(made) > 1 else "_"
    text.add(chosen, f"{made[0]}, {places} = ")
    found = name(made[0]).method("reshape", *(name(dim) for dim in dims))
    _define(text, stage.output, found, dims, Kind.BOOL)
    if stage.listed is not None and stage.slots is not None:
        _define(text, stage.listed, name(places), (*rows, stage.slots), Kind.INT)


def _define(text: Statements, known: str, value: Text, dims: tuple[str, ...], kind: Kind) -> None:
    """The name as a piece with its axes in order."""
    order = text.order.of(dims)
    text.stand_for(known, Piece(text.order.permuted(value, dims, order), order, kind))


def _names(mixer: Mixer) -> dict[str, None]:
    """Every name that has a value."""
    found = dict.fromkeys(i.name for i in mixer.inputs)
    found |= dict.fromkeys(t.name for t in mixer.tables)
    found |= dict.fromkeys(e.name for e in mixer.lets)
    for stage in mixer.stages:
        found |= dict.fromkeys(made.name for made in stage.results)
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
                mask = replace(mask, text=as_tensor(mask.text), tensor=True)
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
            some = infix(total.text, "!=", Text("0"))
            log = call("torch.log", call("torch.where", some, total.text, "1.0"))
            lse = Piece(call("torch.where", some, log, 'float("-inf")'), total.dims)
            text.stand_for(stage.lse, terms.expanded(lse, stage.queries))
        if stage.weights is not None:
            text.stand_for(stage.weights, share)

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
            if not sunk.code.isidentifier():
                sunk = text.assign(text.fresh("sunk"), sunk)
            total = Piece(infix(total.text, "+", sunk.text), total.dims)
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
            share = Piece(infix(weight.text, "/", divisor.text), weight.dims)
            return text.assign(text.fresh("share"), share), total
        if not divisor.code.isidentifier():
            divisor = text.assign(text.fresh("divisor"), divisor)
        return self._divided(weight, divisor), total

    def _divided(self, weight: Piece, divisor: Piece) -> Piece:
        """weight / divisor, and 0 where that is 0."""
        order, text = self.text.order, self.text
        dims = order.of({*weight.dims, *divisor.dims})
        empty = infix(divisor.text, "==", Text("0"))
        safe = call("torch.where", empty, "1.0", divisor.text)
        under = order.aligned(Piece(safe, divisor.dims), dims)
        above = order.aligned(weight, dims)
        share = Piece(infix(above.text, "/", under.text), dims)
        share = text.assign(text.fresh("share"), share)
        if self._is_softmax() and isinstance(self.stage.denominator, Ref):
            return share
        some = Piece(infix(divisor.text, "!=", Text("0")), divisor.dims, Kind.BOOL)
        return text.assign(share.code, self.terms.chosen(some, share, "0.0"))

    def _outputs(self, share: Piece) -> None:
        text, stage, terms = self.text, self.stage, self.terms
        factors = [share]
        if stage.gain is not None:
            factors.append(terms.write(stage.gain).of_kind(Kind.REAL))
        for output in stage.outputs:
            values = [terms.write(f) for f in factors_of(output.value)]
            made = terms.contracted([*factors, *values], [stage.over])
            text.stand_for(output.name, terms.expanded(made, stage.queries))

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
                node, where=seen if node.where is None else term("and", node.where, seen)
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
        for known in sorted(names_in(*values) & text.lets.keys()):
            text._lazily(known)
        for state in stage.states:
            first = terms.write(state.initial).of_kind(state.kind)
            if not first.tensor:
                first = replace(first, kind=state.kind)
            text.stand_for(state.name, terms.expanded(first, state.dims))
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
            known = f"{expr}"
            if known not in self.terms.names:
                piece = self.terms.write(expr)
                self.terms.names[known] = self.text.assign(self.text.fresh("rows"), piece)
            return Ref(known, expr.axes, expr.kind)
        return rebuild(expr, lambda child: self._hoisted(child, over, inner))

    def _turns(
        self, over: str, step: Sequence[Line], reset: Expr | None = None, reverse: bool = False
    ) -> None:
        text, terms = self.text, self.terms
        row = text.fresh(over.lower())
        own = [n for n in _made(step) if n not in self.states]
        kept = {n: text.fresh(f"{text.variables[n]}_rows") for n in own}
        for rows in kept.values():
            text.give(rows, Text("[]"))
        turns = call("torch.arange", name(over), device=DEVICE)
        text.add(turns.then(".flip(0)") if reverse else turns, f"for {row} in ", ":")
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
        for made, rows in kept.items():
            piece = terms.expanded(terms.row(terms.names[made]), dims[made])
            text.add(name(rows).method("append", piece.text))
        del terms.rows[over]
        terms.done.clear()
        text.depth -= 1
        for made, rows in kept.items():
            self._together(made, rows, over, dims[made], reverse)

    def _row_dims(self, made: str) -> tuple[str, ...]:
        return self.text.order.of(self.own[made].dims - self.terms.rows.keys())

    def _together(
        self, made: str, rows: str, over: str, row: tuple[str, ...], reverse: bool
    ) -> None:
        """The rows of a name as one value."""
        dims = self.text.order.of({*row, over})
        given = name(rows).then("[::-1]") if reverse else name(rows)
        axis = dims.index(over)
        stacked = call("torch.stack", given, *([axis] if axis else []))
        self.text.stand_for(made, Piece(stacked, dims, self.own[made].kind))

    def _reset(self, reset: Expr) -> None:
        condition = self.terms.write(reset).of_kind(Kind.BOOL)
        if condition.code == "False":
            return
        if not condition.tensor:
            condition = replace(condition, text=call("torch.tensor", condition.text))
        for made, state in self.states.items():
            known = self.terms.names[made]
            dims = self.text.order.of({*condition.dims, *known.dims})
            here = self.text.order.aligned(condition, dims)
            zero = "0.0" if state.kind is Kind.REAL else "0"
            text = call("torch.where", here.text, zero, known.text)
            self.terms.names[made] = self.text.assign(known.code, Piece(text, dims, state.kind))

    def _line(self, line: Equation) -> None:
        terms = self.terms
        piece = terms.write(line.value)
        state: State | None = self.states.get(line.name)
        if state is not None:
            piece = terms.expanded(piece.of_kind(state.kind), state.dims)
        self.text.stand_for(line.name, piece)


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
