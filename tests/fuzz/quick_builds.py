"""Flags by which random kernels are built in a third of the time: as written, not for speed."""

from __future__ import annotations

import os


def quick_flags() -> tuple[str, ...]:
    """Further flags of the C++ compiler; ``MIXC_FUZZ_FLAGS`` gives others.

    A small kernel takes 0.2 s instead of 0.7 with -O1 and 1.4 with -O3.
    """
    return tuple(os.environ.get("MIXC_FUZZ_FLAGS", "-O0").split())
