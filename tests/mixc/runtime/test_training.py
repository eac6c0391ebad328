"""Gradients through generated kernels, forward and backward, against float64 autograd."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

import mixc
from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs
from mixc.ir.mixer import Mixer
from mixc.runtime.backends import kernel_runner

SMALL = Proportions(lengths=(37, 21), features=(20, 12, 10), ratio=2, groups=1, batch=(1, 2))


def gradients(
    name: str, inputs: dict[str, Tensor], backend: str = "auto", **more: Tensor
) -> tuple[Tensor, ...]:
    """The gradients of a random weighting of all outputs."""
    mixer = mixc.load(name, backend=backend)  # type: ignore[arg-type]
    leaves = {n: t.detach().clone() for n, t in inputs.items()}
    wanted = {n: t.requires_grad_() for n, t in leaves.items() if t.is_floating_point()}
    outputs = mixer(**leaves, **more)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in outputs]
    loss = torch.stack([(o * w.to(o.dtype)).sum() for o, w in zip(outputs, weights, strict=True)])
    return torch.autograd.grad(loss.sum(), list(wanted.values()))


# One of each kind: grouped heads with a learned sink, a decay with last states, a delta rule, a
# scan whose states are kept row by row.
@pytest.mark.parametrize("name", ["sink", "simple_gla", "delta", "hgrn"])
def test_native_kernels(name: str) -> None:
    mixer = mixc.load(name).mixer
    inputs = sample_inputs(mixer, default_sizes(mixer, SMALL))
    with warnings.catch_warnings():
        warnings.simplefilter("error", mixc.MixcWarning)  # nothing goes through torch
        found = gradients(name, inputs)
        again = gradients(name, inputs)
    wide = {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
    wanted = gradients(name, wide, backend="reference")
    for one, other, right in zip(found, again, wanted, strict=True):
        assert torch.equal(one, other)  # to the bit
        scale = float(right.abs().max())
        torch.testing.assert_close(one.double(), right, rtol=1e-4, atol=2e-6 * scale)


def test_packed_documents() -> None:
    mixer = mixc.load("causal").mixer
    inputs = sample_inputs(
        mixer, {"B": 1, "H": 2, "G": 1, "T": 37, "I": 37, "J": 37, "D": 20, "E": 12}
    )
    cuts = torch.tensor([0, 5, 37])
    found = gradients("causal", inputs, cu_seqlens=cuts)
    wide = {n: t.double() for n, t in inputs.items()}
    wanted = gradients("causal", wide, backend="reference", cu_seqlens=cuts)
    for one, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), right, rtol=1e-4, atol=1e-5)


def test_gradients_have_the_dtype_of_their_inputs() -> None:
    q, k, v = torch.randn(3, 1, 2, 19, 16).bfloat16()
    found = gradients("causal", {"q": q, "k": k, "v": v})
    assert [g.dtype for g in found] == [torch.bfloat16] * 3
    wanted = gradients("causal", {"q": q.double(), "k": k.double(), "v": v.double()}, "reference")
    for one, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), right, rtol=0.05, atol=0.05)


def test_logarithms_kept_from_the_forward_pass_keep_float32() -> None:
    """abc's are of some 20, exponentiated by differences: in 16 bits they lost 6 %."""
    torch.manual_seed(0)
    inputs = {n: torch.randn(1, 2, 67, 16).bfloat16() for n in "qkv"}
    inputs["s"] = (8 * torch.randn(1, 2, 67, 12)).bfloat16()
    found = gradients("abc", inputs)
    wanted = gradients("abc", {n: t.double() for n, t in inputs.items()}, "reference")
    for one, right in zip(found, wanted, strict=True):
        assert float((one.double() - right).abs().max()) < 0.008 * float(right.abs().max())


def test_weights_of_rounded_factors_are_made_again() -> None:
    """mega attends by projections of what a recurrence made. With the log of the total that its
    forward pass found by rounded ones, gradients in bfloat16 were 28 % off."""
    sizes = default_sizes(mixc.load("mega").mixer, SMALL)
    inputs = sample_inputs(mixc.load("mega").mixer, sizes, torch.bfloat16, seed=0)
    found = gradients("mega", inputs)
    wanted = gradients("mega", {n: t.double() for n, t in inputs.items()}, "reference")
    for one, right in zip(found, wanted, strict=True):
        assert float((one.double() - right).abs().max()) < 0.02 * float(right.abs().max())


