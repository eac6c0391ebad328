"""A selection in a packed row: a document chooses among its own positions."""

from __future__ import annotations

from dataclasses import replace

from ....ir.expression import Expr, Kind, Ref, call
from ....ir.mixer import Equation, Map, Mixer, Select, Stage
from ....ir.stages import changed, names_taken, unused_name
from .document_positions import DocumentRewrite
from .packing_plan import Families, packing_error


def pack_select(stage: Select, mixer: Mixer, families: Families) -> tuple[Stage, ...]:
    """The selection inside documents; its list counts from the beginning of the document.

    Raises:
        UnsupportedError: over a packed axis, with one choice for all documents.
    """
    packed = [dim for dim in stage.over if families.of(dim)]
    positions = [dim for dim in sorted(stage.queries) if families.of(dim)]
    origin = next((dim for dim in positions if mixer.sequence(dim)), next(iter(positions), None))
    if origin is None:
        if packed:
            what = f"the selection over {packed[0]} has no position"
            raise packing_error(mixer, stage.score, what)
        return (changed(stage, DocumentRewrite(families)),)
    rewrite = DocumentRewrite(families, origin)
    made = changed(replace(stage, among=None, always=None), rewrite)
    near = replace(rewrite, near=True)
    among, always = (None if e is None else near(e) for e in (stage.among, stage.always))
    for dim in (*packed, *(dim for dim in positions if dim != origin)):
        own = families.within(dim, origin)
        among = own if among is None else call("and", among, own)
        always = None if always is None else call("and", always, own)
    made = replace(made, among=among, always=always)
    if stage.listed is None or not packed:
        return (made,)
    if len(stage.over) > 1:
        what = f"the list {stage.listed} counts along several axes"
        raise packing_error(mixer, stage.score, what)
    in_row = unused_name(f"{stage.listed}_in_row", names_taken(mixer))
    return replace(made, listed=in_row), Map((_in_document(stage, in_row, packed[0], families),))


def _in_document(stage: Select, in_row: str, dim: str, families: Families) -> Equation:
    """The list, counted from where the row's document begins."""
    listed = stage.results[1]
    place: Expr = Ref(in_row, listed.axes, Kind.INT)
    origin = next(d for d in sorted(stage.queries) if families.of(d))
    family = families.of(dim)
    assert family is not None
    first = families.first(family, origin)
    there = call("ge", place, 0)
    return Equation(listed.name, call("where", there, call("sub", place, first), -1))


__all__ = ["pack_select"]
