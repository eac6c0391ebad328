"""What a backward pass keeps is a choice, and gradients do not depend on it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mixc
from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.cpu.run import CpuRunner
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.in_segments import in_segments
from mixc.compiler.pipeline import lower
from mixc.ir.mixer import Mixer
from mixc.runtime.backends import Runner, by_reference, kernel_runner
from mixc.runtime.kept import Kept
from mixc.runtime.segmented import SegmentedPasses
from mixc.runtime.segmenting import Segmenting, limit_bytes
from mixc.runtime.training import Training

SMALL = Proportions(lengths=(37,), features=(12, 10), ratio=2, groups=1, batch=(1, 2))


def trained(
    training: Training, inputs: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[Tensor | None]]:
    """The outputs, and the gradients of a random weighting of all of them."""
    leaves = {n: t.detach().clone() for n, t in inputs.items()}
    wanted = [t.requires_grad_() for t in leaves.values() if t.is_floating_point()]
    outputs = training(leaves, {})
    real = [o for o in outputs.values() if o.is_floating_point()]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator, dtype=o.dtype) for o in real]
    loss = torch.stack([(o * w).sum() for o, w in zip(real, weights, strict=True)]).sum()
    return outputs, list(torch.autograd.grad(loss, wanted, allow_unused=True))


def on_reference(mixer: Mixer) -> Runner:
    return lambda given, params: by_reference(mixer, given, params, torch.float64)


def differences(name: str, runner: object, dtype: torch.dtype, rows: Kept) -> list[float]:
    """How far results of segments are from those of the whole, by the size of the largest."""
    mixer = load_file(find_spec(name))
    inputs = sample_inputs(mixer, default_sizes(mixer, SMALL))
    inputs = {n: t.to(dtype) if t.is_floating_point() else t for n, t in inputs.items()}
    whole = trained(Training(mixer, runner), inputs)  # type: ignore[arg-type]
    training = Training(mixer, runner, kept=rows)  # type: ignore[arg-type]
    parts = trained(training, inputs)
    assert all(isinstance(one, Segmenting) for one in training.segmented.values())
    assert training.segmented
    pairs = [*zip(whole[0].values(), parts[0].values(), strict=True)]
    pairs += [(a, b) for a, b in zip(whole[1], parts[1], strict=True) if a is not None]  # type: ignore[misc]
    assert [g is None for g in whole[1]] == [g is None for g in parts[1]]
    return [float((a - b).detach().abs().max() / b.detach().abs().max()) for a, b in pairs]


# States of scans, of loops, of chunks; rows of the forward pass that are kept (mesa, mlstm), rows
# before the segment that are read, and positions.
NAMES = [
    "s4d",
    "titans",
    "titans_chunked",
    "ttt",
    "mesa",
    "mlstm",
    "lstm",
    "gla",
    "rwkv7",
    "seq2seq",
]


@pytest.mark.parametrize("name", NAMES)
def test_segments_have_the_gradients_of_the_whole(name: str) -> None:
    # states are handed over in float32
    assert max(differences(name, on_reference, torch.float64, 8)) < 1e-6


@pytest.mark.parametrize("name", ["ema", "hgrn"])
def test_by_native_kernels(name: str) -> None:
    cpu = lambda mixer: CpuRunner(mixer, lower, flags=("-O1",))  # noqa: E731
    assert max(differences(name, cpu, torch.float32, 8)) < 2e-5


def test_in_the_interpreter() -> None:
    slow = lambda mixer: kernel_runner(mixer, "interpreter")  # noqa: E731
    assert max(differences("hgrn", slow, torch.float32, 16)) < 2e-5


def segmenting(name: str, length: int) -> tuple[Training, Segmenting, dict[str, int]]:
    mixer = load_file(find_spec(name))
    sizes = default_sizes(mixer, Proportions(lengths=(length,), features=(64,), batch=(1, 2)))
    inputs = {i.name: torch.float32 for i in mixer.inputs}
    training = Training(mixer, lambda mixer: lambda given, params: {})
    training.of(inputs, tuple(inputs), lambda _: sizes)
    found = training._segmenting(inputs, tuple(inputs), sizes)
    assert found is not None
    return training, found, sizes


@pytest.mark.parametrize("name", ["s4d", "ema", "titans", "ttt"])
def test_segments_keep_a_small_part_of_the_whole(name: str) -> None:
    training, found, sizes = segmenting(name, 16384)
    (whole,) = training.passes.values()
    assert not isinstance(whole, str)
    everything = whole.kept_bytes(sizes)
    least = found.kept_bytes(sizes, found.rows(sizes, "least"))
    auto = found.kept_bytes(sizes, found.rows(sizes, "auto"))
    assert least < everything / 15
    assert least <= auto <= limit_bytes(whole, sizes) < everything
    passes = found.passes(whole, sizes, "least")
    assert isinstance(passes, SegmentedPasses)
    short = {**sizes, "T": 32}
    assert found.passes(whole, short, "least") is whole


def test_all_is_kept_where_that_is_little() -> None:
    mixer = load_file(find_spec("s4d"))
    inputs = sample_inputs(mixer, default_sizes(mixer, SMALL))
    training = Training(mixer, on_reference, kept="auto")
    trained(training, inputs)
    assert not training.segmented


def test_what_has_no_segments() -> None:
    for name, why in (("causal", "hands over keys"), ("hydra", "runs backward")):
        mixer = load_file(find_spec(name))
        with pytest.raises(mixc.MixcError, match=why):
            in_segments(mixer, [i.name for i in mixer.inputs])


@pytest.mark.parametrize("kept", ["some", 0, True, None])
def test_kept_is_a_word_or_rows(kept: object) -> None:
    with pytest.raises(mixc.MixcError, match="kept: expected auto, all, least or a number of rows"):
        mixc.load("s4d", kept=kept)  # type: ignore[arg-type]
