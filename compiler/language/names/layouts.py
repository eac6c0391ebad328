"""Axes in order, as inputs, outputs and annotations list them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType

from ....ir.expression import Expr, Span
from ....ir.mixer import AxisProduct, Layout
from ..text.positions import Node, Text, clip, shape_name
from ..text.source import Source, closest, listed
from ..text.surface import Name

BLOCKS = "BLOCK_"
BLOCK_NAMES = f"what begins with {BLOCKS} is a block size of a kernel"
_DIM = re.compile(r"[A-Z][A-Za-z0-9_]*")


def read_layout(items: tuple[Node, ...]) -> Layout:
    """``[B, T, G*R, 1]`` as products of dims.

    Raises:
        SpecError: something that is no capitalised name, or a dim twice.
    """
    seen: set[str] = set()
    layout = []
    for item in items:
        if not isinstance(item, Text):
            raise item.source.error(item.span, f"{shape_name(item)} where an axis is expected")
        product = _product(item)
        for dim in product:
            if dim in seen:
                raise item.error(
                    f"the axis {dim} is here twice", do="give the second one a name of its own"
                )
            seen.add(dim)
        layout.append(product)
    return tuple(layout)


def _product(item: Text) -> AxisProduct:
    if item.value.strip() == "1":
        return ()
    at, factors = 0, []
    for piece in item.value.split("*"):
        name = piece.strip()
        start = at + len(piece) - len(piece.lstrip())
        if not _DIM.fullmatch(name):
            raise item.source.error(
                item.part(start, start + len(name)) if name else item.span,
                f"`{clip(name)}` is no axis",
                allowed="a capitalised name (`B`), a product (`G*R`), or 1",
                do=f"write `{name.capitalize()}`" if name[:1].islower() else None,
            )
        if name.startswith(BLOCKS):
            raise item.error(f"`{clip(name)}`: {BLOCK_NAMES}", do="choose another name")
        factors.append(name)
        at += len(piece) + 1
    return tuple(factors)


def read_dim(text: Text) -> str:
    """A scalar that must be one dim."""
    name = text.value.strip()
    if not _DIM.fullmatch(name):
        raise text.error(
            f"`{clip(name)}` is no dim",
            allowed="a capitalised name such as `T`",
            do=f"write `{name.capitalize()}`" if name.isidentifier() else None,
        )
    if name.startswith(BLOCKS):
        raise text.error(f"`{clip(name)}`: {BLOCK_NAMES}", do="choose another name")
    return name


def known_dim(text: Text, known: Collection[str], do: str | None = None) -> str:
    """A scalar that must be one of the spec's dims; ``do`` is advice where none is nearly it."""
    name = read_dim(text)
    if name not in known:
        raise text.error(
            f"`{name}` is no dim of this spec",
            allowed=listed(sorted(known)),
            do=closest(name, known) or do,
        )
    return name


def known_axis(axis: Name, source: Source, known: Collection[str]) -> str:
    """An axis of an annotation, which must be one of the spec's dims."""
    if axis.name not in known:
        raise source.error(
            axis.span,
            f"`{axis.name}` is no dim of this spec",
            allowed=listed(sorted(known)),
            do=closest(axis.name, known),
        )
    return axis.name


def check_axes(
    what: str,
    value: Expr,
    declared: Collection[str],
    source: Source,
    span: Span | None,
    origin: str = "",
    heads: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Compare the axes of a value with those that the spec declares for it.

    Raises:
        SpecError: printing the axes found, and the sum that is probably missing.
    """
    extra = sorted(value.axes - set(declared))
    missing = sorted(set(declared) - value.axes)
    if not extra and not missing:
        return
    parts = []
    if extra:
        parts.append(f"{', '.join(extra)} should not be there")
    if missing:
        parts.append(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    found = f"{what} has the axes [{', '.join(sorted(value.axes))}]"
    raise source.error(
        span,
        f"{found}; {' and '.join(parts)}",
        allowed=f"[{', '.join(declared)}], as declared",
        do=_remedy(extra, missing, origin, heads),
    )


def _remedy(
    extra: list[str], missing: list[str], origin: str, heads: Mapping[str, str]
) -> str | None:
    if not extra:
        return None
    small = extra[0]
    if len(extra) == 1 and heads.get(small) in missing:
        large = heads[small]
        index = f"{large.lower()} // ({large} // {small})"
        return f"declare it with {small}, or read the groups per head: `x[{small}={index}]`"
    over = ", ".join(extra)
    return f"a sum over {over} is probably forgotten: `sum(…, {over})`{origin}"


__all__ = ["check_axes", "known_axis", "known_dim", "read_dim", "read_layout"]
