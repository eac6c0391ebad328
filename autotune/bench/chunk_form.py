"""Matrix recurrences by chunks, in torch: all chunks at once, only the states pass in sequence.

S' = decay * S + u (w . S) + sum of k v, for states [X, K, V] side by side over time [X, T, ...].
A strong opponent: what the papers on linear attention and the delta rule compute, in batched
products.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from .state_passing import pass_corrected, pass_states


@dataclass(frozen=True)
class Factors:
    """What a row does to the state; a decay has 1 in place of axes that it does not vary along.

    ``log_decay`` [X, T, K] (None: nothing decays), ``correction`` (u, w) [X, T, K], ``writes``
    (k, v) [X, T, K] and [X, T, V], ``start`` [X, K, V]. ``together``: u is the key of the only
    write.
    """

    log_decay: Tensor | None
    correction: tuple[Tensor, Tensor] | None
    writes: tuple[tuple[Tensor, Tensor], ...]
    start: Tensor
    together: bool = False


@dataclass
class Chunks:
    """The states at the starts of chunks, and what rows add inside them.

    ``keys`` and ``values`` pair up: a chunk adds sum over t of keys[t] values[t] to the state.
    Products are of factors in ``dtype``. ``split``: decays of single channels are two factors that
    meet in the middle of a chunk, which is quick, and overflows where gates are strong.
    """

    factors: Factors
    length: int
    chunk: int
    dtype: torch.dtype
    split: bool = True
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Sum up the decays, solve for the corrections, and pass the states on."""
        self._sum_decays()
        self.keys = [self._cut(k) for k, _ in self.factors.writes]
        self.values = [self._cut(v) for _, v in self.factors.writes]
        reads = self._solve()
        self._pass(reads)

    def read(self, query: Tensor, after: bool) -> Tensor:
        """sum(query * S, K) in every row [X, T, V], S before the row or as the row leaves it."""
        query = self._cut(query)
        found = self._product(self._decayed(query, before=not after), self.starts)
        for key, value in zip(self.keys, self.values, strict=True):
            found = found + self._product(self._pairs(query, key, before=not after), value)
        return found.flatten(1, 2)[:, : self.length]

    def read_values(self, query: Tensor, after: bool) -> Tensor:
        """The same along the other axis: sum(query * S, V) in every row, [X, T, K]."""
        query = self._cut(query)
        found = self._decayed(self._product(query, self.starts.mT), before=not after)
        for key, value in zip(self.keys, self.values, strict=True):
            pairs = self._product(query, value.mT).tril(0 if after else -1)
            found = found + self._spread(pairs, key, before=not after)
        return found.flatten(1, 2)[:, : self.length]

    def _spread(self, pairs: Tensor, keys: Tensor, before: bool) -> Tensor:
        """sum over s of pairs[t, s] keys[s], decayed from s to t."""
        sums = self.before if before else self.sums
        if sums is None or self.sums is None:
            return self._product(pairs, keys)
        if self.split and sums.shape[-1] > 1:
            later = (sums - self.middle).exp()
            return later * self._product(pairs, keys * (self.middle - self.sums).exp())
        gaps = sums[..., :, None, :] - self.sums[..., None, :, :]
        seen = self._seen(-1 if before else 0)
        decay = gaps.masked_fill(~seen[..., None], -torch.inf).exp()
        return (pairs[..., None] * keys[..., None, :, :] * decay).sum(-2)

    def _sum_decays(self) -> None:
        log = self.factors.log_decay
        if log is None:
            self.sums = self.before = None
            return
        log = self._cut(log.expand(-1, self.length, -1))
        self.sums = log.cumsum(2)
        self.before = self.sums - log
        self.end = self.sums[:, :, -1:]
        self.middle = self.sums[:, :, self.chunk // 2, None]

    def _cut(self, rows: Tensor) -> Tensor:
        """[X, T, ...] as [X, N, C, ...]; rows past the end change nothing."""
        padded = functional.pad(rows, (0, 0, 0, -self.length % self.chunk))
        counts = padded.shape[0], padded.shape[1] // self.chunk
        return padded.reshape(*counts, self.chunk, padded.shape[-1])

    def _seen(self, last: int) -> Tensor:
        """Which rows s of a chunk come before row t: s - t <= last."""
        device = self.factors.start.device
        return torch.ones(self.chunk, self.chunk, dtype=torch.bool, device=device).tril(last)

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        kept = torch.promote_types(self.dtype, torch.float32)
        return (a.to(self.dtype) @ b.to(self.dtype)).to(kept)

    def _decayed(self, rows: Tensor, before: bool) -> Tensor:
        sums = self.before if before else self.sums
        return rows if sums is None else rows * sums.exp()

    def _pairs(self, rows: Tensor, columns: Tensor, before: bool) -> Tensor:
        """sum over K of rows[t] columns[s], decayed from s to t, for s before t (or up to it)."""
        last = -1 if before else 0
        sums = self.before if before else self.sums
        if sums is None or self.sums is None:
            return self._product(rows, columns.mT).tril(last)
        seen = self._seen(last)
        if sums.shape[-1] == 1:
            gaps = (sums - self.sums.mT).masked_fill(~seen, -torch.inf)
            return self._product(rows, columns.mT) * gaps.exp()
        if not self.split:
            gaps = sums[..., :, None, :] - self.sums[..., None, :, :]
            decay = gaps.masked_fill(~seen[..., None], -torch.inf).exp()
            return (rows[..., :, None, :] * columns[..., None, :, :] * decay).sum(-1)
        rows = rows * (sums - self.middle).exp()
        columns = columns * (self.middle - self.sums).exp()
        return self._product(rows, columns.mT).tril(last)

    def _solve(self) -> Tensor | None:
        """What the correction reads, per row: a value of the chunk, plus these reads of its start.

        (I - A) r = w S + what writes add, A the strictly lower pairs of w and u.
        """
        if self.factors.correction is None:
            return None
        u, w = (self._cut(x) for x in self.factors.correction)
        pairs = self._pairs(w, u, before=True)
        start = self._decayed(w, before=True)
        if self.factors.together:  # r + v by one solve
            added = self.values[0]
        else:
            added = sum(
                (
                    self._product(self._pairs(w, key, before=True), value)
                    for key, value in zip(self.keys, self.values, strict=True)
                ),
                start.new_zeros(()),
            ).expand(*start.shape[:-1], self.factors.start.shape[-1])
        one = torch.eye(self.chunk, device=pairs.device)
        right = torch.cat([added, start], -1)
        solved: Tensor = torch.linalg.solve_triangular(
            one - pairs, right, upper=False, unitriangular=True
        )
        width = added.shape[-1]
        if self.factors.together:
            self.values = [solved[..., :width]]
        else:
            self.keys.append(u)
            self.values.append(solved[..., :width])
        return solved[..., width:]

    def _pass(self, reads: Tensor | None) -> None:
        """The states at the start of each chunk, and the last; corrections get their values."""
        keys = [k if self.sums is None else k * (self.end - self.sums).exp() for k in self.keys]
        fixed = keys if reads is None else keys[:-1]
        added = None
        for key, value in zip(fixed, self.values, strict=False):
            product = self._product(key.mT, value)
            added = product if added is None else added + product
        whole = None if self.sums is None else self.end.exp().mT  # [X, N, K, 1]
        start = self.factors.start
        if reads is None:
            assert added is not None
            self.starts, self.last = pass_states(added, whole, start)
        else:
            read, key = reads.to(self.dtype), keys[-1].mT.to(self.dtype).contiguous()
            found = pass_corrected(added, read, self.values[-1], key, whole, start)
            self.starts, self.values[-1], self.last = found
