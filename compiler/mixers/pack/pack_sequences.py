"""Documents packed end to end along a sequence, as a rewrite of the mixer.

    j <= i and j < sink  -->  j <= i and j < first_t[i] + sink and first_t[i] <= j < end_t[i]
    u[T=t - l]           -->  where(t - first_t - l >= 0, u[T=t - l], 0)
    i // block           -->  (i - first_t[i]) // block

Every index along a packed axis becomes the position inside its document, every size the
document's length; attentions, reads, reductions and running sums stay inside the document. The
result has inputs more (``packing(...).tables``) that say where documents begin and end; nothing in
the spec changes. Left alone on purpose: inputs without a packed axis, which serve all documents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ....ir.expression import (
    Cumsum,
    Expr,
    Index,
    Kind,
    Literal,
    Read,
    Reduce,
    Ref,
    Scalar,
    Size,
    call,
)
from ....ir.mixer import Attention, Equation, Input, Map, Mixer, Output, Recurrence, Select, Stage
from ....ir.rewriting import transform, walk, with_names
from ....ir.stages import changed, values
from ..resume.sequence_axis import last_values
from .document_positions import DocumentRewrite
from .pack_recurrence import BATCH, pack_recurrence, per_document
from .pack_select import pack_select
from .packing_plan import Families, PackingTable, families_of, packing_error, paired_axis
from .sums_as_states import sums_as_states


@dataclass(frozen=True)
class Packing:
    """A packed mixer, and what its new inputs are.

    ``axes``: the axes whose document boundaries the caller gives (one sequence, or the query and
    the key axis of a cross attention); ``derived``: those whose boundaries follow, with the
    length of one document; ``per_document``: the inputs that have a value for each document.
    """

    mixer: Mixer
    tables: tuple[PackingTable, ...]
    axes: tuple[str, ...]
    derived: tuple[tuple[str, Expr], ...]
    per_document: tuple[str, ...] = ()


def pack_sequences(mixer: Mixer) -> Mixer:
    """The mixer for documents that lie end to end along its sequences.

    Raises:
        UnsupportedError: a term that has one value for a whole sequence (a mean over T, a value
            without any position, a last state): a packed row has several documents.
    """
    return packing(mixer).mixer


def packing(mixer: Mixer) -> Packing:
    """As ``pack_sequences``, with the meaning of the new inputs."""
    families = families_of(mixer)
    _check_last(mixer, families)
    opened = sums_as_states(_without_lengths_apart(mixer, families), families)
    lets = tuple(_equation(let, mixer, families) for let in opened.lets)
    stages = tuple(made for stage in opened.stages for made in _stages(stage, opened, families))
    _check_outputs(mixer, opened, families)
    derived = dict(families.derived)
    apart = tuple(entry.name for entry in per_document(opened, families))
    _check_layouts(opened, apart, families)
    for dim in derived:  # what fixes the length of the axis now
        families.first(dim, dim)
    packed = replace(
        opened,
        inputs=(*(_input(i, apart, families) for i in opened.inputs), *families.inputs()),
        lets=_still_read(lets, stages, opened) if apart else lets,
        stages=stages,
        sizes=tuple((dim, size) for dim, size in opened.sizes if dim not in derived),
    )
    return Packing(packed, tuple(families.tables.values()), families.base, families.derived, apart)


def _check_layouts(mixer: Mixer, apart: tuple[str, ...], families: Families) -> None:
    """Documents are cut along the outermost factor of a product, and put along a whole axis."""
    every: tuple[Input | Output, ...] = (*mixer.inputs, *mixer.outputs)
    for entry in every:
        term = Ref(entry.name, frozenset(entry.dims), entry.kind, span=entry.span)
        for product in entry.layout:
            if inner := next((d for d in product[1:] if families.of(d) is not None), None):
                text = "*".join([inner, *(dim for dim in product if dim != inner)])
                what = f"{entry.name} has {inner} inside of {'*'.join(product)}"
                raise packing_error(mixer, term, what, f"write the axis as {text}")
        if entry.name in apart and (BATCH,) not in entry.layout:
            what = f"{entry.name} is there for each document, and its {BATCH} is part of a product"
            raise packing_error(mixer, term, what, f"give it an axis {BATCH}")


def _input(entry: Input, apart: tuple[str, ...], families: Families) -> Input:
    """The input as a packed row takes it."""
    if entry.name not in apart:
        return entry
    layout = tuple(
        tuple(families.documents if dim == BATCH else dim for dim in axis) for axis in entry.layout
    )
    return replace(entry, layout=layout)


def _still_read(
    lets: tuple[Equation, ...], stages: tuple[Stage, ...], mixer: Mixer
) -> tuple[Equation, ...]:
    """Without the lets that are written out where states start."""
    read = {output.name for output in mixer.outputs}
    for stage in stages:
        read |= {n.name for _, value in values(stage) for n in walk(value) if isinstance(n, Ref)}
    for let in reversed(lets):
        if let.name in read:
            read |= {n.name for n in walk(let.value) if isinstance(n, Ref)}
    return tuple(let for let in lets if let.name in read)


def last_outputs(mixer: Mixer) -> tuple[Output, ...]:
    """The outputs that need a document's last row: last states, and what is made of them."""
    families = families_of(mixer)
    found = last_values(mixer, lambda dim: families.of(dim) is not None)
    return tuple(output for output in mixer.outputs if output.name in found)


