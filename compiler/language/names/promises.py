"""What an input's declaration says of its values: where they lie, or that vectors have length 1.

A promise about the tensors that are drawn to check and time a mixer; kernels don't count on it.
"""

from __future__ import annotations

from dataclasses import replace

from ....ir.expression import Expr, Kind
from ....ir.mixer import Input
from ..schema import InputSpec, SpecDocument
from ..text.positions import Text, clip
from ..text.source import listed
from .constants import constant
from .definitions import check_host, resolve
from .inputs import declared_input
from .scope import Scope


def with_promises(spec: SpecDocument, inputs: tuple[Input, ...], scope: Scope) -> tuple[Input, ...]:
    """The inputs with their ``range`` and ``unit``; params are known by now.

    Raises:
        SpecError: a range without room, or of an input that is true or false; an axis that there
            is not.
    """
    return tuple(
        _promising(item, full, scope) if isinstance(full, InputSpec) else item
        for item, full in ((item, declared_input(spec, item.name)) for item in inputs)
    )


def _promising(item: Input, full: InputSpec, scope: Scope) -> Input:
    if full.range is not None:
        item = replace(item, range=_range(item, full, scope))
    if full.unit is not None:
        item = replace(item, unit=_unit(item, full, full.unit))
    return item


def _range(item: Input, full: InputSpec, scope: Scope) -> tuple[Expr, Expr]:
    key, ends = full.key("range"), full.range or ()
    form = "`range: [low, high]`, each a number or an expression in params, or `inf`"
    if item.kind is Kind.BOOL:
        raise key.error(f"`{item.name}` is true or false, and has no range")
    if len(ends) != 2:
        raise key.error(f"a range of {len(ends)} numbers", allowed=form)
    low, high = (_end(item, end, key, scope) for end in ends)
    known = constant(low), constant(high)
    if known[0] is not None and known[1] is not None and not known[0] < known[1]:
        raise key.error(f"the range of `{item.name}` is empty", do="write the lower end first")
    return low, high


def _end(item: Input, end: object, key: Text, scope: Scope) -> Expr:
    if not isinstance(end, Text):
        raise key.error(f"an end of the range of `{item.name}` is no number")
    value = resolve(f"range of {item.name}", end, scope)
    check_host(f"the range of `{item.name}`", end, value)
    return value


def _unit(item: Input, full: InputSpec, text: Text) -> str | None:
    if text.value == "false":
        return None
    allowed = listed(["true", *item.dims])
    if item.kind is not Kind.REAL or not item.dims:
        raise text.error(
            f"`{item.name}` has no vectors of length 1", allowed="real inputs with axes"
        )
    if full.range is not None:
        raise text.error(f"`{item.name}` has a range already: vectors of length 1 have theirs")
    if text.value == "true":
        return item.dims[-1]
    if text.value not in item.dims:
        raise text.error(
            f"`{item.name}` has no axis `{clip(text.value)}`",
            allowed=allowed,
            do="`unit: true` is along the last axis",
        )
    return text.value


__all__ = ["with_promises"]
