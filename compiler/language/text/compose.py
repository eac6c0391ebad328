"""YAML text to nodes with places, within limits on size and depth.

The events of PyYAML's own parser are put together here, so that no tag, alias or implicit type
of YAML ever takes effect.
"""

from __future__ import annotations

import re

import yaml

from ....ir.errors import SpecError
from ....ir.expression import Span
from .positions import QUOTE, Block, Items, Node, Text, broken_flow, clip, shape_name
from .source import Source

MAX_CHARACTERS = 64 * 1024
MAX_DEPTH = 16
# The parser reads far ahead through brackets that open one another; no spec has so many.
_BRACKETS = re.compile(r"(?:[\[{]\s*){40}")


def read_document(source: Source) -> Block:
    """The one mapping that a spec consists of.

    Raises:
        SpecError: no YAML, more than one document, not a mapping, aliases, tags, a key twice,
            or beyond the limits on size and depth.
    """
    if len(source.text) > MAX_CHARACTERS:
        raise source.error(
            Span(1, 1),
            f"the spec has {len(source.text)} characters",
            allowed=f"at most {MAX_CHARACTERS}",
        )
    if run := _BRACKETS.search(source.text):
        raise source.error(
            source.span(run.start(), run.start() + 1),
            "nested too deeply",
            allowed=f"at most {MAX_DEPTH} levels",
        )
    loader = None
    try:
        loader = yaml.SafeLoader(source.text)
        return _Composer(source, loader).document()
    except yaml.reader.ReaderError as error:
        found = f"the character U+{ord(source.text[error.position]):04X} is not allowed"
        span = source.span(error.position, error.position + 1)
        raise source.error(span, found) from None
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(source, error) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a number or escape of YAML's
        start = min(loader.index if loader else 0, len(source.text))
        found = f"not readable as YAML: {clip(str(error))}"
        raise source.error(source.span(start, start + 1), found) from None


def _yaml_error(source: Source, error: yaml.MarkedYAMLError) -> SpecError:
    mark = error.problem_mark or error.context_mark
    if error.context == "while scanning a quoted scalar" and error.context_mark is not None:
        mark = error.context_mark  # the quote that opens it, not the end of the file
    start = min(mark.index, len(source.text)) if mark else 0
    span = source.span(start, start + 1)
    context = error.context or ""
    if "flow" in context and error.context_mark is not None:
        opened = source.span(error.context_mark.index, error.context_mark.index + 1)
        char = source.text[start : start + 1].strip()
        found = f"`{char}` breaks" if char else "something breaks"
        kind = "mapping {…}" if "mapping" in context else "sequence […]"
        return source.error(
            span,
            f"{found} the flow {kind} that begins at {opened.line}:{opened.column}",
            allowed="no comma, bracket or brace in an expression inside a flow mapping or sequence",
            do=QUOTE,
        )
    found = f"not readable as YAML: {error.problem}" + (f", {context}" if context else "")
    return source.error(span, found, do="check the indentation, quotes and colons around here")


