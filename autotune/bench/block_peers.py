"""SDPA piece by piece, each with the keys that some of its queries see: documents, windows.

What a user writes who knows the mask: a loop over documents, each causal or full; in one that is
neither, over blocks of queries with a slice of the keys and a small mask. Where the pieces lie is
found from the mask before the call, as FlexAttention's block mask is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...ir.errors import UnsupportedError
from ...ir.expression import Expr
from .measuring import second_call_s
from .peers import LARGEST_BIAS_BYTES, Call, Setting, captured_inputs, function_of
from .sdpa_peers import Linear

# Queries of a piece, at most; the quickest counts.
_BLOCKS = (64, 128, 256, 512)
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Piece:
    """Rows of one entry of the batch or of all, the keys they need, and SDPA's mask."""

    batch: slice
    rows: slice
    keys: slice
    causal: bool = False
    mask: Tensor | None = None


def blocks(setting: Setting) -> Call:
    """SDPA over the pieces of a mask, their masks made beforehand."""
    operands = Linear(setting)
    form = operands.form
    if form.mask is None or form.sink is not None:
        raise UnsupportedError("its mask hides nothing" if form.mask is None else "it has a sink")
    pairs = _Pairs(operands)
    cuts = [_Cut(pairs, size).pieces() for size in _BLOCKS]
    calls = {_over(operands, pieces): len(pieces) for pieces in cuts if pieces}
    if not calls:
        raise UnsupportedError("its mask leaves nothing out by pieces")
    quickest = min(calls, key=second_call_s)
    what = f"torch SDPA, {calls[quickest]} pieces"
    return Call(what, quickest, operands.results, lacks=form.lacks, operands=operands.read)


def _over(operands: Linear, pieces: list[Piece]) -> Callable[[], Tensor]:
    dtype, grouped, features = operands.setting.dtype, operands.grouped, operands.value.shape[3]

    def call() -> Tensor:
        query, key, value = operands.cast()
        made = query.new_empty(*query.shape[:3], features)
        for piece in pieces:
            rows, keys = (
                (piece.batch, slice(None), piece.rows),
                (piece.batch, slice(None), piece.keys),
            )
            made[rows] = functional.scaled_dot_product_attention(
                query[rows],
                key[keys],
                value[keys],
                attn_mask=piece.mask,
                is_causal=piece.causal,
                scale=operands.factor,
                enable_gqa=grouped,
            )
        return made.to(dtype)

    return call


class _Pairs:
    """What rows see, and what is added to their scores, by the texts of mask and bias."""

    def __init__(self, operands: Linear) -> None:
        setting, form = operands.setting, operands.form
        names = dict(zip(form.index_dims, ("b", "h", "i", "j"), strict=True))
        captured = captured_inputs(setting, form)

        def made(expr: Expr) -> Callable[..., Tensor]:
            return function_of("b, h, i, j", expr, setting, names, captured)

        assert form.mask is not None
        self.operands, self.mask_of = operands, made(form.mask)
        self.bias_of = None if operands.bias is None else made(operands.bias)
        self.batches, self.heads, self.rows, _ = operands.query.shape
        self.keys = operands.key.shape[2]
        batch = form.index_dims[0]
        parts = [part for part in (form.mask, operands.bias) if part is not None]
        apart = any(batch in part.axes for part in parts)
        self.entries = [slice(n, n + 1) for n in range(self.batches)]
        if not apart:
            self.entries = [slice(0, self.batches)]

    def visible(self, batch: slice, rows: slice, keys: slice) -> Tensor:
        """[1, heads or 1, rows, keys]."""
        return self._spread(self.mask_of(*self._places(batch, rows, keys)), rows, keys)

    def added(self, batch: slice, rows: slice, keys: slice) -> Tensor:
        """What SDPA adds: the bias where a key is visible; or its truth, where there is none."""
        visible = self.visible(batch, rows, keys)
        if self.bias_of is None:
            return visible
        bias = self.bias_of(*self._places(batch, rows, keys)).to(self.operands.compute)
        return torch.where(visible, bias, float("-inf"))

    def ends(self, batch: slice) -> tuple[Tensor, Tensor]:
        """The first key that each row sees, and the one after the last; none: all and 0."""
        first, last = [], []
        for start in range(0, self.rows, _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, self.rows))
            seen = self.visible(batch, rows, slice(0, self.keys)).any(1)[0].cpu().int()
            none = seen.sum(1) == 0
            first.append(seen.argmax(1).masked_fill(none, self.keys))
            last.append((self.keys - seen.flip(1).argmax(1)).masked_fill(none, 0))
        return torch.cat(first), torch.cat(last)

    def _places(self, batch: slice, rows: slice, keys: slice) -> list[Tensor]:
        whole = (slice(batch.start, batch.start + 1), slice(0, self.heads), rows, keys)
        device = self.operands.device
        return [
            torch.arange(part.start, part.stop, device=device).view(
                [-1 if axis == n else 1 for axis in range(4)]
            )
            for n, part in enumerate(whole)
        ]

    def _spread(self, truth: Tensor, rows: slice, keys: slice) -> Tensor:
        return truth.expand(1, -1, rows.stop - rows.start, keys.stop - keys.start)


