"""Calls on tensors without values: shapes and dtypes alone, and never a kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_map

import mixc
from mixc.autotune.checking.proportions import default_sizes, resized
from mixc.autotune.checking.sampling import sample_inputs
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file
from mixc.ir.errors import ArgumentError

SPECS = sorted(library())


def described(result: object) -> object:
    """A result with its tensors as shapes and dtypes."""
    return tree_map(lambda t: (tuple(t.shape), t.dtype) if isinstance(t, Tensor) else t, result)


def small_inputs(path: Path) -> dict[str, Tensor]:
    mixer = load_file(path)
    roots = {mixer.sequence(d) or d for i in mixer.inputs for d in i.dims if mixer.sequence(d)}
    sizes = resized(mixer, default_sizes(mixer), dict.fromkeys(roots, 3), {})
    return sample_inputs(mixer, sizes, torch.float32, seed=0)


@pytest.mark.parametrize("path", SPECS, ids=lambda p: p.stem)
def test_every_spec_has_its_outputs_on_meta(path: Path) -> None:
    inputs = small_inputs(path)
    expected = mixc.load(path, backend="reference")(**inputs)
    found = mixc.load(path)(**{name: tensor.to("meta") for name, tensor in inputs.items()})
    assert described(found) == described(expected)
    for tensor in found if isinstance(found, tuple) else (found,):
        assert tensor.is_meta


def rows() -> dict[str, Tensor]:
    return {"x": torch.randn(2, 5, 16), "g": -torch.rand(2, 5, 16)}


@pytest.fixture(scope="module")
def mixer() -> mixc.LoadedMixer:
    loaded = mixc.load("hgrn")
    loaded(**rows())  # the calls below are like one that ran
    return loaded


def test_fake_tensors(mixer: mixc.LoadedMixer) -> None:
    expected = mixer(**rows())
    with FakeTensorMode() as mode:
        fakes = {name: mode.from_tensor(tensor) for name, tensor in rows().items()}
        found = mixer(*fakes.values())
    assert described(found) == described(expected)
    assert isinstance(mixer(*fakes.values()).o, FakeTensor)  # outside of the mode too
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert isinstance(mixer(*rows().values()).o, FakeTensor)


def test_stretches_and_steps_without_values(mixer: mixc.LoadedMixer) -> None:
    x = rows()
    row = {name: tensor[:, 0] for name, tensor in x.items()}
    result, state = mixer(**x, return_state=True)
    expected = mixer.step(**row, state=state)
    bare = {name: tensor.to("meta") for name, tensor in x.items()}
    found, state = mixer(**bare, return_state=True)
    assert described(found) == described(result)
    found, state = mixer.step(**{n: t.to("meta") for n, t in row.items()}, state=state)
    assert (described(found), state.t) == (described(expected[0]), expected[1].t)
    assert described(dict(state.tensors)) == described(dict(expected[1].tensors))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_packed_rows_without_values(mixer: mixc.LoadedMixer, device: str) -> None:
    x = {name: tensor[:1] for name, tensor in rows().items()}
    cuts = torch.tensor([0, 2, 2, 5])
    expected = mixer(**x, cu_seqlens=cuts)
    bare = {name: tensor.to("meta") for name, tensor in x.items()}
    found = mixer(**bare, cu_seqlens=cuts.to(device))
    assert described(found) == described(expected)
    found, state = mixer(**bare, cu_seqlens=cuts, return_state=True)
    assert (described(found), state.t) == (described(expected), (2, 0, 3))
    with pytest.raises(ArgumentError, match="cu_seqlens: its values are needed here"):
        mixer(**bare, cu_seqlens=cuts.to("meta"), return_state=True)


def test_attention_in_documents_without_values() -> None:
    x = [torch.randn(1, 2, 7, 16) for _ in range(3)]
    cuts = torch.tensor([0, 3, 7])
    attend = mixc.load("causal", backend="reference")
    found = attend(*(t.to("meta") for t in x), cu_seqlens=cuts.to("meta"))
    assert described(found) == described(attend(*x, cu_seqlens=cuts))


def test_gradients_flow_without_values(mixer: mixc.LoadedMixer) -> None:
    x = {name: tensor.to("meta").requires_grad_() for name, tensor in rows().items()}
    mixer(**x).o.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.is_meta for tensor in x.values())


def test_shapes_are_checked_without_values(mixer: mixc.LoadedMixer) -> None:
    x = {name: tensor.to("meta") for name, tensor in rows().items()}
    with pytest.raises(ArgumentError, match=r"g: expected \[B, T, C\] with .*T = 5 as in x"):
        mixer(**{**x, "g": x["g"][:, 1:]})


def test_a_default_device_does_not_move_buffers(mixer: mixc.LoadedMixer) -> None:
    x = rows()
    expected = mixer(**x)
    cuts = torch.tensor([0, 5])
    with torch.device("meta"):
        assert torch.equal(mixer(**x).o, expected.o)
        assert torch.equal(mixer(*x.values()).o, expected.o)
        one = {name: tensor[:1] for name, tensor in x.items()}
        torch.testing.assert_close(mixer(**one, cu_seqlens=cuts).o, expected.o[:1])
        _, state = mixer(**x, return_state=True)
        assert not mixer.step(*(tensor[:, 0] for tensor in x.values()), state=state)[0].o.is_meta


def test_what_kernels_can_not_read() -> None:
    attend = mixc.load("causal")
    q, k, v = (torch.randn(1, 2, 8, 16) for _ in range(3))
    conjugate = torch.complex(q, k).conj().imag  # its signs are a bit, not in memory
    assert conjugate.is_neg()
    torch.testing.assert_close(attend(q, conjugate, v), attend(q, -k, v))
    with pytest.raises(ArgumentError, match="k: expected a dense tensor, got one in the layout"):
        attend(q, k.to_sparse(), v)


def test_devices_that_nothing_serves() -> None:
    with pytest.raises(ArgumentError, match="kernels for cuda and cpu, and the tensors are on mps"):
        mixc.load("causal").backend_for("mps")
    assert mixc.load("causal", backend="reference").backend_for("mps") == "reference"
