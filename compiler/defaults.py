"""Block sizes and launch settings to start from, before anything is tuned.

Measured by cross-compiling for cuda:80, 90, 100 and 120: no spills, loads pipelined, and within
the smallest shared memory sold (99 KiB on cuda:120).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..ir.tile import DType

if TYPE_CHECKING:
    from .schedules.flash import FlashTask


@dataclass(frozen=True, slots=True)
class Configuration:
    """Block sizes by dim, and what the launch takes."""

    blocks: dict[str, int]
    launch: tuple[tuple[str, int], ...]


# Largest feature size -> (rows, keys, warps, pipeline stages), for two-byte and four-byte inputs.
_NARROW = ((64, (128, 64, 8, 3)), (128, (128, 32, 8, 3)), (512, (64, 32, 8, 2)))
_WIDE = ((64, (128, 32, 8, 2)), (128, (64, 32, 8, 2)), (512, (32, 32, 8, 1)))


def attention_blocks(
    sizes: Mapping[str, int], features: frozenset[str], dtype: DType, task: FlashTask
) -> Configuration:
    """The default configuration of an attention with these feature sizes."""
    largest = max((sizes.get(d, 64) for d in features), default=64)
    table = _NARROW if dtype.is_narrow else _WIDE
    rows, keys, warps, stages = next(c for most, c in table if largest <= most or most == 512)
    return Configuration(
        {task.block: rows, task.over: keys}, (("num_warps", warps), ("num_stages", stages))
    )


def pointwise_blocks(tiled: Sequence[str], looped: Sequence[str] = ()) -> dict[str, int]:
    """Block sizes of a kernel that is no attention."""
    return {**dict.fromkeys(looped, 32), **dict.fromkeys(tiled, 64 if len(tiled) < 2 else 32)}