class _Cut:
    """The pieces of a mask with ``size`` rows at most; one that is causal or full is not cut."""

    def __init__(self, pairs: _Pairs, size: int) -> None:
        self.pairs, self.size = pairs, size
        self.masks: dict[torch.Size, Tensor] = {}
        self.bytes = 0

    def pieces(self) -> list[Piece]:
        """All pieces; none where they are no less work than the whole."""
        found: list[Piece] = []
        for batch in self.pairs.entries:
            first, last = self.pairs.ends(batch)
            for rows in _parts(first, last):
                found += self._of_part(batch, rows, first, last)
        pairs = sum(_length(p.batch) * _length(p.rows) * _length(p.keys) for p in found)
        whole = self.pairs.batches * self.pairs.rows * self.pairs.keys
        return found if pairs < whole else []

    def _of_part(self, batch: slice, rows: slice, first: Tensor, last: Tensor) -> Iterator[Piece]:
        if self.pairs.bias_of is None:
            whole = self._piece(batch, rows, first, last)
            if whole.mask is None:
                yield whole
                return
        for start in range(rows.start, rows.stop, self.size):
            block = slice(start, min(start + self.size, rows.stop))
            yield self._piece(batch, block, first, last, kept=True)

    def _piece(
        self, batch: slice, rows: slice, first: Tensor, last: Tensor, kept: bool = False
    ) -> Piece:
        keys = slice(int(first[rows].min()), int(last[rows].max()))
        if keys.stop <= keys.start:  # a mask that hides them all gives rows of zeros
            keys = slice(0, 1)
        mask = self.pairs.added(batch, rows, keys)
        if mask.dtype == torch.bool:
            if bool(mask.all()):
                return Piece(batch, rows, keys)
            if mask.shape[2] == mask.shape[3] and bool(
                (mask == torch.ones_like(mask).tril()).all()
            ):
                return Piece(batch, rows, keys, causal=True)
        return Piece(batch, rows, keys, mask=self._shared(mask) if kept else mask)

    def _shared(self, mask: Tensor) -> Tensor:
        """An equal mask that is there already: those of a window are all alike."""
        known = self.masks.get(mask.shape)
        if known is None or not torch.equal(known, mask):
            self.masks[mask.shape] = known = mask.contiguous()
            self.bytes += known.nbytes
        if self.bytes > LARGEST_BIAS_BYTES:
            raise UnsupportedError(f"its masks would take {self.bytes / (1 << 30):.1f} GiB")
        return known


def _parts(first: Tensor, last: Tensor) -> list[slice]:
    """Rows that see keys of their own: no row sees a key before, or after, those of its part."""
    ends = last.cummax(0).values[:-1]
    starts = first.flip(0).cummin(0).values.flip(0)[1:]
    cuts = (torch.nonzero(starts >= ends).flatten() + 1).tolist()
    bounds = [0, *cuts, len(first)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


def _length(part: slice) -> int:
    return int(part.stop - part.start)
