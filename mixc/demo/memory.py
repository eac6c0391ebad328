"""The demo's recurrence: a memory in ten lines, run in chunks and step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from ..ir.mixer import Mixer
    from ..runtime.backends import Chosen

MEMORY = """\
mixer: my_memory
inputs: {q: [B, H, T, D], k: [B, H, T, D], v: [B, H, T, E], gate: [B, H, T]}
recurrence:
  over: T
  state: {S: [D, E]}
  step:
    - S = sigmoid(gate) * S
    - S = S + k * (v - sum(k * S, D)) / (1 + sum(k * k, D))
    - o = D ** -0.5 * sum(q * S, D)
outputs: {o: [B, H, T, E]}
"""


def memory_spec(folder: Path) -> Path:
    """The recurrence, as a file."""
    path = folder / "my_memory.yaml"
    path.write_text(MEMORY, encoding="utf-8")
    return path


def in_chunks(mixer: Mixer, tensors: Mapping[str, Tensor], backend: Chosen) -> Mapping[str, Tensor]:
    """The outputs by kernels that take the sequence in chunks."""
    from ..runtime.running import by_backend

    if backend != "cpu":
        return by_backend(mixer, tensors, {}, backend)
    from ..backends.cpu.run import CpuRunner
    from ..compiler.pipeline import lower

    return CpuRunner(mixer, lower, {"by_rows": 0})(tensors)


def step_by_step(path: Path, tensors: Mapping[str, Tensor], backend: Chosen) -> Tensor:
    """The rows of ``o``, each by a call of its own that takes the state of the one before."""
    import torch

    from ..api import load

    memory, state, rows = load(path, backend=backend), None, []
    for row in range(tensors["q"].shape[2]):
        o, state = memory.step(*(tensor[:, :, row] for tensor in tensors.values()), state=state)
        rows.append(o)
    return torch.stack(rows, dim=2)


__all__ = ["in_chunks", "memory_spec", "step_by_step"]
