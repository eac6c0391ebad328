"""What every kernel includes, read by the compiler once: a third of a build, two where it is quick.

A header read already is an entry of the cache like a kernel: named by what it depends on, written
aside and renamed, with a checksum. Where it can't be made or is damaged, kernels are built without.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ..cache import digest, holds, is_intact, put
from .emit import included_headers

_FEW = 2  # builds that go without, as reading headers once takes as long as three times in passing
_builds: Counter[Path] = Counter()


def read_already(command: Sequence[str], compiler: str, folder: Path) -> tuple[str, ...]:
    """Flags by which the compiler takes the headers as it has read them; none where it can't.

    ``command`` is the compiler with all flags of the build, which must be the same, and
    ``compiler`` stands for the compiler itself. g++ alone: clang++ names such files otherwise.
    """
    text = "".join(f"#include <{name}>\n" for name in included_headers())
    key = hashlib.sha256("\0".join([*command, compiler, text]).encode()).hexdigest()[:32]
    header = folder / f"headers_{key}.h"
    _builds[header] += 1
    if _is_intact(header, text):
        return "-include", str(header)
    if _builds[header] <= _FEW or not _read(command, header, text):
        return ()
    _is_intact.cache_clear()
    return "-include", str(header)


@lru_cache(maxsize=64)
def _is_intact(header: Path, text: str) -> bool:
    return holds(header, text.encode()) and is_intact(*_beside(header))


def _read(command: Sequence[str], header: Path, text: str) -> bool:
    """Have the compiler read the headers; whether it could."""
    with tempfile.TemporaryDirectory(prefix=".build_", dir=header.parent) as aside:
        own, ready, sums = (Path(aside) / name for name in ("all.h", "all.gch", "all.sha256"))
        own.write_text(text, encoding="utf-8")
        reading = [*command, "-x", "c++-header", "-o", str(ready), str(own)]
        if subprocess.run(reading, capture_output=True, check=False).returncode:
            return False
        sums.write_bytes(digest(ready))
        for made, path in zip((own, ready, sums), (header, *_beside(header)), strict=True):
            put(made, path)
    return True


def _beside(header: Path) -> tuple[Path, Path]:
    """What the compiler keeps of a header, and its checksum."""
    return header.with_name(f"{header.name}.gch"), header.with_suffix(".sha256")
