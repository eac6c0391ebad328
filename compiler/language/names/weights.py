"""Inputs that a module keeps, and what they start from: weights that are trained, and buffers.

``R: {dims: [H, D], weight: true}`` starts from its default, or at random; ``weight: log(d + 1)``
from a value by sizes, params and positions, which a buffer may have too.
"""

from __future__ import annotations

from dataclasses import replace

from ....ir.expression import Expr, Kind, Ref, Scalar
from ....ir.mixer import Held, Input, Table
from ....ir.rewriting import walk
from ..schema import InputSpec, SpecDocument
from ..text.positions import Text
from .definitions import resolve
from .inputs import declared_input
from .scope import Scope


def with_weights(
    spec: SpecDocument, inputs: tuple[Input, ...], tables: tuple[Table, ...], scope: Scope
) -> tuple[Input, ...]:
    """The inputs with what is said of them as weights or buffers; params are known by now.

    Raises:
        SpecError: a weight of integers, or one without a gradient; both a weight and a buffer; a
            start that reads a tensor, or has axes that the input lacks.
    """
    names = frozenset(table.name for table in tables)
    return tuple(
        _holding(item, full, names, scope) if isinstance(full, InputSpec) else item
        for item, full in ((item, declared_input(spec, item.name)) for item in inputs)
    )


def _holding(item: Input, full: InputSpec, tables: frozenset[str], scope: Scope) -> Input:
    if full.weight is not None and full.buffer is not None:
        raise full.key("buffer").error(f"`{item.name}` is a weight already: one of the two")
    if full.weight is not None and (item.kind is not Kind.REAL or not item.grad):
        what = "not of real numbers" if item.grad else "without a gradient"
        raise full.key("weight").error(
            f"`{item.name}` is {what}, and weights are trained", do="write `buffer:`"
        )
    for trained, text in ((True, full.weight), (False, full.buffer)):
        if text is not None and text.value != "false":
            return replace(item, held=Held(trained, _start(item, text, tables, scope)))
    return item


def _start(item: Input, text: Text, tables: frozenset[str], scope: Scope) -> Expr | None:
    """The value to start from; None for one that the input itself decides."""
    if text.value == "true":
        return None
    what = f"the start of `{item.name}`"
    value = resolve(what, text, scope)
    nodes = list(walk(value))
    read = [node.name for node in nodes if isinstance(node, Ref) and node.name not in tables]
    read += [node.name for node in nodes if isinstance(node, Scalar) and node.runtime]
    if read:
        allowed = "numbers, sizes, indices, params and their tables"
        raise text.error(f"{what} reads `{read[0]}`, which a call gives", allowed=allowed)
    if value.kind > item.kind:
        raise text.error(f"{what} does not fit its dtype")
    if more := value.axes - {*item.dims}:
        axes = ", ".join(sorted(more))
        raise text.error(f"{what} has the axes [{axes}], which the input has not")
    return value


__all__ = ["with_weights"]