class _Composer:
    """Events of the YAML parser to nodes."""

    def __init__(self, source: Source, loader: yaml.SafeLoader) -> None:
        self.source, self.loader = source, loader
        self.flow = 0

    def next(self) -> yaml.Event:
        event: yaml.Event = self.loader.get_event()  # type: ignore[no-untyped-call]
        return event

    def document(self) -> Block:
        self.next()  # the stream begins
        event = self.next()
        if isinstance(event, yaml.StreamEndEvent):
            raise self.source.error(
                Span(1, 1), "the spec is empty", do="begin with `mixer: NAME`; see `mixc new`"
            )
        node = self.node(self.next(), 0)
        self.next()  # the document ends
        if not isinstance(event := self.next(), yaml.StreamEndEvent):
            raise self.error(event, "a second YAML document", allowed="one document per file")
        if not isinstance(node, Block):
            raise self.source.error(
                node.span,
                f"a spec is a mapping; this is {shape_name(node)}",
                do="begin with `mixer: NAME` and one `key: value` per line",
            )
        return node

    def error(self, event: yaml.Event, found: str, **more: str) -> SpecError:
        start, end = _extent(event)
        return self.source.error(self.source.span(start, max(start + 1, end)), found, **more)

    def node(self, event: yaml.Event, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.error(event, "nested too deeply", allowed=f"at most {MAX_DEPTH} levels")
        self.check_plain(event)
        match event:
            case yaml.ScalarEvent():
                return self.scalar(event)
            case yaml.SequenceStartEvent():
                return self.items(event, depth)
            case yaml.MappingStartEvent():
                return self.block(event, depth)
        raise self.error(event, "not readable as YAML")

    def check_plain(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self.error(
                event,
                "YAML anchors and aliases are not allowed",
                do="name the expression in `let:`",
            )
        if (tag := getattr(event, "tag", None)) not in (None, "!"):
            raise self.error(event, f"YAML tags are not allowed, this is `{clip(str(tag))}`")

    def span(self, event: yaml.Event) -> Span:
        start, _ = _extent(event)
        return self.source.span(start, start + 1)

    def items(self, event: yaml.SequenceStartEvent, depth: int) -> Items:
        self.flow += bool(event.flow_style)
        found = []
        while not isinstance(item := self.next(), yaml.SequenceEndEvent):
            found.append(self.node(item, depth + 1))
        self.flow -= bool(event.flow_style)
        return Items(self.source, self.span(event), tuple(found))

    def block(self, event: yaml.MappingStartEvent, depth: int) -> Block:
        self.flow += bool(event.flow_style)
        pairs: dict[str, tuple[Text, Node]] = {}
        while not isinstance(key_event := self.next(), yaml.MappingEndEvent):
            key = self.node(key_event, depth + 1)
            if not isinstance(key, Text):
                raise self.error(key_event, f"a key is a name; this is {shape_name(key)}")
            value = self.node(self.next(), depth + 1)
            self.check_pair(key, value, pairs, bool(event.flow_style))
            pairs[key.value] = (key, value)
        self.flow -= bool(event.flow_style)
        return Block(self.source, self.span(event), tuple(pairs.values()))

    def check_pair(
        self, key: Text, value: Node, pairs: dict[str, tuple[Text, Node]], flow: bool
    ) -> None:
        if isinstance(value, Text) and not value.value.strip():
            if flow:
                raise broken_flow(key)
            raise key.error(f"`{clip(key.value)}` has no value", do="write one after the colon")
        if key.value in pairs:
            first = pairs[key.value][0].span
            raise key.error(f"`{clip(key.value)}` is here twice; first in line {first.line}")

    def scalar(self, event: yaml.ScalarEvent) -> Text:
        start, end = _extent(event)
        offsets = _offsets(self.source.text, event.value, start, end, event.style)
        return Text(self.source, event.value, offsets, self.flow > 0 and event.style is None)


def _extent(event: yaml.Event) -> tuple[int, int]:
    assert event.start_mark is not None
    assert event.end_mark is not None
    return event.start_mark.index, event.end_mark.index


def _offsets(text: str, value: str, start: int, end: int, style: str | None) -> list[int]:
    """The offset in ``text`` of each character of a scalar's value, and of its end."""
    at = start
    if style in ("|", ">"):
        line_end = text.find("\n", start)
        at = end if line_end < 0 else line_end + 1
    elif style is not None:
        at = start + 1
    found = []
    for char in value:
        place = at if char.isspace() else _seek(text, char, at, end)
        found.append(min(place, len(text)))
        at = place + 1 if text[place : place + 1] == char else place
    return [*found, max(found[-1] + 1, start) if found else start]


def _seek(text: str, char: str, at: int, end: int) -> int:
    """The next place of ``char``, over the spaces, quotes and escapes that YAML takes out."""
    place = at
    while place < end and text[place] != char and (text[place].isspace() or text[place] in "\\'"):
        place += 1
    if text[place : place + 1] == char:
        return place
    near = text.find(char, at, min(end, at + 12))  # past an escape sequence
    return at if near < 0 else near


__all__ = ["MAX_CHARACTERS", "MAX_DEPTH", "read_document"]
