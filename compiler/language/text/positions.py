"""What a spec's YAML consists of: nodes that know their places; scalars stay text."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.errors import SpecError
from ....ir.expression import Span
from .source import Source

# What to do where a comma or a bracket broke a flow mapping.
QUOTE = (
    "put quotes around the expression, or write the mapping as a block "
    "(one `key: value` per line, without braces)"
)


class Text:
    """A scalar as written, with the source offset of each of its characters."""

    def __init__(self, source: Source, value: str, offsets: list[int], flow: bool) -> None:
        self.source, self.value, self.offsets, self.flow = source, value, offsets, flow

    @property
    def span(self) -> Span:
        """The place of the whole scalar."""
        return self.part(0, len(self.value))

    def part(self, start: int, end: int) -> Span:
        """The place of the characters ``start`` to before ``end`` of the value."""
        last = self.offsets[max(start, end - 1)] + 1 if end > start else self.offsets[start]
        return self.source.span(self.offsets[start], last)

    def error(self, found: str, *, allowed: str | None = None, do: str | None = None) -> SpecError:
        """An error at the whole scalar."""
        return self.source.error(self.span, found, allowed=allowed, do=do)


@dataclass(frozen=True, eq=False)
class Items:
    """A sequence."""

    source: Source
    span: Span
    items: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """A mapping; keys are scalars, each once."""

    source: Source
    span: Span
    pairs: tuple[tuple[Text, Node], ...]


Node = Text | Items | Block


def broken_flow(text: Text) -> SpecError:
    """The error for an entry that a comma inside an expression has cut off."""
    return text.error(
        f"`{clip(text.value)}` has no value: a comma or bracket inside an expression ends the "
        "entry of a flow mapping {…}",
        allowed="expressions without commas and brackets inside a flow mapping",
        do=QUOTE,
    )


def clip(word: str, width: int = 60) -> str:
    """A word from a spec, short and printable enough for a message."""
    shown = "".join(c if c.isprintable() else " " for c in word)
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def shape_name(node: Node) -> str:
    """What a node is, in words."""
    match node:
        case Text():
            return f"`{clip(node.value)}`"
        case Items():
            return "a list"
        case Block():
            return "a mapping"


__all__ = ["QUOTE", "Block", "Items", "Node", "Text", "broken_flow", "clip", "shape_name"]