def _check_last(mixer: Mixer, families: Families) -> None:
    for output in last_outputs(mixer):
        term = Ref(output.name, frozenset(output.dims), output.kind, span=output.span)
        raise packing_error(mixer, term, f"{output.name} needs a state after the last row")


def _without_lengths_apart(mixer: Mixer, families: Families) -> Mixer:
    """Params and lets without a position that depend on the length, written out where used."""
    values: dict[str, Expr] = {}

    def opened(expr: Expr) -> Expr:
        def change(node: Expr) -> Expr | None:
            return values.get(node.name) if isinstance(node, Scalar | Ref) else None

        return transform(expr, change)

    params = []
    for param in mixer.params:
        value = opened(param.value)
        if not _measures(value, families):
            params.append(param)
        elif param.runtime:
            raise packing_error(
                mixer, param.value, f"the run-time param {param.name} has one value"
            )
        else:
            values[param.name] = value
    lets = []
    for let in mixer.lets:
        value = opened(let.value)
        if families.positions(value.axes) or not _measures(value, families):
            lets.append(replace(let, value=value))
        else:
            _check_no_whole(mixer, value, families)
            values[let.name] = value
    stages = tuple(changed(stage, opened) for stage in mixer.stages)
    return replace(mixer, params=tuple(params), lets=tuple(lets), stages=stages)


def _measures(expr: Expr, families: Families) -> bool:
    """Whether a value depends on a document's length or on a place in it."""
    return any(
        (isinstance(node, Size | Index) and families.of(node.dim) is not None)
        or (isinstance(node, Read) and any(families.of(dim) for dim, _ in node.at))
        or (isinstance(node, Reduce) and any(families.of(dim) for dim in node.over))
        for node in walk(expr)
    )


def _check_no_whole(mixer: Mixer, expr: Expr, families: Families) -> None:
    for node in walk(expr):
        if isinstance(node, Reduce) and any(families.of(dim) for dim in node.over):
            raise packing_error(mixer, node, "a reduction over a whole sequence has one value")


def _equation(equation: Equation, mixer: Mixer, families: Families) -> Equation:
    """An equation of a packed row; a result is 0 between documents."""
    value = DocumentRewrite(families)(equation.value)
    first, *others = families.positions(equation.value.axes) or [""]
    if any(equation.name == output.name for output in mixer.outputs):
        for dim in others:
            inside = families.within(dim, first)
            boolean = value.kind is Kind.BOOL
            value = call("and", inside, value) if boolean else call("where", inside, value, 0)
    return replace(equation, value=value)


def _stages(stage: Stage, mixer: Mixer, families: Families) -> tuple[Stage, ...]:
    if isinstance(stage, Select):
        return pack_select(stage, mixer, families)
    return (_stage(stage, mixer, families),)


def _stage(stage: Attention | Map | Recurrence, mixer: Mixer, families: Families) -> Stage:
    if isinstance(stage, Map):
        return replace(
            stage, equations=tuple(_equation(e, mixer, families) for e in stage.equations)
        )
    if isinstance(stage, Recurrence):
        return pack_recurrence(stage, mixer, families)
    origin = paired_axis(mixer, stage)
    packed = [d for d in (stage.over, *sorted(stage.queries)) if families.of(d) and d != origin]
    if origin is None or families.of(origin) is None:
        if families.of(stage.over):
            raise packing_error(
                mixer, stage.score, f"the attention over {stage.over} has no position"
            )
        return changed(stage, DocumentRewrite(families))
    rewrite = DocumentRewrite(families, origin)
    bare = replace(stage, mask=None, weight=Literal(1), denominator=Literal(1))
    made = changed(bare, rewrite)
    assert isinstance(made, Attention)
    mask = None
    if stage.mask is not None:
        mask = replace(rewrite, near=True)(_opened_mask(stage.mask, mixer, families))
    for dim in packed:
        own = families.within(dim, origin)
        mask = own if mask is None else call("and", mask, own)
    made = replace(made, mask=mask)
    # What a score sums up over all keys it sums up over a document's: it has the query's axis then.
    normalised = {
        "score": Ref("score", made.score.axes, made.score.kind),
        "total": Ref("total", made.queries, Kind.REAL),
    }
    inside = replace(rewrite, visible=frozenset(packed) | {origin})
    weight, denominator = (
        inside(with_names(part, normalised)) for part in (stage.weight, stage.denominator)
    )
    return replace(made, weight=weight, denominator=denominator)


def _opened_mask(mask: Expr, mixer: Mixer, families: Families) -> Expr:
    """Lets of positions written out, so that key ranges see what they say."""
    lets = {let.name: let.value for let in mixer.lets}

    def plain(name: str) -> bool:
        nodes = list(walk(lets[name])) if name in lets else []
        reduces = any(isinstance(node, Reduce | Cumsum) for node in nodes)
        return not reduces and any(isinstance(n, Index) and families.of(n.dim) for n in nodes)

    def change(node: Expr) -> Expr | None:
        if isinstance(node, Ref) and plain(node.name):
            return _opened_mask(lets[node.name], mixer, families)
        return None

    return transform(mask, change)


def _check_outputs(mixer: Mixer, opened: Mixer, families: Families) -> None:
    """Refuse outputs without a position that depend on the sequence."""
    values = {let.name: let.value for let in mixer.lets}
    for stage in opened.stages:
        if isinstance(stage, Map):
            values.update({equation.name: equation.value for equation in stage.equations})
    for output in mixer.outputs:
        value = values.get(output.name)
        if value is not None and not families.positions(output.dims) and _measures(value, families):
            raise packing_error(mixer, value, f"{output.name} has one value")
