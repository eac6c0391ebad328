"""The works that are timed on a GPU: those that published tables have, in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes by the role that an axis plays; a key/value head serves ``ratio`` query heads."""

    batch: int
    heads: int
    length: int
    width: int
    ratio: int = 1


@dataclass(frozen=True, slots=True)
class Workload:
    """A spec at a shape.

    ``sizes`` are of dims whose name has to be said; ``trained``: its backward pass is timed too.
    """

    spec: str
    shape: Shape
    sizes: tuple[tuple[str, int], ...] = ()
    params: tuple[tuple[str, int], ...] = ()
    trained: bool = True

    def dims(self) -> dict[str, int]:
        """The size of every dim of the spec that is free."""
        return dict(_dims(self))

    def arguments(self) -> tuple[str, ...]:
        """The options of a command."""
        sizes = (("--size", f"{dim}={size}") for dim, size in self.dims().items())
        params = (("-p", f"{name}={value}") for name, value in self.params)
        return tuple(word for pair in (*sizes, *params) for word in pair)

    def subject(self) -> str:
        """``causal B=1 H=16 T=16384 D=128 E=128``."""
        values = {**self.dims(), **dict(self.params)}
        return " ".join([self.spec, *(f"{name}={value}" for name, value in values.items())])


@cache
def _dims(work: Workload) -> tuple[tuple[str, int], ...]:
    from ..autotune.checking.proportions import Proportions, default_sizes, resized
    from ..autotune.checking.shapes import shown_sizes
    from ..compiler.language.find import find_spec
    from ..compiler.language.load import load_file

    mixer, shape = load_file(find_spec(work.spec)), work.shape
    usual = Proportions(
        lengths=(shape.length,),
        features=(shape.width,),
        ratio=shape.ratio,
        groups=shape.heads // shape.ratio,
        batch=(shape.batch, shape.heads),
    )
    sizes = resized(mixer, default_sizes(mixer, usual), dict(work.sizes), {})
    return tuple(shown_sizes(mixer, sizes).items())


_DENSE = (Shape(4, 32, 4096, 64), Shape(4, 16, 4096, 128))
_CAUSAL = (
    Shape(1, 16, 16384, 128), Shape(8, 16, 2048, 128), Shape(4, 16, 4096, 128),
    Shape(2, 32, 8192, 64),
)  # fmt: skip
_LOCAL = (Shape(1, 16, 16384, 128), Shape(1, 32, 16384, 64))
_BIASED = (Shape(2, 16, 8192, 128), Shape(2, 32, 8192, 64))
_LINEAR = (
    Shape(1, 96, 8192, 128), Shape(1, 16, 8192, 128), Shape(2, 16, 16384, 128),
    Shape(4, 16, 2048, 128), Shape(8, 8, 1024, 64), Shape(4, 64, 4096, 128),
    Shape(8, 32, 2048, 256), Shape(1, 16, 65536, 128),
)  # fmt: skip
_LINEAR_SPECS = (
    "gated_delta", "gla", "simple_gla", "delta", "kda", "mamba2", "retention", "linear", "rwkv6",
    "hgrn2", "comba",
)  # fmt: skip


def _all() -> Iterator[Workload]:
    for spec, shapes in (("causal", _CAUSAL), ("dense", _DENSE), ("alibi", _BIASED)):
        yield from (Workload(spec, shape) for shape in shapes)
    yield from (Workload("alibi_window", shape, params=(("window", 1024),)) for shape in _LOCAL)
    for spec in ("packed", "softcap", "sink"):
        yield from (Workload(spec, shape) for shape in _LOCAL)
    for spec in _LINEAR_SPECS:
        yield from (Workload(spec, shape) for shape in _LINEAR)
    yield Workload("rwkv7", Shape(8, 32, 4096, 64))
    for batch, length in ((1, 65536), (16, 4096)):
        for spec in ("hgrn", "rg_lru"):
            yield Workload(spec, Shape(batch, 1, length, 128), sizes=(("C", 4096),))
    for channels in (8192, 4096):
        shape = Shape(1, 1, 65536, 16)
        yield Workload("mamba", shape, sizes=(("C", channels), ("N", 16)))
    for batch, keys in ((1, 8192), (1, 131072), (32, 4096), (32, 32768)):
        shape = Shape(batch, 32, keys, 128, ratio=4)
        yield Workload("cross", shape, sizes=(("I", 1),), trained=False)


WORKLOADS: tuple[Workload, ...] = tuple(_all())
