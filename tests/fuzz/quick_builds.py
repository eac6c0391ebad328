"""Flags by which random kernels are built in a third of the time: as written, not for speed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from mixc.backends.cache import cache_folder, put
from mixc.backends.cpu.build import FLAGS, find_compiler

# What every kernel includes; to read the instruction set's own is two thirds of a build.
_HEADERS = ("cstdint", "cstring", "immintrin.h", "new", "type_traits")


def quick_flags() -> tuple[str, ...]:
    """Further flags of the C++ compiler; ``MIXC_FUZZ_FLAGS`` gives others.

    A small kernel takes 0.25 s instead of 0.9 with -O1 and 3.5 with -O3.
    """
    own = tuple(os.environ.get("MIXC_FUZZ_FLAGS", "-O0").split())
    header = _precompiled(find_compiler().path, own, cache_folder())
    return (*own, "-include", str(header)) if header else own


@lru_cache(maxsize=8)
def _precompiled(compiler: str, flags: tuple[str, ...], cache: Path) -> Path | None:
    """A header that the compiler has read already; None where it can't, or lacks one of them."""
    folder = cache / "headers"
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / "kernels.h"
    header.write_text("".join(f"#include <{name}>\n" for name in _HEADERS))
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        made = Path(aside) / "kernels.gch"
        command = [compiler, *FLAGS, *flags, "-x", "c++-header", str(header), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            return None
        put(made, header.with_suffix(".h.gch"))
    return header
