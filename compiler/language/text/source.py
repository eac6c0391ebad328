"""A spec's text, places in it, and the errors that show them."""

from __future__ import annotations

import bisect
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from ....ir.errors import SpecError
from ....ir.expression import Span

_WIDTH = 160  # of a shown line


@dataclass(frozen=True)
class Source:
    """The text of one spec file and the path it goes by."""

    path: str
    text: str

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(k + 1 for k, char in enumerate(self.text) if char == "\n")]

    def span(self, start: int, end: int) -> Span:
        """The place of the characters from ``start`` to before ``end``."""
        row = bisect.bisect_right(self._starts, start) - 1
        return Span(row + 1, start - self._starts[row] + 1, max(1, end - start))

    def line(self, number: int) -> str:
        """A line by its one-based number, without its end; unprintable characters replaced."""
        start = self._starts[number - 1]
        end = self.text.find("\n", start)
        raw = self.text[start : len(self.text) if end < 0 else end].rstrip("\r")
        return "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in raw)

    def excerpt(self, span: Span) -> str:
        """The line of a place with carets under it, cut around the place where it is long."""
        line = self.line(span.line)
        first = max(0, span.column - _WIDTH // 2) if len(line) > _WIDTH else 0
        shown = line[first : first + _WIDTH]
        column = span.column - 1 - first
        carets = "^" * max(1, min(span.length, len(shown) - column))
        number = str(span.line)
        return f"  {number} | {shown}\n  {' ' * len(number)} | {' ' * column}{carets}"

    def error(
        self, span: Span | None, found: str, *, allowed: str | None = None, do: str | None = None
    ) -> SpecError:
        """An error at a place: what was found, what is allowed, what to do."""
        place = span or Span(1, 1)
        lines = [f"{self.path}:{place.line}:{place.column}: {found}", self.excerpt(place)]
        if allowed:
            lines.append(f"  allowed: {allowed}")
        if do:
            lines.append(f"  {do}" if do.endswith("?") else f"  do: {do}")
        return SpecError("\n".join(lines), path=self.path, line=place.line, column=place.column)


def closest(word: str, known: Iterable[str]) -> str | None:
    """``did you mean ...?`` for the nearest of the known words, if one is near."""
    if len(word) > 64:
        return None
    names = sorted({name for name in known if len(name) <= 64})
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if not near and (same := [n for n in names if n.lower() == word.lower()]):
        near = same
    return f"did you mean `{near[0]}`?" if near else None


def listed(words: Iterable[str], limit: int = 24) -> str:
    """Words for a message, in order, the tail of a long list left off."""
    names = list(dict.fromkeys(words))
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")


__all__ = ["Source", "closest", "listed"]
