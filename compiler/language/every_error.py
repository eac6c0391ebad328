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
_UNKNOWN = re.compile(r"unknown (name|function) `(\w+)`")
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
            smaller = reading.with_word_known(document, error) or reading.without(document, error)
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
    guessed: set[tuple[tuple[int, int], tuple[int, int]]] = field(
        default_factory=set
    )  # where a known word stands in

    def follows(self, error: SpecError) -> bool:
        """Whether an error may come from an entry that was left out."""
        place = (error.line or 1, error.column or 1)
        if place in self.torn:
            return True
        if not _UNKNOWN.search(str(error)) and any(
            start <= place <= end for start, end in self.guessed
        ):
            return True
        word = _NAME.match(self.source.text.splitlines()[place[0] - 1][place[1] - 1 :])
        said = str(error).split("\n", 1)[0]
        named = set(re.findall(r"`(\w+)`", said)) | ({word.group()} if word else set())
        return not self.missed.isdisjoint(named) or (
            "axes" in said and not self.narrowed.isdisjoint(named)
        )

    def with_word_known(self, node: Block, error: SpecError) -> Block | None:
        """The document with a known word in the place of an unknown one, so that the others of an
        expression are told; None where the error is another, or follows from one before."""
        unknown = _UNKNOWN.search(str(error))
        if unknown is None or self.follows(error):
            return None
        known = self._with_word_known(node, (error.line or 1, error.column or 1), unknown.group(2))
        return known if isinstance(known, Block) and known is not node else None

    def _with_word_known(self, node: Node, place: tuple[int, int], word: str) -> Node:
        at = None if isinstance(node, Text) else _entry_at(node, place)
        if at is None or isinstance(node, Text):
            return node
        key, child = _entry(node, at)
        if isinstance(child, Text):
            known: Node = _known_word(child, place, word)
            if known is child:
                return node
            self._guess(node, key, child)
        else:
            known = self._with_word_known(child, place, word)
        return node if known is child else _with_entry(node, at, known)

    def _guess(self, node: Node, key: str, child: Text) -> None:
        """Note that a value has a word of ours: it may lack axes, and what is made of it too."""
        last = child.part(len(child.value) - 1, len(child.value))
        begin = child.span.line, child.span.column
        self.guessed.add((begin, (last.line, last.column)))
        made = _NAME.match(child.value if not key or key in _MAKING else key)
        doubtful = [made.group()] if made else []
        if isinstance(node, Block):  # a clause of a form, which makes others
            makers = (_texts(value) for name, value in node.pairs if name.value in _MAKING)
            doubtful += _NAME.findall(" ".join(text for maker in makers for text in maker))
        for name in doubtful:
            self.narrowed |= {*_made_of(name, self.source.text)}
        self._doubt(node, child)

    def without(self, node: Node, error: SpecError, path: tuple[str, ...] = ()) -> Block | None:
        """The document without the innermost entry at the place of an error, if there is one."""
        smaller = self._without(node, (error.line or 1, error.column or 1), path)
        return smaller if isinstance(smaller, Block) and smaller is not node else None

    def _without(self, node: Node, place: tuple[int, int], path: tuple[str, ...]) -> Node | None:
        """The node without its innermost part at the place; None: without the node itself."""
        if isinstance(node, Text) or (isinstance(node, Items) and path[-1] not in _LISTS):
            return None
        at = _entry_at(node, place)
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
            self.torn.add(_starts(node)[at])
        return _with_entry(node, at, smaller)

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


def _starts(node: Block | Items) -> list[tuple[int, int]]:
    """Where the entries of a node begin."""
    heads = [key for key, _ in node.pairs] if isinstance(node, Block) else node.items
    return [(head.span.line, head.span.column) for head in heads]


def _entry_at(node: Block | Items, place: tuple[int, int]) -> int | None:
    """The number of the last entry that begins at a place or before it."""
    numbers = (n for n, start in reversed([*enumerate(_starts(node))]) if start <= place)
    return next(numbers, None)


def _entry(node: Block | Items, at: int) -> tuple[str, Node]:
    if isinstance(node, Block):
        return node.pairs[at][0].value, node.pairs[at][1]
    return "", node.items[at]


def _with_entry(node: Block | Items, at: int, value: Node | None) -> Block | Items:
    """The node with another value of an entry; None: without the entry."""
    kept = () if value is None else (value,)
    if isinstance(node, Items):
        return Items(node.source, node.span, (*node.items[:at], *kept, *node.items[at + 1 :]))
    pairs = tuple((node.pairs[at][0], one) for one in kept)
    return Block(node.source, node.span, (*node.pairs[:at], *pairs, *node.pairs[at + 1 :]))


def _known_word(text: Text, place: tuple[int, int], word: str) -> Text:
    """The scalar with a number, or a function that is, in the place of an unknown word: as many
    characters, so that all others stay where they are."""
    for match in re.finditer(rf"\b{word}\b(\[[^\]]*\])?( *\()?", text.value):
        span = text.part(match.start(), match.end())
        if (span.line, span.column) != place:
            continue
        width = len(match.group().removesuffix(match.group(2) or ""))
        stand_in = "abs" if match.group(2) else "1"
        if len(stand_in) > width:
            return text
        changed = (
            text.value[: match.start()]
            + stand_in.ljust(width)
            + text.value[match.start() + width :]
        )
        return Text(text.source, changed, text.offsets, text.flow)
    return text


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
