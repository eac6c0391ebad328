"""Python as it is written: expressions that know their parts, on one line or on several."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

WIDEST = 100
# Python's precedence, as far as emitted expressions use it. WORDS: `if` and `else`, `and`, `or`,
# `not`. QUOTIENT: what ends in `/`, `//` or `%`, and so can't stand right of a `*` as it is.
WORDS, COMPARE, OR, AND, SUM, QUOTIENT, PRODUCT, UNARY, POWER, ATOM = range(10)
_LEVELS = {"|": OR, "&": AND, "+": SUM, "-": SUM, "*": PRODUCT}
_LEVELS |= dict.fromkeys(("/", "//", "%"), QUOTIENT)
_LEVELS |= dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), COMPARE)

# The signs of elementwise functions; of tensors, `&` and `|` say what words say of numbers.
SIGNS: Mapping[str, str] = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floordiv": "//",
    "mod": "%",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
}
LOGIC: Mapping[str, str] = {"and": "&", "or": "|"}


@dataclass(frozen=True, slots=True)
class Text:
    """An expression: its code on one line, its precedence, and the variables that it reads.

    One with ``parts`` can be broken: ``opens`` and ``closes`` then have lines of their own and so
    has each part, behind its sign where it is an operand, before a comma where it is not.
    """

    code: str
    level: int = ATOM
    reads: frozenset[str] = frozenset()
    parts: tuple[Text, ...] = ()
    signs: tuple[str, ...] = ()
    opens: str = "("
    closes: str = ")"

    def at(self, level: int) -> Text:
        """The expression, in parentheses if it binds weaker than ``level``."""
        if self.level >= level:
            return self
        whole = replace(self, code=f"({self.code})", level=ATOM)
        if self.level < UNARY:  # what is broken has its parentheses then anyway
            return whole
        return replace(whole, opens=f"({self.opens}", closes=f"{self.closes})")

    def then(self, suffix: str) -> Text:
        """What an attribute, a method or an index makes of it."""
        whole = self.at(ATOM)
        return replace(whole, code=f"{whole.code}{suffix}", closes=f"{whole.closes}{suffix}")

    def method(self, function: str, *args: Text | str | int, **keywords: Text | str | int) -> Text:
        """A call of a method; it is broken in what it is called on, if that can be."""
        return self._before(call(f".{function}", *args, **keywords))

    def item(self, places: Sequence[Text]) -> Text:
        """What stands at places along the first axes; broken as a method is."""
        return self._before(listed(places, "[", "]"))

    def _before(self, given: Text) -> Text:
        made = self.then(given.code) if self.parts else given.behind(self.at(ATOM).code, ATOM)
        return replace(made, reads=self.reads | given.reads)

    def behind(self, prefix: str, level: int = UNARY) -> Text:
        """The expression behind a sign, or behind its keyword."""
        whole = self.at(level)
        code, opens = f"{prefix}{whole.code}", f"{prefix}{whole.opens}"
        return replace(whole, code=code, opens=opens, level=level)

    def lines(self, indent: int, before: str = "", after: str = "") -> list[str]:
        """The lines between ``before`` and ``after``, all at an indent that they leave out."""
        flat = f"{before}{self.code}{after}"
        if indent + len(flat) <= WIDEST:
            return [flat]
        if self.parts:
            inner = [f"    {line}" for line in self._inner(indent + 4)]
            return [before + self.opens, *inner, self.closes + after]
        fits = before and indent + 4 + len(self.code) <= WIDEST
        return [f"{before}(", f"    {self.code}", f"){after}"] if fits else [flat]

    def _inner(self, indent: int) -> list[str]:
        """The parts, on lines of their own; operands on one where they fit."""
        if not self.signs:
            return [line for part in self.parts for line in part.lines(indent, after=",")]
        whole = _chained(self.parts, self.signs)
        if indent + len(whole) <= WIDEST:
            return [whole]
        pairs = zip(self.parts, self.signs, strict=True)
        return [line for part, sign in pairs for line in part.lines(indent, sign)]


def statement(value: Text, depth: int, before: str = "", after: str = "") -> list[str]:
    """The lines of a statement: ``before`` may be ``x = ``, ``return `` or ``for n in ``."""
    return ["    " * depth + line for line in value.lines(4 * depth, before, after)]


def name(variable: str) -> Text:
    """A variable."""
    return Text(variable, ATOM, frozenset({variable}))


def call(function: str, *args: Text | str | int, **keywords: Text | str | int) -> Text:
    """A call; what is no expression yet reads nothing and stays on one line."""
    given = [_text(arg) for arg in args]
    given += [_text(value).behind(f"{key}=", WORDS) for key, value in keywords.items()]
    return listed(given, f"{function}(", ")")


def listed(items: Sequence[Text], opens: str = "(", closes: str = ")") -> Text:
    """Items with commas between, in brackets."""
    several = ", ".join(item.code for item in items)
    return Text(f"{opens}{several}{closes}", ATOM, _reads(items), tuple(items), (), opens, closes)


def several(items: Sequence[Text]) -> Text:
    """Values with commas between, in brackets where they take several lines; a single one as is."""
    if len(items) == 1:
        return items[0]
    return replace(listed(items), code=", ".join(item.code for item in items), level=WORDS)


def joined(pattern: str, operands: Sequence[Text], level: int = ATOM) -> Text:
    """Operands in the places of a pattern, on one line."""
    return Text(pattern.format(*(x.code for x in operands)), level, _reads(operands))


def infix(left: Text, sign: str, right: Text, regroup: bool = False) -> Text:
    """Two operands, each in the parentheses that it needs; a sum of sums is one chain.

    With ``regroup``, ``a + (b + c)`` may be ``a + b + c``, which is rounded otherwise.
    """
    level = _LEVELS[sign]
    product = level in (PRODUCT, QUOTIENT)
    left = left.at(OR if level == COMPARE else QUOTIENT if product else level)
    whole = left.level if product and left.level == QUOTIENT else level
    stronger = UNARY if product else level + 1
    right = right.at(level if regroup and sign in "|&+*" else stronger)
    (parts, signs), (more, later) = _chain(left, level), _chain(right, level)
    parts, signs = (*parts, *more), (*signs, f"{sign} ", *later[1:])
    return Text(_chained(parts, signs), whole, left.reads | right.reads, parts, signs)


def chain(sign: str, operands: Sequence[Text]) -> Text:
    """Operands with the same sign between all of them; a single one as it is."""
    first, *rest = operands
    for operand in rest:
        first = infix(first, sign, operand)
    return first


def _chain(text: Text, level: int) -> tuple[tuple[Text, ...], tuple[str, ...]]:
    """The operands and signs of a chain that goes on at a level, else the text as an operand."""
    same = text.level == level or {text.level, level} == {PRODUCT, QUOTIENT}
    return (text.parts, text.signs) if text.signs and same else ((text,), ("",))


def _chained(parts: Sequence[Text], signs: Sequence[str]) -> str:
    return " ".join(f"{sign}{part.code}" for part, sign in zip(parts, signs, strict=True))


def _reads(items: Sequence[Text]) -> frozenset[str]:
    return frozenset[str]().union(*(item.reads for item in items))


def _text(value: Text | str | int) -> Text:
    return value if isinstance(value, Text) else Text(f"{value}")


def fill(items: list[str], indent: int) -> list[str]:
    """Items with commas behind them, as many to a line as fit."""
    lines: list[str] = []
    line = ""
    for item in items:
        if line and indent + len(line) + len(item) + 2 > WIDEST:
            lines.append(" " * indent + line)
            line = ""
        line = f"{line} {item},".lstrip()
    return [*lines, " " * indent + line] if line else lines


def comment(text: str, indent: int = 0) -> list[str]:
    """A comment of as many lines as it takes."""
    return textwrap.wrap(
        text, WIDEST - indent, initial_indent="# ", subsequent_indent="# ", break_long_words=False
    )
