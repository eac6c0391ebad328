"""A selection as statements of torch."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from ...ir.expression import Expr, Kind
from ...ir.mixer import Select
from ..reference.choice import choose
from .text import Piece

if TYPE_CHECKING:
    from .forms import Statements


def choose_text() -> str:
    """The function that chooses, as the reference has it, without the names of types."""
    lines = inspect.getsource(choose).splitlines()
    body = next(n for n, line in enumerate(lines) if line.endswith(":")) + 1
    return "\n".join(["def choose(score, among, rule, bound, always, slots):", *lines[body:]])


def write_select(text: Statements, stage: Select) -> None:
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
            piece = Piece(f"torch.tensor({piece.code}, device=device)", (), kind)
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
    text.terms.names[name] = text.assign(text.variables[name], piece)


__all__ = ["choose_text", "write_select"]
