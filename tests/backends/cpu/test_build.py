"""The cache of built kernels: corruption, killed and parallel builds, no compiler."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixc.backends.cpu import headers
from mixc.backends.cpu.build import build, find_compiler, is_intact, load_function
from mixc.ir.errors import DefectError, UnsupportedError

SOURCE = 'extern "C" void answer(const long* args, int threads) { *(int*)args = 42; }'


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path))


def answer(path: Path) -> int:
    found = ctypes.c_int(0)
    load_function.__wrapped__(path, "answer")(ctypes.addressof(found), 1)
    return found.value


def test_built_once() -> None:
    path = build(SOURCE, "answer")
    made = path.stat().st_mtime_ns
    assert build(SOURCE, "answer") == path
    assert path.stat().st_mtime_ns == made
    assert answer(path) == 42


def test_a_corrupted_entry_is_built_again() -> None:
    path = build(SOURCE, "answer")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    # A file that is mapped must not be written to: put another in its place.
    path.unlink()
    path.write_bytes(content)
    assert not is_intact(path)
    assert build(SOURCE, "answer") == path
    assert is_intact(path)
    assert answer(path) == 42


@pytest.mark.parametrize("suffix", [".so", ".sha256"])
def test_half_of_an_entry_is_none(suffix: str) -> None:
    path = build(SOURCE, "answer")
    path.with_suffix(suffix).unlink()
    assert not is_intact(path)
    assert answer(build(SOURCE, "answer")) == 42


@pytest.mark.parametrize("suffix", [".so", ".sha256", ".cpp"])
def test_a_folder_in_the_place_of_an_entry_is_replaced(suffix: str, tmp_path: Path) -> None:
    path = build(SOURCE, "answer")
    path.with_suffix(suffix).unlink()
    (path.with_suffix(suffix) / "inner").mkdir(parents=True)
    if suffix == ".cpp":  # what is kept for a reader stands in the way of a new build alone
        path.with_suffix(".sha256").write_bytes(b"other")
    assert not is_intact(path)
    assert answer(build(SOURCE, "answer")) == 42
    assert path.with_suffix(suffix).is_file()
    assert not list((tmp_path / "cpu").glob(".*"))


def test_a_killed_build_leaves_nothing_to_load(tmp_path: Path) -> None:
    """A compiler that writes half of its output and kills its parent."""
    compiler = tmp_path / "killer"
    real = find_compiler().path
    compiler.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *-shared*) ;; *) exec {real} "$@" ;; esac\n'
        'while [ "$1" != -o ]; do shift; done\n'
        'printf half > "$2"\n'
        "kill -9 $PPID\n"
    )
    compiler.chmod(0o755)
    script = f"from mixc.backends.cpu.build import build\nbuild({SOURCE!r}, 'answer')\n"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "CXX": str(compiler)}, check=False
    )
    assert done.returncode == -9
    assert not list((tmp_path / "cpu").glob("*.so"))
    assert answer(build(SOURCE, "answer")) == 42


def test_processes_build_at_once(tmp_path: Path) -> None:
    script = (
        "from mixc.backends.cpu.build import build, is_intact\n"
        f"assert is_intact(build({SOURCE!r}, 'answer'))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert len(list((tmp_path / "cpu").glob("*.so"))) == 1
    assert not list((tmp_path / "cpu").glob(".build_*"))


def test_no_compiler_is_said_clearly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match=r"need a C\+\+ compiler.*install g\+\+"):
        build(SOURCE, "answer")


def test_a_named_compiler_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UnsupportedError, match="looked for no-such-compiler"):
        build(SOURCE, "answer")


def test_a_refused_source_is_kept_with_its_error() -> None:
    with pytest.raises(DefectError, match=r"refuses a kernel, kept in (?s:.*)error") as raised:
        build("int wrong = ;", "wrong")
    kept = str(raised.value).split("kept in ")[1].split(":\n")[0]
    assert Path(kept).read_text() == "int wrong = ;"


@pytest.mark.skipif(shutil.which("clang++") is None, reason="no clang++ here")
def test_another_compiler_has_its_own_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(SOURCE, "answer")
    monkeypatch.setenv("CXX", "clang++")
    assert build(SOURCE, "answer") != first


def _several(flags: tuple[str, ...] = ()) -> None:
    for number in range(4):
        source = SOURCE.replace("42", f"{number}")
        assert answer(build(source, "answer", flags)) == number


def _headers_read(folder: Path) -> list[Path]:
    return sorted((folder / "cpu").glob("headers_*.gch"))


def test_headers_are_read_once_where_several_kernels_are_built(tmp_path: Path) -> None:
    build(SOURCE, "answer")
    assert not _headers_read(tmp_path)
    _several()
    (ready,) = _headers_read(tmp_path)
    made = ready.stat().st_mtime_ns
    assert answer(build(SOURCE, "answer")) == 42
    assert [path.stat().st_mtime_ns for path in _headers_read(tmp_path)] == [made]
    _several(("-O0",))  # again, for other flags
    assert len(_headers_read(tmp_path)) == 2


@pytest.mark.parametrize("suffix", [".h.gch", ".h", ".sha256"])
def test_damaged_headers_are_read_again(suffix: str, tmp_path: Path) -> None:
    _several(("-O0",))
    (ready,) = _headers_read(tmp_path)
    damaged = ready.with_name(ready.name.removesuffix(".h.gch") + suffix)
    half = damaged.read_bytes()[: damaged.stat().st_size // 2]
    damaged.write_bytes(half)
    headers._is_intact.cache_clear()  # as another process finds them
    assert answer(build(SOURCE, "answer", ("-O0",))) == 42
    assert damaged.read_bytes() != half


def test_a_build_goes_on_where_headers_break_under_it(tmp_path: Path) -> None:
    _several(("-O0",))
    (ready,) = _headers_read(tmp_path)
    ready.with_suffix("").write_text("#error broken")
    ready.unlink()
    assert answer(build(SOURCE, "answer", ("-O0",))) == 42
