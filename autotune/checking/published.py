"""Sizes that people use: head sizes, states and lengths of published models.

What ``proportions`` leaves out: there sizes are small and awkward, here kernels have the blocks,
and the number of blocks, that they have in use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...ir.binding import Number
from ...ir.mixer import Mixer
from .footprint import footprint
from .proportions import Proportions, default_sizes
from .sampling import VerificationCase, is_admitted, smaller

_MANY_ROWS = 1000
_MOST_BYTES = 8 << 30  # of a case by the reference


def _of(length: int, *features: int, ratio: int = 1) -> Proportions:
    lengths = (length, length // 2 + 1, length // 4 + 1)
    return Proportions(lengths, features, ratio, groups=1, batch=(1, 2))


# The third feature is the state of a state space, say.
USUAL: Mapping[str, Proportions] = {
    "features 128, 64": _of(130, 128, 64, 16, ratio=2),
    "features 80, 96": _of(17, 80, 96, 64),
    "features 128": _of(16, 128, 128, 128),
    "features 64, 128": _of(2, 64, 128, 16),
    f"{_MANY_ROWS} rows": _of(_MANY_ROWS, 64, 64, 16),
}
THOROUGH: Mapping[str, Proportions] = {
    **USUAL,
    **{
        f"features {first}, {second}, T {length}": _of(length, first, second, third)
        for first, second, third, length in (
            (16, 40, 16, 1),
            (40, 80, 64, 17),
            (64, 64, 128, 2),
            (64, 16, 16, 130),
            (96, 128, 64, 16),
            (96, 96, 16, 100),
            (128, 256, 16, 65),
            (192, 128, 64, 130),
            (192, 192, 16, 1),
            (256, 64, 16, 33),
            (256, 256, 128, 17),
        )
    },
}


def published_cases(
    mixer: Mixer,
    params: Mapping[str, Number] = {},
    sizes: Mapping[str, Proportions] = USUAL,
) -> list[VerificationCase]:
    """Trials at sizes that people use; those that the spec does not admit are left out.

    Windows and blocks are as the spec has them where there are rows enough, else smaller. Where
    several sequences come together (rows and columns of a picture), they are shorter by halves
    until the reference has room.
    """
    return list(_cases(mixer, params, sizes))


def _cases(
    mixer: Mixer, params: Mapping[str, Number], sizes: Mapping[str, Proportions]
) -> Iterator[VerificationCase]:
    small = {**smaller(mixer, params), **params}
    for seed, (name, proportions) in enumerate(sizes.items(), 20):
        known = params if proportions.lengths[0] >= _MANY_ROWS else small
        made = default_sizes(mixer, proportions, known)
        while max(proportions.lengths) > 2 and footprint(mixer, made).total_bytes > _MOST_BYTES:
            lengths = tuple((length + 1) // 2 for length in proportions.lengths)
            proportions, name = replace(proportions, lengths=lengths), f"{lengths[0]} rows"
            made = default_sizes(mixer, proportions, known)
        case = VerificationCase(name, made, known, seed=seed)
        if is_admitted(mixer, case):
            yield case


__all__ = ["THOROUGH", "USUAL", "published_cases"]
