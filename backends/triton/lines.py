"""Long lines of emitted code, broken as a formatter would."""

from __future__ import annotations

from ..python_text import WIDEST, comment


def wrap(text: str, indent: int) -> list[str]:
    """A statement or an expression as lines of at most 100 characters, where it can be broken.

    A call is broken at its commas; other expressions at their weakest operators, in parentheses.
    """
    if text.startswith("#"):
        return comment(text.removeprefix("#").strip(), indent)
    if indent + len(text) <= WIDEST:
        return [text]
    tail = ":" if text.endswith(":") else ""
    body = text.removesuffix(":")
    head, value = _assignment(body)
    call = _call(value)
    several = _several(value)
    if several:
        return [f"{head}(", *_listed(several, indent), f"){tail}"]
    if call is None:
        return [f"{head}({tail}", *_operands(value, indent + 4), f"){tail}"] if head else [text]
    name, parts, cast = call
    return [f"{head}{name}(", *_listed(parts, indent), f"){cast}{tail}"]


def _part(part: str, indent: int) -> list[str]:
    """An argument: wrapped, in parentheses where it is no call."""
    if indent + len(part) + 1 <= WIDEST:
        return [part]
    head, value = _assignment(part, "=")
    several = _several(value)
    if several:
        return [f"{head}(", *_listed(several, indent), ")"]
    call = _call(value)
    if call is None:
        return [f"{head}(", *_operands(value, indent + 4), ")"]
    return [line for line in wrap(part, indent)] if not head else _keyword(head, call, indent)


def _several(text: str) -> list[str]:
    """The values of a tuple, with or without its parentheses; none if it is no tuple."""
    inside = text[1:-1] if _call(f"f{text}") is not None and text.startswith("(") else text
    parts = _split(inside, (", ",))
    return parts if len(parts) > 1 else []


def _listed(parts: list[str], indent: int) -> list[str]:
    """A line or more for each part, with its comma."""
    lines: list[str] = []
    for part in parts:
        lines.extend("    " + line for line in _part(part, indent + 4))
        lines[-1] += ","
    return lines


def _keyword(head: str, call: tuple[str, list[str], str], indent: int) -> list[str]:
    name, parts, cast = call
    return [f"{head}{name}(", *_listed(parts, indent), f"){cast}"]


def _assignment(text: str, sign: str = " = ") -> tuple[str, str]:
    """("x = ", value), ("for i in ", range), ("def ", signature), ... or ("", text)."""
    for word in ("def ", "return "):
        if text.startswith(word):
            return word, text.removeprefix(word)
    if text.startswith("for ") and " in " in text:
        place = text.index(" in ") + 4
        return text[:place], text[place:]
    depth = 0
    for n, char in enumerate(text):
        depth += char in "([{"
        depth -= char in ")]}"
        before, after = text[n - 1 : n], text[n + len(sign) : n + len(sign) + 1]
        equal = text.startswith(sign, n) and before not in "=<>!" and after != "="
        if depth == 0 and n > 0 and equal:
            return text[: n + len(sign)], text[n + len(sign) :]
    return "", text


def _call(text: str) -> tuple[str, list[str], str] | None:
    """(name, arguments, cast) where the text is one call as a whole, or the cast of one."""
    whole, dot, dtype = text.rpartition(").to(")
    if dot and dtype.removeprefix("tl.").removesuffix(")").isalnum():
        inner = _call(f"{whole})")
        return None if inner is None or inner[2] else (*inner[:2], f".to({dtype}")
    if "(" not in text or not text.endswith(")"):
        return None
    open_at = text.index("(")
    name = text[:open_at]
    if not name or not name.replace(".", "").replace("_", "").isalnum():
        return None
    depth = 0
    for n in range(open_at, len(text)):
        depth += text[n] in "([{"
        depth -= text[n] in ")]}"
        if depth == 0:
            if n != len(text) - 1:
                return None
            break
    return name, _split(text[open_at + 1 : -1], (", ",)), ""


def _operands(text: str, indent: int) -> list[str]:
    """The operands of the weakest operator, a line each; all on one where they fit."""
    if indent + len(text) <= WIDEST:
        return ["    " + text]
    for signs in ((" | ",), (" & ",), (" + ", " - "), (" * ", " / ", " // ", " % ")):
        parts = _split(text, signs, keep=True)
        if len(parts) > 1:
            lines = []
            for part in parts:
                sign = next(
                    (s.strip() + " " for s in signs if part.startswith(s.strip() + " ")), ""
                )
                inner = wrap(part.removeprefix(sign), indent + len(sign))
                lines.extend([f"    {sign}{inner[0]}", *(f"    {line}" for line in inner[1:])])
            return lines
    return ["    " + line for line in wrap(text, indent)]


def _split(text: str, signs: tuple[str, ...], keep: bool = False) -> list[str]:
    """The text cut at top-level signs; ``keep``: each sign stays at the head of what follows."""
    parts: list[str] = []
    depth = start = n = 0
    while n < len(text):
        depth += text[n] in "([{"
        depth -= text[n] in ")]}"
        sign = next((s for s in signs if text.startswith(s, n)), None) if depth == 0 else None
        if sign is not None:
            parts.append(text[start:n].strip())
            start = n + (1 if keep else len(sign))
            n += len(sign)
            continue
        n += 1
    return [*parts, text[start:].strip()]
