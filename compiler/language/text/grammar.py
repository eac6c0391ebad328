"""Tokens to a syntax tree, by precedence climbing.

From loose to tight: ``or``, ``and``, ``not``, comparisons (chained), ``+ -``, ``* / // %``,
unary ``-``, ``**`` (to the right), then calls and brackets. Nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ....ir.errors import SpecError
from ....ir.expression import Span
from .positions import Text, broken_flow, clip
from .surface import Apply, Binary, Bracket, Compare, Group, Name, Node, Number, Unary
from .tokens import Token, tokenize

MAX_DEPTH = 96
NESTING = 3  # what a parenthesis costs; an operator in a chain costs 1
MAX_TOKENS = 4000
MAX_ARGUMENTS = 64
_SUM = {"+": "add", "-": "sub"}
_PRODUCT = {"*": "mul", "/": "div", "//": "floordiv", "%": "mod"}
_COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
_CONSTANTS: dict[str, bool | float] = {
    "inf": float("inf"),
    "pi": 3.141592653589793,
    "true": True,
    "false": False,
}
_TURNED = {"=<": "<=", "=>": ">="}
_MISTAKEN = {"<>": "!=", **_TURNED}
OPERATORS = ("and", "or", "not")
# Words of Python that people write from habit: names here, and what to write where they are none.
HABITS = {
    "if": "write `where(condition, a, b)`",
    "else": "write `where(condition, a, b)`",
    "lambda": "name a macro under `define:`",
    "import": "expressions only compute; nothing is imported or run",
    "for": "name the axis: `sum(x, D)`",
    "in": "compare with `==`, or reduce with `any(x == y, D)`",
    "is": "write `==`",
    "True": "write `true`",
    "False": "write `false`",
    "None": "there is no null value",
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse(text: Text) -> Node:
    """The syntax tree of an expression.

    Raises:
        SpecError: text that is not an expression, or one beyond the limits on length and depth.
    """
    parser = _Parser(text)
    node = parser.expression(0)
    if parser.now.kind != "end":
        raise parser.unexpected("an operator or the end")
    return node


def parse_target(text: Text) -> tuple[Name, tuple[Name, ...] | None, str]:
    """A key ``name``, ``name[A, B]`` or ``name(a, b)``: its name, its list, and ``""`` ``[`` ``(``.

    Raises:
        SpecError: a key of another form.
    """
    parser = _Parser(text)
    name = parser.name("a name")
    opening = parser.now.text if parser.now.text in ("[", "(") else ""
    inside: tuple[Name, ...] | None = None
    if opening:
        parser.advance()
        inside = parser.names("]" if opening == "[" else ")")
    if parser.now.kind != "end":
        raise parser.unexpected("a name, `name[AXES]` or, in `define`, `name(parameters)`")
    return name, inside, opening


def parse_assignment(text: Text) -> tuple[Name, tuple[Name, ...] | None, Node, str]:
    """A line ``name = expression`` or ``name[A, B] = expression`` of a step.

    Returns the name, its list of axes, the expression and the expression's text.

    Raises:
        SpecError: a line of another form.
    """
    parser = _Parser(text)
    name = parser.name("a name")
    axes = None
    if parser.now.text == "[":
        parser.advance()
        axes = parser.names("]")
    if parser.now.text != "=":
        raise parser.unexpected("`=`")
    start = parser.advance().end
    node = parser.expression(0)
    if parser.now.kind != "end":
        raise parser.unexpected("an operator or the end")
    return name, axes, node, " ".join(text.value[start:].split())


class _Parser:
    def __init__(self, text: Text) -> None:
        self.text = text
        self.tokens = tokenize(text)
        self.at = 0
        if len(self.tokens) > MAX_TOKENS:
            raise self.error(
                self.tokens[MAX_TOKENS].span,
                "this expression is too long",
                allowed=f"at most {MAX_TOKENS} tokens",
                do="name parts of it under `let:`",
            )

    @property
    def now(self) -> Token:
        return self.tokens[self.at]

    def advance(self) -> Token:
        token = self.now
        self.at += 1
        return token

    def error(self, span: Span, found: str, **more: str | None) -> SpecError:
        return self.text.source.error(span, found, **more)

    def unexpected(self, expected: str) -> SpecError:
        token = self.now
        if self.text.flow and self.text.value.count("(") != self.text.value.count(")"):
            return broken_flow(self.text)
        if token.kind == "end":
            return self.error(token.span, f"the expression ends where {expected} is expected")
        before = self.tokens[self.at - 1].text
        do = HABITS.get(token.text) or HABITS.get(before)
        pair = token.text + self.tokens[self.at + 1].text
        if token.text == "=":
            do = f"write `{_TURNED[pair]}`" if pair in _TURNED else "compare with `==`"
        elif before + token.text in _MISTAKEN:  # in a call the `=` of `j =< i` is an argument's
            do = f"write `{_MISTAKEN[before + token.text]}`"
        return self.error(token.span, f"`{clip(token.text)}` where {expected} is expected", do=do)

    def expect(self, word: str, others: str = "") -> Token:
        if self.now.text != word or self.now.kind != "op":
            raise self.unexpected(f"`{word}`{others}")
        return self.advance()

    def name(self, expected: str) -> Name:
        if self.now.kind != "name":
            raise self.unexpected(expected)
        token = self.advance()
        return Name(token.text, token.span)

    def names(self, closing: str) -> tuple[Name, ...]:
        found: list[Name] = []
        while self.now.text != closing:
            if found:
                self.expect(",")
            found.append(self.name("a name"))
        self.advance()
        return tuple(found)

    def deeper(self, depth: int, cost: int = 1) -> int:
        if depth + cost > MAX_DEPTH:
            allowed = f"at most {MAX_DEPTH} operators in a chain"
            if cost == NESTING:
                allowed = f"at most {MAX_DEPTH // NESTING} brackets in one another"
            raise self.error(
                self.now.span,
                "this expression is nested too deeply",
                allowed=allowed,
                do="name parts of it under `let:`",
            )
        return depth + cost

    def expression(self, depth: int) -> Node:
        return self.logical("or", lambda d: self.logical("and", self.negation, d), depth)

    def logical(self, word: str, part: Callable[[int], Node], depth: int) -> Node:
        node = part(depth)
        while self.now.kind == "name" and self.now.text == word:
            depth = self.deeper(depth)
            span = self.advance().span
            node = Binary(word, node, part(depth), span)
        return node

    def negation(self, depth: int) -> Node:
        if self.now.kind == "name" and self.now.text == "not":
            depth = self.deeper(depth)
            span = self.advance().span
            return Unary("not", self.negation(depth), span)
        return self.comparison(depth)

    def comparison(self, depth: int) -> Node:
        first = self.sum(depth)
        rest = []
        while self.now.kind == "op" and self.now.text in _COMPARE:
            depth = self.deeper(depth)
            token = self.advance()
            rest.append((_COMPARE[token.text], self.sum(depth), token.span))
        return Compare(first, tuple(rest), rest[0][2]) if rest else first

    def sum(self, depth: int) -> Node:
        return self.chain(_SUM, lambda d: self.chain(_PRODUCT, self.unary, d), depth)

    def chain(self, ops: dict[str, str], part: Callable[[int], Node], depth: int) -> Node:
        node = part(depth)
        while self.now.kind == "op" and self.now.text in ops:
            depth = self.deeper(depth)
            token = self.advance()
            node = Binary(ops[token.text], node, part(depth), token.span)
        return node

    def unary(self, depth: int) -> Node:
        if self.now.kind != "op" or self.now.text not in "-+":
            return self.power(depth)
        depth = self.deeper(depth)
        token = self.advance()
        x = self.unary(depth)
        if token.text == "+":
            return x
        if isinstance(x, Number) and not isinstance(x.value, bool):
            return Number(-x.value, token.span)
        return Unary("neg", x, token.span)

    def power(self, depth: int) -> Node:
        base = self.postfix(depth)
        if self.now.text != "**" or self.now.kind != "op":
            return base
        depth = self.deeper(depth)
        span = self.advance().span
        return Binary("pow", base, self.unary(depth), span)

    def postfix(self, depth: int) -> Node:
        node = self.atom(depth)
        while self.now.kind == "op" and self.now.text in ("[", "("):
            depth = self.deeper(depth, NESTING)
            if self.now.text == "[" and not isinstance(node, Number):
                node = self.bracket(node, depth)
            elif isinstance(node, Name):
                node = self.call(node, depth)
            else:
                raise self.error(
                    self.now.span,
                    f"`{self.now.text}` after something that is no name",
                    do="write `*` for a product",
                )
        return node

    def bracket(self, x: Node, depth: int) -> Bracket:
        span = self.advance().span
        at: list[tuple[Name | None, Node]] = []
        while self.now.text != "]" or not at:
            if at:
                self.expect(",", " or `]`")
            key = self.keyword()
            at.append((key, self.expression(depth)))
        self.advance()
        return Bracket(x, tuple(at), span)

    def call(self, function: Name, depth: int) -> Apply:
        self.advance()
        args: list[Node] = []
        keywords: list[tuple[Name, Node]] = []
        while self.now.text != ")" or self.now.kind != "op":
            if args or keywords:
                self.expect(",", " or `)`")
            if len(args) + len(keywords) >= MAX_ARGUMENTS:
                allowed = f"at most {MAX_ARGUMENTS}"
                raise self.error(function.span, "too many arguments", allowed=allowed)
            if (key := self.keyword()) is not None:
                keywords.append((key, self.expression(depth)))
            elif keywords:
                raise self.error(self.now.span, "a plain argument after one with `name=`")
            else:
                args.append(self.expression(depth))
        self.advance()
        return Apply(function.name, tuple(args), tuple(keywords), function.span)

    def keyword(self) -> Name | None:
        if self.now.kind == "name" and self.tokens[self.at + 1].text == "=":
            name = self.name("a name")
            self.advance()
            return name
        return None

    def atom(self, depth: int) -> Node:
        token = self.now
        if token.kind == "number":
            return Number(self.advance().value, token.span)
        if token.kind == "name" and token.text not in OPERATORS:
            self.advance()
            if token.text in _CONSTANTS:
                return Number(_CONSTANTS[token.text], token.span)
            return Name(token.text, token.span)
        if token.text == "(":
            depth = self.deeper(depth, NESTING)
            self.advance()
            inner = self.expression(depth)
            self.expect(")")
            return Group(inner, token.span)
        raise self.unexpected("a number, a name or `(`")


__all__ = ["HABITS", "MAX_DEPTH", "NAME", "OPERATORS", "parse", "parse_assignment", "parse_target"]
