"""The demo's training: a model of bytes learns through a spec that was just written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from ..runtime.backends import Chosen

STEPS, BATCH, LENGTH = 20, 4, 200
WIDTH, HEADS = 64, 4


def losses(path: Path, text: bytes, backend: Chosen) -> list[float]:
    """The loss of each step, in nats per byte; ``path`` is a spec of q, k and v."""
    import torch
    from torch import nn
    from torch.nn import functional

    from ..api import load

    torch.manual_seed(0)
    device = "cuda" if backend == "triton" else "cpu"
    mixer = load(path, backend=backend)
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(256, WIDTH),
            "project": nn.Linear(WIDTH, 3 * WIDTH),
            "logits": nn.Linear(WIDTH, 256),
        }
    ).to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    made = []
    for chunk in batches(text):
        chunk = chunk.to(device)
        x = model["embed"](chunk[:, :-1])
        q, k, v = model["project"](x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        x = x + mixer(q, k, v).transpose(1, 2).flatten(2)
        loss = functional.cross_entropy(model["logits"](x).flatten(0, 1), chunk[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        made.append(loss.item())
    return made


def batches(text: bytes) -> Sequence[Tensor]:
    """Random stretches of the text, [batch, length + 1] for each step."""
    import torch

    data = torch.tensor(list(text))
    generator = torch.Generator().manual_seed(0)
    starts = torch.randint(len(data) - LENGTH, [STEPS, BATCH, 1], generator=generator)
    return list(data[starts + torch.arange(LENGTH + 1)])


__all__ = ["LENGTH", "STEPS", "losses"]
