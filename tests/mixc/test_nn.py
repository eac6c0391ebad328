"""Mixers as modules: weights and buffers where the spec marks them, and all that torch does."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch

import mixc
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.ir.errors import ArgumentError

SPEC = """\
mixer: leaky
inputs:
  x: [B, T, C]
  rate: {dims: [C], weight: log(c + 1) - 3}
  gain: {dims: [C, N], weight: true, range: [2, 3]}
  scale: {dims: [N], buffer: factor * 2 ** (-n)}
  start: {dims: [C], default: 0, weight: true}
params: {factor: 8}
recurrence:
  over: T
  state: {h: [C]}
  initial: {h: start}
  step:
    - h = sigmoid(rate) * h + sum(gain * scale, N) * x
    - o = h
outputs: {o: [B, T, C]}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("specs") / "leaky.yaml"
    file.write_text(SPEC)
    return file


@pytest.fixture(scope="module")
def module(path: Path) -> mixc.nn.Mixer:
    return mixc.nn.Mixer(path, sizes={"C": 4, "N": 3})


def test_weights_and_buffers_start_as_the_spec_says(module: mixc.nn.Mixer) -> None:
    assert [name for name, _ in module.named_parameters()] == ["rate", "gain", "start"]
    assert [name for name, _ in module.named_buffers()] == ["scale"]
    torch.testing.assert_close(module.rate.detach(), torch.arange(1, 5).log() - 3)
    torch.testing.assert_close(module.scale, torch.tensor([8.0, 4.0, 2.0]))
    assert torch.equal(module.start.detach(), torch.zeros(4))
    assert 2 <= module.gain.min() < module.gain.max() <= 3
    assert "leaky(x) -> o; rate [C] = [4]; gain [C, N] = [4, 3]" in repr(module)


def test_a_weight_without_more_is_as_in_torch() -> None:
    weight = mixc.nn.Mixer("elman", sizes={"H": 4, "D": 64, "P": 64}).R.detach()
    assert float(weight.abs().max()) <= 1 / 8
    assert 0.9 / 8 < float(weight.std()) * 3**0.5 < 1.1 / 8
    again = mixc.nn.Mixer("elman", sizes={"H": 4, "D": 64, "P": 64})
    assert not torch.equal(weight, again.R)


def test_it_computes_what_the_mixer_does(module: mixc.nn.Mixer, path: Path) -> None:
    x = torch.randn(2, 5, 4)
    held = {name: getattr(module, name).detach() for name in module.held}
    expected = mixc.load(path)(x=x, **held)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x=x), expected)


def test_stretches_and_steps(module: mixc.nn.Mixer) -> None:
    x = torch.randn(2, 5, 4)
    with torch.no_grad():
        module.start.fill_(0.5)
        whole = module(x)
        first, state = module(x[:, :3], return_state=True)
        second, state = module(x[:, 3:4], state=state, return_state=True)
        third, state = module.step(x[:, 4], state=state)
    torch.testing.assert_close(torch.cat([first, second, third[:, None]], 1), whole)
    module.reset_parameters()
    assert torch.equal(module.start.detach(), torch.zeros(4))


def test_an_optimiser_trains_it(path: Path) -> None:
    module = mixc.nn.Mixer(path, sizes={"C": 4, "N": 3})
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-4)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x, losses = torch.randn(2, 5, 4), []
    for _ in range(3):
        losses.append(module(x).square().sum())
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[0] > losses[1] > losses[2]
    changed = [name for name, value in module.state_dict().items() if (value != before[name]).any()]
    assert changed == ["rate", "gain", "start"]


def test_copies_files_and_conversions(module: mixc.nn.Mixer, path: Path) -> None:
    x = torch.randn(2, 5, 4)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for again in (copy.deepcopy(module), torch.load(file, weights_only=False)):
        assert torch.equal(again(x), module(x))
        assert again.gain is not module.gain
    other = mixc.nn.Mixer(path, sizes={"C": 4, "N": 3})
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(x), module(x))
    assert {p.dtype for p in copy.deepcopy(module).double().parameters()} == {torch.float64}
    bare = mixc.nn.Mixer(path, sizes={"C": 4, "N": 3}, device="meta", dtype=torch.bfloat16)
    assert bare(torch.randn(2, 5, 4, device="meta", dtype=torch.bfloat16)).shape == x.shape


def test_what_does_not_fit_is_said(module: mixc.nn.Mixer, path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"leaky keeps .* the size of N is not known: .*\"N\""):
        mixc.nn.Mixer(path, sizes={"C": 4})
    with pytest.raises(ArgumentError, match=r"leaky has no dim 'M'; .*"):
        mixc.nn.Mixer(path, sizes={"C": 4, "M": 3})
    x = torch.randn(2, 5, 4)
    with pytest.raises(ArgumentError, match="rate is kept by the module"):
        module(x, rate=x)
    with pytest.raises(ArgumentError, match=r"takes 1 inputs \(x\) beside what the module keeps"):
        module(x, x)
    with pytest.raises(ArgumentError, match="x is given twice"):
        module(x, x=x)


def test_decays_start_as_published() -> None:
    """Radii and step sizes are spread as their authors draw them, one by one in place of a draw."""
    lru = mixc.nn.Mixer("lru", sizes={"N": 512, "C": 4, "D": 4})
    squared = torch.exp(-2 * lru.nu_log.exp())
    torch.testing.assert_close(squared, (torch.arange(512) + 0.5) / 512, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lru.gamma_log.exp() ** 2, 1 - squared, rtol=1e-4, atol=1e-5)
    phase = lru.theta_log.exp()
    assert 0 < phase.min() < 0.1 < 6.2 < phase.max() < 6.28
    rows = torch.stack([squared, phase])
    assert abs(float(torch.corrcoef(rows)[0, 1])) < 0.05
    kept = torch.exp(-torch.nn.functional.softplus(mixc.nn.Mixer("rg_lru", sizes={"C": 256}).decay))
    assert 0.9 <= kept.min() < 0.901 < 0.998 < kept.max() <= 0.9990
    step = mixc.nn.Mixer("s5", sizes={"N": 64, "C": 4}).log_dt.exp()
    assert 0.001 < step.min() < 0.0011 < 0.09 < step.max() < 0.1


def test_the_library_makes_modules() -> None:
    for path in library():
        mixer = load_file(path)
        dims = {d for entry in mixer.inputs if entry.held for d in entry.dims}
        fixed = {dim for dim, _ in mixer.sizes}
        module = mixc.nn.Mixer(path, sizes=dict.fromkeys(dims - fixed, 4))
        held = {entry.name for entry in mixer.inputs if entry.held}
        assert module.state_dict().keys() == held
        assert all(value.isfinite().all() for value in module.state_dict().values())
