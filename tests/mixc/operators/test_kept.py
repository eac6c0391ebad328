"""What a backward pass keeps under ``torch.compile`` and transforms: less where less is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import mixc
from mixc.operators.signature import Manner, manner_of, part_text, text_of
from mixc.runtime.kept import Kept
from mixc.runtime.segmented import SegmentedPasses


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


def drawn(rows: int) -> list[Tensor]:
    """x and the logits of the gate of ``hgrn``."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, rows, 16, generator=generator).requires_grad_() for _ in range(2)]


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of a segment, of each backward pass that goes by segments."""
    found: list[int] = []
    run = SegmentedPasses.run_backward

    def told(passes: SegmentedPasses, *given: Any) -> Any:
        found.append(passes.rows)
        return run(passes, *given)

    monkeypatch.setattr(SegmentedPasses, "run_backward", told)
    return found


def recorded(mixer: mixc.LoadedMixer, given: list[Tensor]) -> list[Tensor]:
    """What the operator of a call returns: outputs, and behind them what is kept."""
    names = " ".join(entry.name for entry in mixer.mixer.inputs[: len(given)])
    text = text_of(mixer.mixer, "auto", kept=mixer.kept)
    made: list[Tensor] = torch.ops.mixc.forward(text, f"{names}; ; ; {names}", given, [])
    return made


def gradients(function: object, given: list[Tensor]) -> list[Tensor]:
    outputs = function(*given)  # type: ignore[operator]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator) for o in outputs]
    loss = torch.stack([(o * w).sum() for o, w in zip(outputs, weights, strict=True)]).sum()
    return list(torch.autograd.grad(loss, given))


@pytest.mark.parametrize(("kept", "rows"), [("least", None), (64, 64), ("all", 0)])
def test_a_compiled_call_goes_back_by_segments_where_less_is_kept(
    kept: Kept, rows: int | None, segments: list[int]
) -> None:
    model = mixc.load("hgrn", kept=kept)
    compiled = torch.compile(lambda *x: tuple(model(*x)), fullgraph=True, dynamic=True)
    for length in (500, 333):
        given = drawn(length)
        wanted = gradients(mixc.load("hgrn", kept="all"), given)
        for found, expected in zip(gradients(compiled, given), wanted, strict=True):
            torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)
    assert len(segments) == (0 if kept == "all" else 2)
    assert rows is None or set(segments) <= {rows}


def test_what_has_no_segments_keeps_what_it_did(segments: list[int]) -> None:
    """An attention keeps a number of each row; made again, it would cost a whole pass."""
    given = [torch.randn(1, 2, 64, 16, requires_grad=True) for _ in range(3)]
    some = [len(recorded(mixc.load("causal", kept=kept), given)) for kept in ("all", "least", 64)]
    assert some == [2, 2, 2]
    assert not segments


@pytest.mark.parametrize("kept", ["all", "least", 128])
def test_an_operator_is_told_what_is_kept(kept: Kept) -> None:
    text = text_of(mixc.load("hgrn").mixer, "cpu", kept=kept)
    assert manner_of(text) == Manner("cpu", kept, "whole")
    assert manner_of(part_text(text, "packed")) == Manner("cpu", kept, "packed")