def test_both_passes_run_as_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def runner(made: Mixer, chosen: str, tuned: Mixer | None = None, few_rows: bool = False):  # type: ignore[no-untyped-def]
        asked.append((made, tuned))
        return kernel_runner(made, chosen)  # type: ignore[arg-type]

    monkeypatch.setattr("mixc.runtime.running.kernel_runner", runner)
    mixer = mixc.load("causal")
    q, k, v = torch.randn(3, 1, 2, 19, 16)
    mixer(q.requires_grad_(), k, v).sum().backward()
    forward, backward = asked
    assert (forward[0].name, forward[1]) == ("causal", mixer.mixer)
    assert backward[0].name == "causal_backward"
    assert backward[1] == backward[0]


def test_no_second_derivative_by_kernels() -> None:
    q, k, v = torch.randn(3, 1, 2, 19, 16)
    q.requires_grad_()
    (first,) = torch.autograd.grad(
        mixc.load("causal")(q, k, v).square().sum(), q, create_graph=True
    )
    with pytest.raises(mixc.MixcError, match="no gradient of a gradient"):
        first.sum().backward()


def test_what_wants_no_gradient_gets_none() -> None:
    q, k, v = torch.randn(3, 1, 2, 19, 16)
    q.requires_grad_()
    mixc.load("causal")(q, k, v).sum().backward()
    assert q.grad is not None
    assert k.grad is None


HIDDEN = """\
mixer: strictly_before
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E], logit: [H]}
dims: {I: T, J: T}
attention:
  over: J
  score: sum(q * k, D)
  mask: j < i
  normalize: NORMALIZE
  output: {o: v}
  lse: lse
outputs: {o: [B, H, I, E], lse: [B, H, I]}
"""


@pytest.mark.parametrize(
    "normalize",
    ["softmax", "{softmax: {sink: logit}}", "{weight: sigmoid(score), denominator: total}"],
)
def test_rows_that_see_nothing_have_gradients_of_0(normalize: str, tmp_path: Path) -> None:
    text = HIDDEN.replace("NORMALIZE", normalize)
    if "softmax" not in normalize:
        text = text.replace("  lse: lse\n", "").replace(", lse: [B, H, I]", "")
    if "logit}" not in normalize:
        text = text.replace(", logit: [H]", "")
    spec = tmp_path / "strictly_before.yaml"
    spec.write_text(text)
    mixer = mixc.load(spec).mixer
    inputs = sample_inputs(mixer, default_sizes(mixer, SMALL))
    found = gradients(str(spec), inputs)
    wide = {name: tensor.double() for name, tensor in inputs.items()}
    wanted = gradients(str(spec), wide, backend="reference")
    for one, right in zip(found, wanted, strict=True):
        assert right.isfinite().all()
        torch.testing.assert_close(one.double(), right, rtol=1e-4, atol=1e-4)
    assert not found[0][:, :, 0].any()  # of q: its first row sees nothing


STEPS = """\
mixer: steps
inputs: {x: [B, C], y: [B, C], w: {dims: [C], grad: false}}
map:
  o: floor(x) * y * w
outputs: {o: [B, C]}
"""


def test_step_functions_and_what_has_no_gradient(tmp_path: Path) -> None:
    spec = tmp_path / "steps.yaml"
    spec.write_text(STEPS)
    mixer = mixc.load(spec)
    x, y, w = (
        torch.randn(3, 19).requires_grad_(),
        torch.randn(3, 19).requires_grad_(),
        torch.ones(19),
    )
    (alone,) = torch.autograd.grad(mixer(x, y.detach(), w).sum(), x)
    found = torch.autograd.grad(mixer(x, y, w).sum(), (x, y))
    seen = torch.func.grad(lambda x: mixer(x, y.detach(), w).sum())(x.detach())
    for one in (alone, found[0], seen):
        assert torch.equal(one, torch.zeros_like(x))
    assert torch.equal(found[1], x.floor())
    with pytest.raises(mixc.MixcError, match=r"w: the spec says `grad: false`.*w.detach\(\)"):
        mixer(x, y, w.clone().requires_grad_())


def test_cotangents_that_do_not_fit() -> None:
    q, k, v = torch.randn(3, 1, 2, 19, 16)
    o = mixc.load("causal")(q.requires_grad_(), k, v)
    with pytest.raises(RuntimeError, match="grad_output"):
        torch.autograd.grad(o, q, o[:, :1], retain_graph=True)
    with pytest.raises(RuntimeError, match="device"):
        torch.autograd.grad(o, q, o.to("meta"), retain_graph=True)
    wide = torch.autograd.grad(o, q, torch.ones_like(o, dtype=torch.float64), retain_graph=True)
    assert torch.equal(wide[0], torch.autograd.grad(o, q, torch.ones_like(o))[0])
