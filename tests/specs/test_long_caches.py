"""Caches of which a part is read: by InfLLM, EM-LLM, SirLLM, TokenSelect, LongHeads."""

from __future__ import annotations

import math

import pytest
import torch

from .independent import assert_agrees, normal, rotate, sdpa

B, H, D, E = 2, 4, 6, 5


def near_and_far(
    q: torch.Tensor, k: torch.Tensor, local: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As InfLLM has them: scores near by, which pairs are near, the weight that each key gets of
    later queries there, and queries as far keys see them."""
    length = q.shape[2]
    i, j = torch.arange(length)[:, None], torch.arange(length)
    near = rotate(q, j.double()) @ rotate(k, j.double()).mT / math.sqrt(D)
    window = (j <= i) & (i - j < local)
    mass = near.detach().masked_fill(~window, -math.inf).softmax(-1)
    got = (mass * (window & (j < i))).sum(2)
    return near, window, got, rotate(q, torch.full((length,), local - 1.0, dtype=torch.float64))


def representatives(
    k: torch.Tensor, got: torch.Tensor, own: torch.Tensor, few: int
) -> torch.Tensor:
    """For each head the mean of the few keys of ``own`` that got most."""
    best = [own[got[h, own].topk(min(few, len(own))).indices] for h in range(H)]
    return torch.stack([k[h, best[h]].mean(0) for h in range(H)])


@pytest.mark.parametrize("keep", [1, 2])
def test_infllm_reads_the_blocks_whose_representatives_fit(keep: int) -> None:
    length, first, local, block, few, chunk = 31, 3, 8, 4, 2, 5
    x = {n: normal(B, H, length, s, grad=True) for n, s in zip("qkv", (D, D, E), strict=True)}
    q, k = (x[n] for n in "qk")
    i, j = torch.arange(length)[:, None], torch.arange(length)
    near, window, got, far_q = near_and_far(q, k, local)
    far = far_q @ k.mT / math.sqrt(D)
    seen = (j < first).expand(B, length, length).clone()
    for b in range(B):
        keys = []
        for n in range(-(-length // block)):
            own = torch.arange(n * block, min((n + 1) * block, length))
            keys.append(representatives(k[b], got[b], own, few))
        for c in range(-(-length // chunk)):
            rows = slice(c * chunk, min((c + 1) * chunk, length))
            asked = far_q[b, :, rows].mean(1)
            scores = torch.stack([(asked * key).sum() for key in keys]).detach()
            old = [
                n
                for n in range(len(keys))
                if n * block >= first and (n + 1) * block <= c * chunk - local + 1
            ]
            for n in sorted(old, key=lambda n, scores=scores: -float(scores[n]))[:keep]:
                seen[b, rows, n * block : (n + 1) * block] = True
    seen = seen[:, None] & (i - j >= local)
    score = torch.where(window, near, far.masked_fill(~seen, -math.inf))
    o = score.softmax(-1) @ x["v"]
    sizes = {"first": first, "local": local, "block": block, "few": few, "chunk": chunk}
    assert_agrees("infllm", x, {"o": o}, {**sizes, "keep": keep})


@pytest.mark.parametrize("length", [3, 21])
def test_sir_keeps_the_first_the_surprising_and_the_newest(length: int) -> None:
    first, keep, room, groups, rows = 2, 4, 9, 2, 3
    x = {"q": normal(B, H, rows, D, grad=True), "k": normal(B, groups, length, D, grad=True)}
    x |= {"v": normal(B, groups, length, E, grad=True), "surprisal": normal(B, length)}
    outs = []
    for b in range(B):
        told = set(range(min(first, length)))
        by_surprisal = x["surprisal"][b].argsort(descending=True).tolist()
        told |= set([j for j in by_surprisal if j not in told][:keep])
        newest = [j for j in reversed(range(length)) if j not in told]
        stays = sorted(told | set(newest[: room - len(told)]))
        slots = torch.arange(len(stays) + rows, dtype=torch.float64)
        k = rotate(x["k"][b][:, stays], slots[: len(stays)]).repeat_interleave(H // groups, 0)
        q = rotate(x["q"][b], slots[len(stays) :])
        v = x["v"][b][:, stays].repeat_interleave(H // groups, 0)
        outs.append((q @ k.mT / math.sqrt(D)).softmax(-1) @ v)
    params = {"first": first, "keep": keep, "room": room}
    assert_agrees("sir", x, {"o": torch.stack(outs)}, params)


@pytest.mark.parametrize(("alike", "groups"), [(0.9, 2), (0.2, 1), (-1.0, 4)])
def test_tokenselect_votes_anew_when_a_chunk_asks_for_something_else(
    alike: float, groups: int
) -> None:
    length, first, local, keep, chunk = 32, 2, 5, 3, 4
    x = {
        n: normal(B, s, length, D, grad=True)
        for n, s in zip("qkv", (H, groups, groups), strict=True)
    }
    k = x["k"].detach().repeat_interleave(H // groups, 1)
    seen = torch.zeros(B, length, length, dtype=torch.bool)
    votes = 0
    for b in range(B):
        last, chosen = None, torch.tensor([], dtype=torch.long)
        for start in range(0, length, chunk):
            rows = slice(start, start + chunk)
            asked = x["q"][b, :, rows].detach().mean(1)
            if last is None or torch.cosine_similarity(asked.ravel(), last.ravel(), 0) < alike:
                last, votes = asked, votes + 1
                old = torch.arange(first, max(first, start - local + 1))
                vote = torch.einsum("hd,hjd->hj", asked, k[b, :, old]).softmax(-1).sum(0)
                chosen = old[vote.topk(min(keep, len(old))).indices]
            seen[b, rows, chosen] = True
    assert votes == B if alike == -1.0 else votes > B
    i, j = torch.arange(length)[:, None], torch.arange(length)
    seen = (seen | (j < first) | (i - j < local)) & (j <= i)
    o = sdpa(x["q"], x["k"], x["v"], seen[:, None])
    sizes = {"first": first, "local": local, "keep": keep, "chunk": chunk, "alike": alike}
    assert_agrees("tokenselect", x, {"o": o}, sizes)


@pytest.mark.parametrize(("length", "keep"), [(27, 3), (27, 4), (27, 9), (3, 3)])
def test_longheads_reads_its_best_chunks_end_to_end(length: int, keep: int) -> None:
    chunk = 4
    x = {n: normal(B, H, length, D, grad=True) for n in "qkv"}
    cuts = [slice(start, start + chunk) for start in range(0, length, chunk)]
    place = torch.arange(length) % chunk

    def stands(b: int, h: int, cut: slice) -> torch.Tensor:
        q, k = (rotate(x[n][b, h, cut].detach(), place[cut].double()) for n in "qk")
        seen = sdpa(q[None], k[None], x["v"][b, h, cut].detach()[None]).mean(1, keepdim=True)
        return sdpa(seen, k[None], k[None])[0, 0]

    rows = []
    for b in range(B):
        for h in range(H):
            q, k, v = (x[n][b, h] for n in "qkv")
            keys = torch.stack([stands(b, h, cut) for cut in cuts])
            for i in range(length):
                own = i // chunk
                always = {0, max(own - 1, 0), own}
                liked = (keys[: own + 1] @ q[i].detach()).argsort(descending=True).tolist()
                rest = [n for n in liked if n not in always]
                told = sorted(always | set(rest[: keep - len(always)]))
                at = torch.cat([torch.arange(length)[cuts[n]] for n in told])
                at = at[at <= i]
                asks = rotate(q[i], torch.tensor((len(told) - 1.0) * chunk + i % chunk))
                score = rotate(k[at], torch.arange(len(at)).double()) @ asks
                rows.append((score / math.sqrt(D)).softmax(0) @ v[at])
    o = torch.stack(rows).view(B, H, length, D)
    assert_agrees("longheads", x, {"o": o}, {"chunk": chunk, "keep": keep})


@pytest.mark.parametrize(("keep", "beside"), [(1, 1), (3, 2)])
def test_emllm_reads_events_and_neighbours_of_the_best(keep: int, beside: int) -> None:
    length, first, local, least, few, chunk = 41, 2, 9, 2, 2, 5
    x = {n: normal(B, H, length, s, grad=True) for n, s in zip("qkv", (D, D, E), strict=True)}
    starts = torch.zeros(B, length, dtype=torch.bool)
    for b, cuts in enumerate(([3, 5, 9, 12, 18, 20, 24, 30], [2, 6, 8, 13, 15, 21, 26, 33, 38])):
        starts[b, cuts] = True
    x["event"] = starts.int().cumsum(-1).int()
    q, k = (x[n] for n in "qk")
    i, j = torch.arange(length)[:, None], torch.arange(length)
    near, window, got, far_q = near_and_far(q, k, local)
    seen = (j < first).expand(B, length, length).clone()
    for b in range(B):
        events = [torch.where(x["event"][b] == n)[0] for n in range(int(x["event"][b].max()) + 1)]
        keys = []
        for own in events:
            keys.append(representatives(k[b], got[b], own, few))
        for c in range(-(-length // chunk)):
            rows = slice(c * chunk, min((c + 1) * chunk, length))
            asked = far_q[b, :, rows].mean(1)
            fits = [float((asked * key).sum().detach()) for key in keys]
            old = [
                n
                for n, own in enumerate(events)
                if own[0] >= first and own[-1] <= c * chunk - local
            ]
            order = sorted(old, key=lambda n, fits=fits: -fits[n])
            told = {*order[:keep]}
            for n in order[:beside]:
                told |= {n - 1, n + 1} & {*old}
            for n in told:
                seen[b, rows, events[n]] = True
    far = (far_q @ k.mT / math.sqrt(D)).masked_fill(~(seen[:, None] & (i - j >= local)), -math.inf)
    o = torch.where(window, near, far).softmax(-1) @ x["v"]
    sizes = {"first": first, "local": local, "least": least, "few": few, "chunk": chunk}
    assert_agrees("emllm", x, {"o": o}, {**sizes, "keep": keep, "beside": beside})
