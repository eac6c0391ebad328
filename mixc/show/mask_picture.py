"""Pictures of the masks of a mixer: in the terminal, or as an image file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.expression import Expr, Kind, Literal, Ref
from ..ir.mixer import Attention, Equation, Map, Mixer, Output
from ..ir.rewriting import walk

if TYPE_CHECKING:
    from torch import Tensor

    from ..ir.host import Number

# How often the largest param (a window, a block) fits into the length that is drawn.
_SPANS, _SHORTEST, _LONGEST = 8, 48, 2048
_MOST_BYTES = 4 << 30  # of the inputs and of what a mask is made of: more is not drawn
# One in so many positions is true in an input that marks some (global tokens, pictures).
_MARKED = 16
# (upper cell, lower cell) of a character; a cell is empty, partial or full.
_CHARACTERS = {
    (0, 0): " ", (0, 1): "░", (0, 2): "▄",
    (1, 0): "░", (1, 1): "▒", (1, 2): "▓",
    (2, 0): "▀", (2, 1): "▓", (2, 2): "█",
}  # fmt: skip


@dataclass(frozen=True)
class MaskPicture:
    """Which keys (columns) each query (row) of one attention sees, at one position of all else.

    ``matrix``: bool [rows, columns].
    """

    title: str
    rows: str
    columns: str
    matrix: Tensor

    @property
    def visible(self) -> float:
        """The share of pairs that are visible."""
        return float(self.matrix.double().mean()) if self.matrix.numel() else 0.0


def pictures(
    mixer: Mixer, sizes: Mapping[str, int] = {}, params: Mapping[str, Number] = {}
) -> list[MaskPicture]:
    """One picture per attention that has a query axis and is not too long, by the reference.

    Inputs that a mask depends on are sampled: sorted ids make four documents, truth values mark
    a few positions, and what has a default has that. ``sizes`` fixes dims; lengths that it leaves
    out are such that windows and blocks can be seen.
    """
    from ..autotune.checking.footprint import footprint
    from ..backends.reference.evaluate import run
    from ..compiler.mixers.pack.packing_plan import paired_axis

    found = []
    for number, stage in enumerate(mixer.stages):
        if isinstance(stage, Attention):
            row = paired_axis(mixer, stage)
            if row is None:
                continue
            drawn = _drawn_sizes(mixer, stage, row, _length(mixer, params), sizes, params)
            alone = _mask_alone(mixer, number, stage)
            if footprint(alone, drawn).total_bytes <= _MOST_BYTES:
                mask = run(alone, _inputs(mixer, drawn, params), params)["visible"]
                found.append(_picture(mixer, stage, row, mask, drawn))
    return found


def _picture(
    mixer: Mixer, stage: Attention, row: str, mask: Tensor, drawn: Mapping[str, int]
) -> MaskPicture:
    axes = sorted(stage.mask.axes) if stage.mask is not None else []
    matrix = _at_first(mask, axes, row, stage.over, drawn)
    label = stage.name or (stage.outputs[0].name if stage.outputs else mixer.name)
    return MaskPicture(f"{label} of {mixer.name}", row, stage.over, matrix)


def _length(mixer: Mixer, params: Mapping[str, Number]) -> int:
    """A length at which the largest of the integer params can be told."""
    values = [
        params.get(p.name, p.value.value if isinstance(p.value, Literal) else 0)
        for p in mixer.params
        if p.kind is Kind.INT
    ]
    largest = max((int(value) for value in values), default=0)
    return min(max(_SPANS * largest, _SHORTEST), _LONGEST)


def _drawn_sizes(
    mixer: Mixer,
    stage: Attention,
    row: str,
    length: int,
    sizes: Mapping[str, int],
    params: Mapping[str, Number],
) -> dict[str, int]:
    from ..autotune.checking.proportions import default_sizes, resized

    usual = default_sizes(mixer, params=params)
    derived = {dim for dim, _ in mixer.sizes}
    heads = {dim for pair in mixer.heads for dim in pair}
    single = dict.fromkeys((heads | stage.queries) - derived, 1)
    long = {dim: length for dim in (row, stage.over) if dim not in derived}
    return resized(mixer, usual, {**single, **long, **sizes}, params)


def _mask_alone(mixer: Mixer, number: int, stage: Attention) -> Mixer:
    """A mixer whose output is the mask; what comes before it is there if it depends on that."""
    mask = Literal(True) if stage.mask is None else stage.mask
    names = set(_names(mixer, mask))
    equation = Equation("visible", mask)
    output = Output("visible", tuple((dim,) for dim in sorted(mask.axes)), Kind.BOOL)
    made = {one.name for before in mixer.stages[:number] for one in before.results}
    stages = mixer.stages[:number] if made & names else ()
    lets = mixer.lets if stages else tuple(let for let in mixer.lets if let.name in names)
    return replace(mixer, lets=lets, stages=(*stages, Map((equation,))), outputs=(output,))


def _names(mixer: Mixer, expr: Expr) -> Iterator[str]:
    """What an expression depends on, through lets."""
    lets = {let.name: let.value for let in mixer.lets}
    for node in walk(expr):
        if isinstance(node, Ref):
            yield node.name
            if node.name in lets:
                yield from _names(mixer, lets[node.name])


def _inputs(
    mixer: Mixer, sizes: Mapping[str, int], params: Mapping[str, Number]
) -> dict[str, Tensor]:
    import torch

    from ..autotune.checking.sampling import sample_inputs

    made = sample_inputs(mixer, sizes, torch.float64, params=params)
    for given in mixer.inputs:
        tensor = made[given.name]
        if given.default is not None:
            del made[given.name]
        elif given.sorted and tensor.ndim:
            count = tensor.shape[-1]
            documents = torch.arange(count) * 4 // max(count, 1)
            made[given.name] = documents.to(tensor.dtype).expand_as(tensor)
        elif given.kind is Kind.BOOL and any(mixer.sequence(dim) for dim in given.dims):
            chance = torch.Generator().manual_seed(0)
            made[given.name] = torch.randint(_MARKED, tensor.shape, generator=chance) == 0
    return made


def _at_first(
    mask: Tensor, dims: Sequence[str], row: str, column: str, sizes: Mapping[str, int]
) -> Tensor:
    """The mask [row, column] at position 0 of every other axis."""
    kept = [dim for dim in dims if dim in (row, column)]
    for place, dim in reversed(list(enumerate(dims))):
        if dim not in kept:
            mask = mask.select(place, 0)
    if kept == [column, row]:
        mask, kept = mask.T, [row, column]
    if kept == [row]:
        mask = mask[:, None]
    return mask.expand(sizes[row], sizes[column])


def terminal_lines(picture: MaskPicture, width: int = 48) -> list[str]:
    """The picture in block characters, two cells to a character; rows go down.

    A cell stands for one pair, or for a block of pairs where there are more of them than
    ``width``: then ``█`` is a block that is visible whole, ``▒`` one that is in part.
    """
    rows, columns = picture.matrix.shape
    cells = cell_shades(picture.matrix, min(width, rows), min(width, columns))
    if len(cells) % 2:
        cells.append([0] * min(width, columns))
    lines = [
        "".join(_CHARACTERS[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(cells[::2], cells[1::2], strict=True)
    ]
    edge = "─" * min(width, columns)
    axes = (
        f"{picture.rows.lower()} down to {rows}, {picture.columns.lower()} across to {columns}, "
        f"{picture.visible:.0%} visible"
    )
    return [f"┌{edge}┐", *(f"│{line}│" for line in lines), f"└{edge}┘", axes]


def cell_shades(matrix: Tensor, rows: int, columns: int) -> list[list[int]]:
    """The matrix in rows by columns cells: 0 where nothing is visible, 2 where all is, else 1."""
    import torch

    counts = matrix.long()
    whole = matrix.new_ones(()).long()
    for axis, cells in ((0, rows), (1, columns)):
        edges = _edges(matrix.shape[axis], cells)
        running = counts.cumsum(axis)
        before = running.new_zeros([1 if a == axis else n for a, n in enumerate(counts.shape)])
        counts = torch.cat([before, running], axis).index_select(axis, edges).diff(dim=axis)
        whole = whole[..., None] * edges.diff()
    full = (counts == whole) & (counts > 0)
    shades: list[list[int]] = ((counts > 0).long() + full).tolist()
    return shades


def _edges(size: int, cells: int) -> Tensor:
    import torch

    return torch.arange(cells + 1) * size // max(cells, 1)


def write_png(drawn: Sequence[MaskPicture], path: Path) -> None:
    """Write the pictures side by side as an image: visible pairs dark, the rest white."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * max(len(drawn), 1), 5), layout="constrained")
    for place, picture in enumerate(drawn):
        axes = figure.add_subplot(1, len(drawn), place + 1)
        axes.imshow(
            picture.matrix.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="antialiased"
        )
        axes.set_title(picture.title)
        axes.set_xlabel(picture.columns.lower())
        axes.set_ylabel(picture.rows.lower())
    figure.savefig(path, format="png", dpi=120)


__all__ = ["MaskPicture", "cell_shades", "pictures", "terminal_lines", "write_png"]
