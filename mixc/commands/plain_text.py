"""Text on streams that lack characters, such as those of LANG=C: the nearest that they have."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from io import TextIOWrapper

# What pictures and messages use, as ASCII; letters lose their accents, and the rest is "?".
_NEAREST = {"█": "#", "▓": "%", "▒": "+", "░": ".", "▀": "'", "▄": "_", "│": "|", "─": "-"}
_NEAREST |= dict.fromkeys("┌┐└┘", "+") | {"±": "+-", "·": "*", "→": "->", "≤": "<=", "≥": ">="}
_NEAREST |= {"\u00d7": "x", "\u2212": "-", "\u2013": "-", "\u2014": "-"}  # times, minus, dashes
_NEAREST |= {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'}


def degrade_streams() -> None:
    """Let stdout and stderr write what they can't encode as the nearest that they can."""
    codecs.register_error("mixc.nearest", _nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors="mixc.nearest")


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """What is written in place of characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(in_ascii, error.object[error.start : error.end])), error.end


def in_ascii(character: str) -> str:
    """``ö`` --> ``o``, ``…`` --> ``...``, ``█`` --> ``#``."""
    if character in _NEAREST:
        return _NEAREST[character]
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


__all__ = ["degrade_streams", "in_ascii"]
