"""Specs that somebody, or something, has damaged: bytes, words, structure, hostile sizes."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from mixc.cli import commands
from mixc.compiler.language.find import library

from .choices import Choices, Draw
from .forms import FORMS

SPECS = tuple(path.read_text() for path in library())
COMMANDS = (
    ("check",),
    ("show",),
    ("show", "--json"),
    ("show", "--tiles"),
    ("compile", "--target", "cuda:90"),
)
_PIECES = (
    "( ) [ ] { } , : - + * / // % ** < <= == and or not where sum( max( mean( softmax( rank( at( "
    "rope( stack( cumsum( exp( B T H I J D E G N i j t h n 0 1 2 1e-6 inf true score: mask: let: "
    "define: f(x): outputs: stages: heads: dims: params: over: J where= N= D= q k v o & * ! | > "
    "' \" # --- ... ? @ % \\ ~ null {softmax: {sink: i}} x[T=e] index( like: suffix: with: name: "
    "recurrence: state: step: initial: reset: direction: backward S = last( grad( solve( complex( "
    "\n \n\n\t \x00 \ufeff \u2028 é NULL int32 float16 default: sorted: tiling: check: bench:"
).split(" ")
_NUMBERS = (
    "0 -1 1 2 3 7 1e9 2**31 2**63 2**64 2**120 10**12 10**400 -2**63 1e308 1e-400 0.5 inf -inf 1/0 "
    "0/0 nan 0x10 1_000 99999999999999999999 2**(2**30) 9**9**9 (1,) '' [] {} T D I*J"
).split()


@st.composite
def damaged(draw: Draw) -> str:
    """A spec of the library or a random one, damaged in one to three places."""
    choices = Choices(draw)
    if choices.chance(40):
        text = FORMS[choices.pick(sorted(FORMS))](choices).text()
    else:
        text = choices.pick(SPECS)
    for _ in range(choices.whole(1, 3)):
        how = choices.often({_cut: 3, _word: 3, _number: 3, _tree: 3, _doubled: 1, _deep: 1})
        text = how(choices, text)
    return text[:200_000]


def _cut(choices: Choices, text: str) -> str:
    """A few characters taken out, and pieces put in."""
    start = choices.whole(0, len(text))
    end = min(len(text), start + choices.whole(0, 12))
    pieces = [choices.pick(_PIECES) for _ in range(choices.whole(0, 4))]
    return text[:start] + " ".join(pieces) + text[end:]


def _word(choices: Choices, text: str) -> str:
    """A word in another's place."""
    words = text.split(" ")
    place = choices.whole(0, len(words) - 1)
    words[place] = choices.pick(words) if choices.chance(60) else choices.pick(_PIECES)
    return " ".join(words)


def _number(choices: Choices, text: str) -> str:
    """A hostile number in the place of one that is there, or of a name."""
    places = [at for at, letter in enumerate(text) if letter.isdigit() or letter in "DTIJH"]
    if not places:
        return text
    at = choices.pick(places)
    return text[:at] + choices.pick(_NUMBERS) + text[at + 1 :]


def _tree(choices: Choices, text: str) -> str:
    """A branch of the YAML moved, taken out, or put in another's place."""
    try:
        tree = yaml.safe_load(text)
    except Exception:
        return text
    branches: list[tuple[Any, Any]] = []
    _collect(tree, branches, 0)
    if not branches:
        return text
    block, key = choices.pick(branches)
    other, at = choices.pick(branches)
    match choices.whole(0, 3):
        case 0:
            block[key] = other[at] if key in _keys(block) and at in _keys(other) else None
        case 1:
            del block[key]
        case 2:
            block[key] = choices.pick(_NUMBERS)
        case _:
            block[key] = [block[key], block[key]]
    try:
        return str(yaml.safe_dump(tree, sort_keys=False, width=100))
    except (RecursionError, yaml.YAMLError):
        return text


def _keys(block: Any) -> Any:
    return block if isinstance(block, dict) else range(len(block))


def _collect(tree: Any, found: list[tuple[Any, Any]], depth: int) -> None:
    if depth < 8 and isinstance(tree, dict | list):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in pairs:
            found.append((tree, key))
            _collect(value, found, depth + 1)


def _doubled(choices: Choices, text: str) -> str:
    """A chain of names, each twice the one before."""
    count = choices.pick((10, 20, 40, 80))
    form = choices.pick(("{x} + {x}", "{x} * {x}", "max({x}, {x})", "where({x} > 0, {x}, -{x})"))
    lines = [f"  c{n}: {form.format(x=f'c{n - 1}')}" for n in range(1, count)]
    chain = "\n".join(["let:", "  c0: 1.5", *lines, ""])
    return text + ("\n" if choices.chance(50) else "") + chain


def _deep(choices: Choices, text: str) -> str:
    """An expression that nests, in the place of a name."""
    depth = choices.pick((10, 60, 300, 5000))
    shell = choices.pick(
        ("({x})", "tanh({x})", "-{x}", "not {x}", "1 - ({x})", "[{x}]", "{{a: {x}}}")
    )
    before, _, after = shell.partition("{x}")
    before, after = before.replace("{{", "{"), after.replace("}}", "}")
    at = choices.whole(0, len(text))
    return text[:at] + before * depth + "q" + after * depth + text[at:]


def command_line(question: tuple[str, tuple[str, ...]]) -> tuple[str, str]:
    """Run a command on a text in this process: what became of it, and what it said."""
    text, command = question
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.yaml"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        more = ["-o", os.path.join(folder, "kernel.py")] if command[0] == "compile" else []
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                commands.main([command[0], str(path), *command[1:], *more], prog_name="mixc")
                code: object = 0
            except SystemExit as end:
                code = end.code
            except BaseException as error:
                return "traceback", f"{type(error).__name__}: {error}"
    admitted = (0, 1, 2, None) if command[0] == "compile" else (0, 2, None)
    return ("" if code in admitted else f"exit {code}"), said.getvalue()[-2000:]
