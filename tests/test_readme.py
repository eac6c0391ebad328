"""What the README says, run: its specs, its commands, its Python, its tables."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mixc.commands.list_specs import library_systems
from mixc.compiler.language.load import load_text
from mixc.ir.expression import ELEMENTWISE
from mixc.show.known_states import known_states_of, states_of
from mixc.show.systems import markdown

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell(tmp_path, lines):
    """Run commands in an empty folder, with this environment's ``mixc`` in front."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)],
        cwd=tmp_path,
        env={**settings, "PATH": path},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("spec", blocks("yaml"))
def test_the_specs_load(spec):
    assert load_text(spec).outputs


def test_the_commands_run(tmp_path):
    (block,) = blocks("sh")
    lines = block.splitlines()
    assert lines[0].startswith(". .venv/bin/activate")
    result = shell(tmp_path, lines[1:])
    assert result.returncode == 0, result.stderr
    assert "@triton.jit" in (tmp_path / "kernel.py").read_text()


def test_the_python_runs():
    (block,) = blocks("python")
    result = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "@triton.jit" in result.stdout


def test_the_python_is_one_that_reads(tmp_path):
    (block,) = blocks("python")
    ast.parse(block)


def test_the_make_targets_are_there():
    targets = re.findall(r"(?:`|^)make (?:PYTHON=\S+ )?(\w+)", README, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= set(targets)
    assert all(f"\n{target}:" in makefile for target in targets)


def test_every_elementwise_function_is_named():
    operators = set("add sub mul div floordiv mod pow lt le gt ge eq ne neg and or not".split())
    page = README[README.index("### Expressions") : README.index("### Attention")]
    words = set(re.findall(r"\w+", page))
    assert set(ELEMENTWISE) - operators <= words


def test_the_table_of_systems_is_what_mixc_makes_of_the_library():
    _, _, rest = README.partition("<!-- systems -->\n")
    table, _, _ = rest.partition("<!-- end of systems -->")
    found = library_systems(states_of)
    assert table == markdown(found) + "\n", "another state or spec: make systems"
    assert library_systems(known_states_of) == found, "another state: make systems"
