"""The kinds of field that a spec's document has, read from positioned YAML nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

from ....ir.errors import SpecError
from .positions import Block, Items, Node, Text, clip, shape_name


class Word(str):
    """A key with its place."""

    text: Text

    def __new__(cls, text: Text) -> Word:
        word = super().__new__(cls, text.value)
        word.text = text
        return word


def expected(node: object, what: str, do: str | None = None) -> SpecError:
    """The error for a node of the wrong shape."""
    assert isinstance(node, Text | Items | Block)
    return node.source.error(node.span, f"{shape_name(node)} where {what} is expected", do=do)


def _as_text(node: object) -> Text:
    if isinstance(node, Text):
        return node
    raise expected(node, "an expression or a name")


def as_items(node: object) -> tuple[Node, ...]:
    """The items of a list."""
    if isinstance(node, Items):
        return node.items
    raise expected(node, "a list", "write `[A, B]`, or lines that begin with `- `")


def as_pairs(node: object) -> dict[Word, Node]:
    """The pairs of a mapping, keys with their places."""
    if isinstance(node, Block):
        return {Word(key): value for key, value in node.pairs}
    raise expected(node, "a mapping", "write one `name: value` per line")


def _as_word(word: object) -> Word:
    assert isinstance(word, Word)
    return word


def _as_flag(node: object) -> bool:
    text = _as_text(node)
    if text.value not in ("true", "false"):
        raise text.error(f"`{clip(text.value)}` is no truth value", allowed="true, false")
    return text.value == "true"


def _as_whole(node: object) -> int:
    text = _as_text(node)
    if not (text.value.isascii() and text.value.isdecimal() and len(text.value) < 10):
        raise text.error(f"`{clip(text.value)}` is no whole number below 10^9")
    return int(text.value)


def _as_wholes(node: object) -> tuple[int, ...]:
    if isinstance(node, Items):
        return tuple(_as_whole(item) for item in node.items)
    return (_as_whole(node),)


def shape(what: str, *shapes: str) -> Callable[[object], str]:
    """What tells the members of a union apart: ``text``, ``items`` or ``block``."""

    def tag(node: object) -> str:
        found = {Text: "text", Items: "items"}.get(type(node), "block")
        if found not in shapes:
            raise expected(node, what)
        return found

    return tag


def line_shape(node: object) -> str:
    """What tells the lines of a step apart: ``text`` (an assignment) or ``block`` (a loop)."""
    if isinstance(node, Block) and node.pairs and node.pairs[0][0].value not in ("over", "step"):
        key = node.pairs[0][0]
        raise key.error(
            f"`{clip(key.value)}:` in a step",
            allowed="`name = expression`, or an inner loop {over: R, step: […]}",
            do=f"write `{clip(key.value)} = …`",
        )
    return shape("`name = expression`, or `{over: R, step: […]}`,", "text", "block")(node)


def attention_shape(node: object) -> str:
    """What tells attentions apart: ``parts`` (a list of them) or ``whole``."""
    keys = (key.value for key, _ in node.pairs) if isinstance(node, Block) else ()
    return "parts" if "parts" in keys else "whole"


Expression = Annotated[
    Text,
    PlainValidator(_as_text),
    WithJsonSchema({"type": ["string", "number", "boolean"], "description": "An expression."}),
]
Label = Annotated[Text, PlainValidator(_as_text), WithJsonSchema({"type": "string"})]
Axes = Annotated[
    tuple[Node, ...],
    PlainValidator(as_items),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": ["string", "integer"]},
            "description": "Axes in order: dims, products such as `G*R`, or 1.",
        }
    ),
]
Numbers = Annotated[
    tuple[Node, ...],
    PlainValidator(as_items),
    WithJsonSchema({"type": "array", "items": {"type": ["number", "string", "array"]}}),
]
Flag = Annotated[bool, PlainValidator(_as_flag), WithJsonSchema({"type": "boolean"})]
Whole = Annotated[int, PlainValidator(_as_whole), WithJsonSchema({"type": "integer"})]
Wholes = Annotated[
    tuple[int, ...],
    PlainValidator(_as_wholes),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}
    ),
]
Key = Annotated[Word, PlainValidator(_as_word), WithJsonSchema({"type": "string"})]
Expressions = Annotated[dict[Key, Expression], BeforeValidator(as_pairs)]
Sizes = Annotated[dict[Key, Whole], BeforeValidator(as_pairs)]


__all__ = [
    "Axes",
    "Expression",
    "Expressions",
    "Flag",
    "Key",
    "Label",
    "Numbers",
    "Sizes",
    "Whole",
    "Wholes",
    "Word",
    "as_items",
    "as_pairs",
    "expected",
    "line_shape",
    "shape",
]
