"""A recurrence over documents that lie end to end: states start anew where one begins.

    reset: r, initial {S: S0}  -->  reset: r or t == first_t,
                                    step: S = S + where(t == first_t and not r, S0, 0); ...

Backward, a document begins with its last row. Where ``initial`` reads inputs with the batch axis B,
documents are the batch there: S0[B, ...] becomes S0[Documents, ...], read at the row's document.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ....ir.expression import Expr, Index, Kind, Literal, Read, Ref, call
from ....ir.mixer import Equation, Input, Mixer, Recurrence, Stage, State
from ....ir.rewriting import transform, walk
from ....ir.stages import changed, values
from .document_positions import DocumentRewrite
from .packing_plan import Families

BATCH = "B"  # what the language calls the batch
_ZERO = {Kind.REAL: Literal(0.0), Kind.INT: Literal(0), Kind.BOOL: Literal(False)}


def pack_recurrence(stage: Recurrence, mixer: Mixer, families: Families) -> Stage:
    """The recurrence of a packed row; one along another axis keeps to its own rows."""
    rewrite = DocumentRewrite(families, scope=frozenset({stage.over}))
    family = families.of(stage.over)
    if family is None:
        return changed(stage, replace(rewrite, scope=frozenset()))
    begin = families.edge(family, stage.over, stage.reverse)
    begin = call("sub", begin, 1) if stage.reverse else begin
    begins = call("eq", Index(stage.over), begin)
    packed = changed(replace(stage, states=()), rewrite)
    assert isinstance(packed, Recurrence)
    starts = [
        _started(
            state,
            rewrite(by_document(state.initial, mixer, families, stage.over)),
            begins,
            packed.reset,
        )
        for state in stage.states
        if not _is_zero(state.initial)
    ]
    return replace(
        packed,
        states=tuple(replace(state, initial=_ZERO[state.kind]) for state in stage.states),
        step=(*starts, *packed.step),
        reset=begins if packed.reset is None else call("or", packed.reset, begins),
    )


def _started(state: State, initial: Expr, begins: Expr, reset: Expr | None) -> Equation:
    """The state where a document begins; it is 0 there, after the reset."""
    here = begins if reset is None else call("and", begins, call("not", reset))
    if state.kind is Kind.BOOL:
        return Equation(state.name, call("where", here, initial, state.ref))
    first = call("where", here, initial, _ZERO[state.kind])
    return Equation(state.name, call("add", state.ref, first))


def _is_zero(expr: Expr) -> bool:
    return isinstance(expr, Literal) and expr.value == 0


def by_document(expr: Expr, mixer: Mixer, families: Families, over: str) -> Expr:
    """An initial value with inputs of the batch read at the document of the row along ``over``."""
    apart = {entry.name: entry for entry in per_document(mixer, families)}
    lets = {let.name: let.value for let in mixer.lets}

    def change(node: Expr) -> Expr | None:
        if not isinstance(node, Ref):
            return None
        if node.name in lets and _leaves(lets[node.name], lets) & set(apart):
            return transform(lets[node.name], change)
        if node.name not in apart:
            return None
        dims = (node.dims - {BATCH}) | {families.documents}
        return Read(Ref(node.name, dims, node.kind), ((families.documents, families.number(over)),))

    return transform(expr, change)


def per_document(mixer: Mixer, families: Families) -> tuple[Input, ...]:
    """The inputs whose batch is the documents: those of ``initial`` that nothing else reads."""
    rows = [i for i in mixer.inputs if families.positions(i.dims)]
    if not all(BATCH in i.dims for i in rows):
        return ()
    lets = {let.name: let.value for let in mixer.lets}
    first, rest = set[str](), set[str]()
    for is_first, value in _read(mixer, families):
        (first if is_first else rest).update(_leaves(value, lets))
    return tuple(
        i
        for i in mixer.inputs
        if i.name in first - rest and BATCH in i.dims and not families.positions(i.dims)
    )


def _read(mixer: Mixer, families: Families) -> Iterator[tuple[bool, Expr]]:
    """(whether it is an initial value of packed rows, expression) of all stages."""
    for stage in mixer.stages:
        if isinstance(stage, Recurrence) and families.of(stage.over) is not None:
            yield from ((True, state.initial) for state in stage.states)
            stage = replace(stage, states=())
        yield from ((False, value) for _, value in values(stage))


def _leaves(expr: Expr, lets: dict[str, Expr]) -> set[str]:
    """The names that an expression reads, lets written out."""
    found = set[str]()
    for node in walk(expr):
        if isinstance(node, Ref):
            found |= _leaves(lets[node.name], lets) if node.name in lets else {node.name}
    return found


__all__ = ["by_document", "pack_recurrence", "per_document"]
