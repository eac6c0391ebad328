"""The examples in docstrings, run by import name (the folders are not where they install to)."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("ir", "compiler", "backends", "autotune", "specs", "mixc")


def names():
    """The modules with an example."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in path.read_text():
                parts = path.relative_to(ROOT).with_suffix("").parts
                parts = parts if parts[0] == "mixc" else ("mixc", *parts)
                yield ".".join(parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", list(names()))
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
