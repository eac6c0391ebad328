"""C++ sources into shared objects, by the system's compiler, kept in a cache.

An entry is named by all that it depends on (source, flags, compiler, CPU) and carries a checksum;
it is written aside and renamed, so processes may share the folder and a killed build leaves
nothing that is loaded later. An entry whose checksum is wrong, or that is no file, is built again.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ...ir.errors import DefectError, UnsupportedError
from ...ir.targets import PORTABLE, CpuTarget
from .. import cache
from ..cache import cache_folder, digest, put
from .emit import every_header_text
from .headers import read_already
from .target import first_cache_bytes, permitted, target_of_macros

FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fPIC",
    "-shared",
    "-fopenmp",
    "-fwrapv",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-w",
)
_COMPILERS = ("c++", "g++", "clang++")
_CHECKSUM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C++ compiler: its path, what it says of itself, and what it can use of this CPU."""

    path: str
    version: str
    target: CpuTarget
    macros_digest: str


def find_compiler() -> Compiler:
    """The compiler that ``CXX`` names, else the first of c++, g++ and clang++ on the path.

    Raises UnsupportedError where there is none.
    """
    named = os.environ.get("CXX")
    candidates = (named,) if named else _COMPILERS
    paths = [path for path in map(shutil.which, candidates) if path is not None]
    if not paths:
        listed = ", ".join(candidates)
        raise UnsupportedError(
            f"kernels for the CPU need a C++ compiler, and there is none (looked for {listed}): "
            "install g++ or clang++, or name one in CXX; without it, backend='reference' runs "
            "any spec with torch"
        )
    return _probe(paths[0])


@lru_cache(maxsize=8)
def _probe(path: str) -> Compiler:
    version = _output([path, "--version"])
    ours = f"#define MIXC_LANES 4\n#define MIXC_PAIRED_DOT\n{every_header_text()}"
    macros = _output([path, *FLAGS[:3], "-dM", "-E", "-x", "c++", "-"], ours)
    digest = hashlib.sha256(macros.encode()).hexdigest()
    target = permitted(target_of_macros(macros))
    target = replace(target, l1_bytes=first_cache_bytes() or PORTABLE.l1_bytes)
    return Compiler(path, version, target, digest)


def _output(command: Sequence[str], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnsupportedError(
            f"the C++ compiler does not work: {' '.join(command)}\n{done.stderr}"
        )
    return done.stdout


def build(source: str, name: str, extra_flags: Sequence[str] = ()) -> Path:
    """The shared object for a source, from the cache or new.

    Raises UnsupportedError where there is no compiler, DefectError where it refuses the source.
    """
    compiler = find_compiler()
    key = hashlib.sha256()
    for part in (source, compiler.version, compiler.macros_digest, *FLAGS, *extra_flags):
        key.update(part.encode() + b"\0")
    folder = cache_folder() / "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_{key.hexdigest()[:32]}.so"
    if not is_intact(path):
        _compile(compiler, source, path, extra_flags)
    return path


def is_intact(path: Path) -> bool:
    """Whether a cache entry is there and its checksum right."""
    return cache.is_intact(path, _checksum_path(path))


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _headers(compiler: Compiler, flags: Sequence[str], folder: Path) -> tuple[str, ...]:
    if "clang" in compiler.version:
        return ()
    return read_already(flags, compiler.version + compiler.macros_digest, folder)


def _compile(compiler: Compiler, source: str, path: Path, extra_flags: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix=".build_", dir=path.parent) as aside:
        text, made = Path(aside) / "kernel.cpp", Path(aside) / "kernel.so"
        text.write_text(source, encoding="utf-8")
        flags = [compiler.path, *FLAGS, *extra_flags]
        building = ["-o", str(made), str(text), "-lm"]
        headers = _headers(compiler, flags, path.parent)
        done = subprocess.run(
            [*flags, *headers, *building], capture_output=True, text=True, check=False
        )
        if done.returncode != 0 and headers:  # the mistake may be the headers', as they were read
            done = subprocess.run([*flags, *building], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            kept = path.with_suffix(".failed.cpp")
            put(text, kept)
            errors = [line for line in done.stderr.splitlines() if "error" in line][:5]
            listed = "\n".join(errors or done.stderr.splitlines()[:5])
            raise DefectError(f"the C++ compiler refuses a kernel, kept in {kept}:\n{listed}")
        checksum = Path(aside) / "kernel.sha256"
        checksum.write_bytes(digest(made))
        put(text, path.with_suffix(".cpp"))
        put(made, path)
        put(checksum, _checksum_path(path))


@lru_cache(maxsize=1024)
def load_function(path: Path, entry: str) -> Callable[[int, int], None]:
    """The entry point of a shared object: ``void entry(const int64_t* args, int threads)``."""
    function: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(str(path)), entry)
    function.argtypes = [ctypes.c_void_p, ctypes.c_int]
    function.restype = None
    return function
