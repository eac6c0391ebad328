"""Dual attention, over places and over channels, by its formula."""

from __future__ import annotations

from torch.nn import functional

from .independent import assert_agrees, normal

B, T, H, D, E = 2, 9, 3, 4, 5


def test_dual_attends_along_places_and_along_channels() -> None:
    places = {"q": D, "k": D, "v": E}
    channels = {"q_channel": E, "k_channel": 6, "v_channel": 6}
    x = {n: normal(B, T, H, size, grad=True) for n, size in {**places, **channels}.items()}
    x["tau"] = normal(H, grad=True)
    q, k, v, qc, kc, vc = (a.permute(0, 2, 3, 1) for n, a in x.items() if n != "tau")  # B H D T
    o = (k.softmax(3) @ v.mT).mT @ q.softmax(2)
    score = functional.normalize(qc, dim=-1) @ functional.normalize(kc, dim=-1).mT
    c = (score * x["tau"][:, None, None]).softmax(-1) @ vc
    assert_agrees("dual", x, {"o": o.permute(0, 3, 1, 2), "c": c.permute(0, 3, 1, 2)})
