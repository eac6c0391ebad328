"""Specs by name or path."""

import pytest

from mixc.compiler.language.find import find_spec, library
from mixc.ir.errors import SpecError


def test_by_name_and_by_path(tmp_path):
    path = find_spec("alibi_window")
    assert path.name == "alibi_window.yaml"
    assert path in library()
    own = tmp_path / "own.yaml"
    own.write_text("mixer: own")
    assert find_spec(str(own)) == own


def test_names_are_unique():
    names = [path.stem for path in library()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("alibi_windw", "did you mean `alibi_window`?"),
        ("nowhere/spec.yaml", "no spec file `nowhere/spec.yaml`"),
        ("", "no spec called ``"),
        ("a\0b", "no spec called"),
        ("..", "no spec called"),
        ("x" * 5000, "no spec called"),
        ("x" * 5000 + ".yaml", "no spec file"),
    ],
)
def test_nothing_found(name, phrase):
    with pytest.raises(SpecError) as caught:
        find_spec(name)
    assert phrase in str(caught.value)
