"""Candidates sorted by score, row by row: what a selection means, on tensors alone.

Files that mixc writes contain this text too, so it needs torch and nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor


def choose(
    score: Tensor,
    among: Tensor | None,
    rule: str,
    bound: Tensor,
    always: Tensor | None,
    slots: int,
) -> tuple[Tensor, Tensor]:
    """What is chosen of each row (the last axis), and where, best first, in ``slots`` places."""
    candidate = score == score
    if among is not None:
        candidate = candidate & among
    count = score.shape[-1]
    order = score.sort(dim=-1, descending=True, stable=True).indices
    late = (~candidate).gather(-1, order).long()
    order = order.gather(-1, late.sort(dim=-1, stable=True).indices)
    ranked, candidate = score.gather(-1, order), candidate.gather(-1, order)
    place = torch.arange(count, device=score.device).expand(order.shape)
    if rule == "mass":
        share = torch.where(candidate, ranked, float("-inf")).softmax(-1)
        share = torch.where(candidate, share, 0.0)
        kept = candidate & (share.cumsum(-1) - share < bound)
    else:
        kept = candidate & (place < bound if rule == "top" else ranked > bound)
    chosen = torch.zeros_like(kept).scatter(-1, order, kept)
    forced = torch.zeros_like(kept) if always is None else always & ~chosen
    listed = torch.where(kept, order, count)
    listed = torch.cat([listed, torch.where(forced, place, count)], -1)
    first = (listed == count).long().sort(dim=-1, stable=True).indices
    listed = listed.gather(-1, first)[..., :slots]
    listed = torch.where(listed == count, -1, listed)
    return chosen | forced, torch.nn.functional.pad(listed, (0, slots - listed.shape[-1]), value=-1)


__all__ = ["choose"]
