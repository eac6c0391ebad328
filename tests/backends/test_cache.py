"""Entries of the cache that something has happened to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mixc.backends.triton.run import import_source

SOURCE = "answer = 42\n"


def spoil_with_a_folder(entry: Path) -> None:
    entry.unlink()
    (entry / "inner").mkdir(parents=True)


def spoil_with_bytes(entry: Path) -> None:
    entry.write_bytes(b"\xff\xfe answer")


def spoil_by_half(entry: Path) -> None:
    entry.write_text(SOURCE[:4])


@pytest.mark.parametrize("spoil", [spoil_with_a_folder, spoil_with_bytes, spoil_by_half])
def test_a_spoilt_module_is_written_again(spoil, tmp_path, monkeypatch):
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path))
    assert import_source(SOURCE, "spoilt").answer == 42
    (entry,) = (tmp_path / "modules").glob("spoilt_*.py")
    shutil.rmtree(tmp_path / "modules" / "__pycache__", ignore_errors=True)
    spoil(entry)
    assert import_source(SOURCE, "spoilt").answer == 42
    assert [p for p in (tmp_path / "modules").iterdir() if p.name != "__pycache__"] == [entry]
