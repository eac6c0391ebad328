"""Every independent error of a spec: each faulty entry is left out, and the rest is read again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...ir.errors import SpecError
from .load import load_document
from .text.compose import read_document
from .text.positions import Block, Items, Node, Text
from .text.source import Source

MOST = 20
_NAME = re.compile(r"[A-Za-z_]\w*")
_MADE = re.compile(r"([A-Za-z_]\w*)(?:\[[^\]]*\])? ?[=:](?!=)(.+)")
_DIM = re.compile(r"\b[A-Z]\w*")
_MAKING = frozenset({"lse", "weights", "output", "list"})  # keys whose value is a name
_LISTS = frozenset({"stages", "step", "parts"})  # whose items stand for themselves
_FORMS = frozenset({"attention", "recurrence", "select", "convolution", "map", "stages"})
_EXPRESSIONS = _FORMS | {"let", "define"}
# What stands in for a faulty value that a form can't be read without, so that the rest of it is
# read: by where the entry is, and its key where only that one is meant.
_STAND_INS = {
    ("params", None): "1",
    ("attention", "score"): "0",
    ("parts", "score"): "0",
    ("select", "score"): "0",
    ("convolution", "kernel"): "0",
}


def every_error(text: str, path: str = "<text>") -> list[SpecError]:
    """The errors of a spec in the order of their lines; none where it can be read.

    What only follows from another error is left out: an entry that reads a faulty one's name.
    """
    source = Source(path, text)
    try:
        document = read_document(source)
    except SpecError as error:
        return [error]
    found: list[SpecError] = []
    reading = _Reading(source)
    for _ in range(4 * MOST):
        try:
            load_document(document, source)
            break
        except SpecError as error:
            if not reading.follows(error):
                found.append(error)
            smaller = reading.without(document, error)
            if smaller is None or len(found) >= MOST:
                break
            document = smaller
    return sorted(found, key=lambda error: (error.line or 0, error.column or 0))


@dataclass
class _Reading:
    """What has been left out so far, and what may therefore be missed."""

    source: Source
    missed: set[str] = field(default_factory=set)  # names that it would have made
    torn: set[tuple[int, int]] = field(default_factory=set)  # places of what it was left out of
    narrowed: set[str] = field(default_factory=set)  # names that may lack axes

    def follows(self, error: SpecError) -> bool:
        """Whether an error may come from an entry that was left out."""
        place = (error.line or 1, error.column or 1)
        if place in self.torn:
            return True
        word = _NAME.match(self.source.text.splitlines()[place[0] - 1][place[1] - 1 :])
        said = str(error).split("\n", 1)[0]
        named = set(re.findall(r"`(\w+)`", said)) | ({word.group()} if word else set())
        return not self.missed.isdisjoint(named) or (
            "axes" in said and not self.narrowed.isdisjoint(named)
        )

    def without(self, node: Node, error: SpecError, path: tuple[str, ...] = ()) -> Block | None:
        """The document without the innermost entry at the place of an error, if there is one."""
        smaller = self._without(node, (error.line or 1, error.column or 1), path)
        return smaller if isinstance(smaller, Block) and smaller is not node else None

    def _without(self, node: Node, place: tuple[int, int], path: tuple[str, ...]) -> Node | None:
        """The node without its innermost part at the place; None: without the node itself."""
        if isinstance(node, Text) or (isinstance(node, Items) and path[-1] not in _LISTS):
            return None
        parts = _parts(node)
        at = next((n for n, (_, start) in reversed([*enumerate(parts)]) if start <= place), None)
        if at is None:
            return None
        key, child = _entry(node, at)
        smaller = self._without(child, place, (*path, key))
        self.torn.add((node.span.line, node.span.column))
        if smaller is None and (smaller := _stand_in(child, path, key)) is not None:
            self._doubt(node, child)
        if smaller is None:
            self._miss(key, child, path)
        else:
            self.torn.add(parts[at][1])
        if isinstance(node, Block):
            pairs = node.pairs
            kept = () if smaller is None else ((pairs[at][0], smaller),)
            return Block(node.source, node.span, (*pairs[:at], *kept, *pairs[at + 1 :]))
        kept_items = () if smaller is None else (smaller,)
        return Items(node.source, node.span, (*node.items[:at], *kept_items, *node.items[at + 1 :]))

    def _doubt(self, form: Node, child: Node) -> None:
        """What stands in lacks the axes of what it stands for: so may what the form runs over, and
        what is made of a step's line."""
        if isinstance(form, Block):
            spans = [value.span for key, value in form.pairs if key.value in ("over", "lag")]
            self.torn |= {(span.line, span.column) for span in spans}
        elif isinstance(child, Text) and (name := _NAME.match(child.value)):
            self.missed.add(name.group())
            self.narrowed |= {*_made_of(name.group(), self.source.text)}

    def _miss(self, key: str, child: Node, path: tuple[str, ...]) -> None:
        """Note the names that an entry makes: its key's, those of a step's line, its dims."""
        texts = [*_texts(child)]
        made = [key] if key and key not in _MAKING else texts[:1]
        if not isinstance(child, Text):
            made = [key, *texts]
        self.missed |= {match.group() for text in made if (match := _NAME.match(text))}
        if path[:1] and path[0] not in _EXPRESSIONS:
            self.missed |= {dim for text in texts for dim in _DIM.findall(text)}


def _parts(node: Block | Items) -> list[tuple[str, tuple[int, int]]]:
    """The entries of a node with where they begin."""
    if isinstance(node, Block):
        return [(k.value, (k.span.line, k.span.column)) for k, _ in node.pairs]
    return [("", (item.span.line, item.span.column)) for item in node.items]


def _entry(node: Block | Items, at: int) -> tuple[str, Node]:
    if isinstance(node, Block):
        return node.pairs[at][0].value, node.pairs[at][1]
    return "", node.items[at]


def _stand_in(child: Node, path: tuple[str, ...], key: str) -> Text | None:
    """What a form needs in the place of a faulty value; None where it can do without."""
    form = next((name for name in reversed(path) if name), "")  # an item has no name
    if form == "step" and not key and isinstance(child, Text):
        name = _NAME.match(child.value)  # a state stays what it is
        kept = f"{name.group()} = {name.group()}" if name else ""
        if not kept or kept == child.value:
            return None
        offsets = [*child.offsets, *[child.offsets[-1]] * len(kept)]
        return Text(child.source, kept, offsets[: len(kept) + 1], child.flow)
    value = _STAND_INS.get((form, key), _STAND_INS.get((form, None)))
    if not isinstance(child, Text) or value in (None, child.value):
        return None
    return Text(child.source, value, child.offsets[: len(value) + 1], child.flow)


def _made_of(name: str, text: str) -> Iterator[str]:
    """The names whose lines mention a name, or one that is made of it."""
    lines = [(made, set(_NAME.findall(value))) for made, value in _MADE.findall(text)]
    pending, seen = [name], {name}
    while pending:
        one = pending.pop()
        yield one
        more = {made for made, mentioned in lines if one in mentioned} - seen
        seen |= more
        pending += sorted(more)


def _texts(node: Node) -> Iterator[str]:
    """The scalars of a node."""
    match node:
        case Text():
            yield node.value
        case Items():
            for item in node.items:
                yield from _texts(item)
        case Block():
            for key, value in node.pairs:
                yield key.value
                yield from _texts(value)


__all__ = ["every_error"]
