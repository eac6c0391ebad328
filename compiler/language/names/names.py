"""The names that a spec declares."""

from __future__ import annotations

import re

from ....ir.expression import Span
from ..schema import Word
from ..text.grammar import OPERATORS
from ..text.positions import Text, clip
from .layouts import BLOCK_NAMES, BLOCKS
from .scope import Context, Scope

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_LENGTH = 64
_WORDS = frozenset({*"inf pi true false True False None".split(), *OPERATORS})


def check_name(text: Text, name: str, context: Context, span: Span | None = None) -> str:
    """A name that a spec declares.

    Raises:
        SpecError: not a name, a word of the grammar, or the name of a dim.
    """
    place = span or text.span
    if not NAME.fullmatch(name) or len(name) > MAX_LENGTH:
        raise context.error(
            place, f"`{clip(name)}` is no name", allowed="letters, digits and _, a letter first"
        )
    if name in _WORDS:
        found = f"`{name}` is a word of the language"
        raise context.error(place, found, do="choose another name")
    if name.startswith(BLOCKS):
        raise context.error(place, f"`{name}`: {BLOCK_NAMES}", do="choose another name")
    if name in context.dims.known:
        raise context.error(
            place,
            f"`{name}` is a dim of this spec and can't be declared",
            do="rename one of the two",
        )
    return name


def declare(name: Word, scope: Scope) -> str:
    """A key as a new name in ``scope``."""
    word = check_name(name.text, str(name), scope.context)
    if word in scope.names:
        raise name.text.error(f"`{word}` is declared twice", do="rename one of the two")
    return word


__all__ = ["MAX_LENGTH", "NAME", "check_name", "declare"]
