"""Block sizes and launch settings to start from, before anything is tuned.

Candidates were measured by cross-compiling for cuda:80, 90, 100 and 120; of those for a head size
the first is taken that the target has room for (see ``estimates``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...ir.targets import AnyTarget, Target
from ...ir.tile import Program
from ..tiles.context import Context, Launch
from .estimates import REGISTER_LIMIT, has_room, warps_for_rows


@dataclass(frozen=True, slots=True)
class Configuration:
    """Block sizes by dim, and what the launch takes."""

    blocks: dict[str, int]
    launch: Launch


_MANY = 1 << 10  # registers: no limit
_MOST = 1 << 20  # elements: no limit
LIGHT: Launch = (("num_warps", 4), ("num_stages", 2))  # kernels that are no attention
SPREAD: Launch = (("num_warps", 8), ("num_stages", 2))  # those that fit no better

# (rows, keys, warps, pipeline stages), the fastest first, by the largest feature size.
_Shape = tuple[int, int, int, int]
_NARROW: Mapping[int, tuple[_Shape, ...]] = {
    64: (
        (128, 64, 8, 3),
        (64, 64, 4, 3),
        (64, 64, 4, 2),
        (64, 32, 4, 2),
        (64, 32, 8, 2),
        (32, 32, 4, 1),
    ),
    128: (
        (128, 64, 8, 3),
        (128, 32, 8, 3),
        (64, 32, 4, 2),
        (64, 32, 8, 2),
        (32, 16, 8, 2),
        (32, 32, 8, 2),
        (32, 32, 4, 1),
    ),
    512: ((128, 32, 8, 2), (64, 32, 8, 2), (32, 32, 8, 1), (16, 16, 8, 1)),
}
_WIDE: Mapping[int, tuple[_Shape, ...]] = {
    64: ((128, 32, 8, 2), (64, 32, 8, 2), (32, 32, 4, 2), (32, 32, 4, 1)),
    128: ((64, 32, 8, 2), (32, 32, 8, 1), (16, 32, 4, 1)),
    512: ((32, 32, 8, 1), (16, 16, 8, 1)),
}


def attention_configurations(context: Context, block: str, over: str) -> Iterator[Configuration]:
    """Configurations of an attention with the context's feature sizes, the fastest first."""
    largest = max((context.sizes[d] for d in context.features), default=64)
    table = _NARROW if context.dtype.is_narrow else _WIDE
    most = next((size for size in table if largest <= size), 512)
    shapes = table[most]
    if isinstance(context.target, Target) and not context.target.products_from_shared:
        shapes = tuple(_shared_out(shapes))
    for rows, keys, warps, stages in shapes:
        launch = (("num_warps", warps), ("num_stages", stages))
        yield Configuration({block: rows, over: keys}, launch)


def _shared_out(shapes: tuple[_Shape, ...]) -> Iterator[_Shape]:
    """Half the rows for half the warps before eight warps share 64 rows of as narrow scores: where
    factors of products are in registers, these make twice the products and spill, backward."""
    for rows, keys, warps, stages in shapes:
        if (rows, keys, warps) == (64, 32, 8):
            yield rows // 2, keys, warps // 2, stages
        yield rows, keys, warps, stages


def pointwise_blocks(tiled: Sequence[str], looped: Sequence[str] = ()) -> dict[str, int]:
    """Block sizes of a kernel that is no attention."""
    return next(pointwise_choices(tiled, looped))


def pointwise_choices(tiled: Sequence[str], looped: Sequence[str] = ()) -> Iterator[dict[str, int]]:
    """Block sizes of a kernel that is no attention, the largest first.

    A dot takes no fewer than 16 positions of a looped dim.
    """
    largest = 64 if len(tiled) < 2 else 32
    for rows, turns in ((largest, 32), (largest // 2, 32), (16, 32), (16, 16), (8, 16), (4, 16)):
        yield {**dict.fromkeys(looped, turns), **dict.fromkeys(tiled, rows)}


def chunk_rows(by_entry: bool, corrected: bool, several: bool, largest: int) -> int:
    """Rows of a chunk: as many as compile without spills.

    Decays by entry are applied row by row within a chunk, and corrections solve its triangle.
    """
    if by_entry or corrected:
        return 16
    return 16 if several and largest > 64 else 32


def chunk_choices(
    rows: int, largest: int, wide: bool, reads: bool = True
) -> Iterator[tuple[int, Launch, int]]:
    """What to try for a chunk kernel, the fastest first.

    Each is about how many elements of a state a program holds, warps and stages, and the registers
    of a thread that its tiles may take, as ``estimates`` counts them: measured by cross-compiling
    the library at D = 64 and 128. Few warps are best, since all wait for each other at every step
    of the chain from chunk to chunk.

    Args:
        wide: products that tensor cores don't take, several states, or decays by entry, which are
            applied in a loop inside the chunk: these spill in few warps.
        reads: whether rows read the state; a turn that only writes is short, and has more of the
            next ones in flight.
    """
    if wide:
        warps = 8 if rows * largest > 512 else 4
        yield 4096, (("num_warps", warps), ("num_stages", 2)), _MANY
        return
    launch = (("num_warps", 4), ("num_stages", 3 if reads else 4))
    for held in (8192, 4096, 2048, 1024):
        yield held, launch, REGISTER_LIMIT


def whole_choices() -> Iterator[tuple[int, Launch, int]]:
    """The same for states that no programs share out, since they are read along both axes."""
    yield _MOST, (("num_warps", 8), ("num_stages", 2)), _MANY


def halved_choices(largest: int, corrected: bool, wide: bool) -> Iterator[tuple[int, Launch, int]]:
    """The same for decays by entry that are applied half by half (see ``halves``).

    All that is made of the keys is made once for each part of the state, so the parts are large.

    Args:
        wide: rows come in float32, which takes more addresses.
    """
    if wide and largest > 64:
        yield 8192, (("num_warps", 8), ("num_stages", 2)), _MANY
    if largest > 64 and not corrected:
        yield 16384, (("num_warps", 8), ("num_stages", 3)), _MANY
    yield 8192, (("num_warps", 4), ("num_stages", 2)), _MANY
    yield 4096, (("num_warps", 8), ("num_stages", 2)), _MANY


def recurrence_launch(program: Program, target: AnyTarget) -> Launch:
    """Warps and pipeline stages of a kernel that goes row by row, or scans: the next row is on its
    way while one is computed, where the target has room for both."""
    warps = ("num_warps", warps_for_rows(program))
    ahead: Launch = (warps, ("num_stages", 2))
    return ahead if has_room(replace(program, launch=ahead), target) else (warps, ("num_stages", 1))
