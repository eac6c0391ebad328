"""Text to tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ....ir.errors import SpecError
from ....ir.expression import Span
from .positions import Text, clip

MAX_INTEGER = 2**63 - 1
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<op>\*\*|//|<=|>=|==|!=|[-+*/%<>=()\[\],])"
)
# What people write from habit, and what to write here.
_INSTEAD = {
    "^": "a power is `**`",
    "&": "write `and`",
    "|": "write `or`",
    "!": "write `not`, or `!=`",
    "~": "write `not`",
    "?": "write `where(condition, a, b)`",
    ":": "read with `x[T=index]`; there are no slices",
    ".": "there are no attributes or methods; call the function: `exp(x)`",
    "@": "a matrix product is `sum(a * b, D)`",
    "'": "there are no strings in expressions",
    '"': "there are no strings in expressions",
    "{": "there are no braces in expressions",
    ";": "one expression only",
    "\u2264": "write `<=`",
    "\u2265": "write `>=`",
    "\u2260": "write `!=`",
    "\u00b7": "write `*`",
    "\u00d7": "write `*`",
    "\u2212": "write `-`",
    "\u221a": "write `sqrt(x)`",
    "\u03c0": "write `pi`",
    "\u221e": "write `inf`",
    "#": "a comment needs a space before the `#`",
}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an expression; ``kind`` is number, name, op or end."""

    kind: str
    text: str
    start: int
    end: int
    span: Span
    value: int | float = 0


def tokenize(text: Text) -> list[Token]:
    """The tokens of a scalar, with an end token.

    Raises:
        SpecError: a character or number that the language does not have.
    """
    found: list[Token] = []
    at = 0
    while at < len(text.value):
        match = _TOKEN.match(text.value, at)
        if match is None:
            raise _unexpected(text, at)
        kind = match.lastgroup or ""
        at = match.end()
        if kind != "space":
            found.append(_token(text, kind, match))
    end = len(text.value.rstrip())
    return [*found, Token("end", "", end, end, text.part(end, end))]


def _token(text: Text, kind: str, match: re.Match[str]) -> Token:
    start, end, word = match.start(), match.end(), match.group()
    span = text.part(start, end)
    if kind == "number":
        after = text.value[end : end + 1]
        if after.isalpha() or after in ("_", "."):
            raise text.source.error(span, f"`{clip(word + after)}` is not a number")
        return Token(kind, word, start, end, span, _number(text, word, span))
    if kind == "name" and len(word) > 64:
        raise text.source.error(span, "this name is too long", allowed="at most 64 characters")
    return Token(kind, word, start, end, span)


def _number(text: Text, word: str, span: Span) -> int | float:
    if len(word) > 40:
        raise text.source.error(span, "this number is too long", allowed="at most 40 characters")
    value: int | float = int(word) if word.isdecimal() else float(word)
    if isinstance(value, int) and value > MAX_INTEGER:
        raise text.source.error(span, f"{word} is too large", allowed=f"at most {MAX_INTEGER}")
    if value == float("inf"):
        raise text.source.error(span, f"{word} is too large", do="write `inf` for infinity")
    return value


def _unexpected(text: Text, at: int) -> SpecError:
    char = text.value[at]
    shown = char if char.isprintable() else f"\\x{ord(char):02x}"
    return text.source.error(
        text.part(at, at + 1), f"`{shown}` has no meaning in an expression", do=_INSTEAD.get(char)
    )


__all__ = ["MAX_INTEGER", "Token", "tokenize"]
