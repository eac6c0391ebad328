"""Fourier transforms give the numbers of sums, at every length, along every axis, on each backend;
what is not finite stays in its own row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from itertools import product

import pytest
import torch
from torch import Tensor

from mixc.autotune.checking.sampling import sample_inputs
from mixc.autotune.checking.tolerances import error_limit, error_of
from mixc.backends.cpu.run import CpuRunner
from mixc.backends.fourier import by_torch, source
from mixc.backends.reference.evaluate import run
from mixc.backends.reference.tiles import run_plan
from mixc.backends.triton.run import TritonRunner
from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.mixer import Mixer
from mixc.ir.task import TransformTask

SPECS = {path.stem: path for path in library()}
# Both parts along an axis inside a product, a frequency that is read, a complex value, two batches.
SPEC = """
mixer: waves
inputs: {x: [B, T, G*R, C], w: [G, R, C], f: {dims: [N], dtype: int32, range: [0, T]}}
dims: {S: T, Q: R}
define:
  turn(a, b, n): 2 * pi * (a * b % n) / n
map:
  re: sum(x * cos(turn(t, s, T)), T)
  im: sum(x * -sin(turn(s, t, T)), T)
  power: re ** 2 + im ** 2
  y: sum(re * w * cos(turn(index(R), index(Q), R)) - im * sin(turn(index(R), index(Q), R)), R)
  z: sum(x * sin(turn(t, f, T) + 0.5) * w, T)
  h: sum(x * (cos(turn(t, T - s, T)) - w * sin(turn(t, s, T))), T)
outputs: {power: [B, S, G*R, C], y: [C, B, G*Q, S], z: [B, N, G*R, C], h: [B, S, G*R, C]}
"""
# A kernel of each sample, summed over an axis more; and the other way round.
AROUND = """
mixer: around
inputs: {x: [B, T, C], k: [B, L, C, E], w: [L, C]}
dims: {L: T, S: T}
map:
  y: sum(k * x[T=(t - l) % T], L, C) * t
  z: sum(w * x[T=(l - t) % T], L)
  u: -sum(x * w[L=(s - t) % T] / 3, T)
outputs: {y: [B, T, E], z: [B, C, T], u: [B, S, C]}
"""
RUNNERS = {
    "cpu": lambda mixer: CpuRunner(mixer, all_transformed, flags=("-O1",)),
    "interpreter": lambda mixer: TritonRunner(mixer, all_transformed),
}


def all_transformed(*args: object, **more: object) -> object:
    """Every Fourier sum as a transform, however short."""
    return lower(*args, **{**more, "fft_terms": 1})  # type: ignore[arg-type]


@cache
def waves() -> Mixer:
    return load_text(SPEC, "waves.yaml")


@cache
def around() -> Mixer:
    return load_text(AROUND, "around.yaml")


@cache
def fnet() -> Mixer:
    return load_file(SPECS["fnet"])


@cache
def runner(backend: str, mixer: Mixer) -> CpuRunner | TritonRunner:
    return RUNNERS[backend](mixer)  # type: ignore[no-untyped-call]


def compare(backend: str, mixer: Mixer, inputs: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    found = runner(backend, mixer)(inputs)
    wanted, usual = run(mixer, inputs), run(mixer, inputs, dtype=dtype)
    for name, value in wanted.items():
        assert error_of(found[name], value) <= error_limit(dtype, error_of(usual[name], value)), (
            name
        )


def by_sums(real: Tensor, imaginary: Tensor | None, axes: tuple[tuple[int, int], ...]) -> Tensor:
    """The definition."""
    made = torch.complex(real, torch.zeros_like(real) if imaginary is None else imaginary)
    for axis, sign in axes:
        places = torch.arange(made.shape[axis], dtype=torch.float64)
        turns = torch.outer(places, places) % max(made.shape[axis], 1) / max(made.shape[axis], 1)
        made = torch.tensordot(made, torch.exp(2j * math.pi * sign * turns), dims=([axis], [0]))
        made = made.movedim(-1, axis)
    return made


@pytest.mark.parametrize("shape", [(2, 5, 6, 7), (3, 8, 1, 4), (1, 2, 2, 2), (0, 3, 4, 5)])
@pytest.mark.parametrize("is_complex", [False, True])
def test_the_definition(shape: tuple[int, ...], is_complex: bool) -> None:
    ways = [((a, s),) for a, s in product((1, 3), (1, -1))]
    ways += [((1, a), (3, b)) for a, b in product((1, -1), repeat=2)]
    for axes in (*ways, ((2, 1), (1, -1), (3, 1)), ((3, -1), (2, -1), (1, -1))):
        real = torch.randn(shape, dtype=torch.float64).transpose(0, 2).contiguous().transpose(0, 2)
        imaginary = torch.randn(shape, dtype=torch.float64) if is_complex else None
        parts = torch.full((2, *shape), torch.nan, dtype=torch.float64)
        by_torch(real, imaginary, (parts[0], parts[1]), axes)
        wanted = by_sums(real, imaginary, axes)
        torch.testing.assert_close(parts[0], wanted.real)
        torch.testing.assert_close(parts[1], wanted.imag)


@pytest.mark.parametrize("backend", RUNNERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_numbers_are_those_of_sums(backend: str, dtype: torch.dtype) -> None:
    sizes = {"B": 2, "T": 31, "G": 2, "R": 6, "C": 5, "N": 4}
    compare(backend, waves(), sample_inputs(waves(), sizes, dtype, seed=1), dtype)


@pytest.mark.parametrize("backend", RUNNERS)
@pytest.mark.parametrize("length", [1, 2, 31, 48])
def test_sums_around_the_end(backend: str, length: int) -> None:
    sizes = {"B": 2, "T": length, "L": length, "C": 5, "E": 3}
    assert len([t for t in lower(around(), {}).tasks if isinstance(t, TransformTask)]) == 8
    for dtype in (torch.float32, torch.bfloat16):
        compare(backend, around(), sample_inputs(around(), sizes, dtype, seed=5), dtype)


@pytest.mark.parametrize("backend", RUNNERS)
@pytest.mark.parametrize("lengths", [(1, 1), (1, 8), (2, 3), (97, 1), (64, 20), (15, 16)])
def test_every_length(backend: str, lengths: tuple[int, int]) -> None:
    sizes = {"B": 2, "T": lengths[0], "C": lengths[1]}
    inputs = sample_inputs(fnet(), sizes, torch.float32, seed=2)
    compare(backend, fnet(), inputs, torch.float32)
    found = runner(backend, fnet())(inputs)["y"]
    wanted = torch.fft.fft2(inputs["x"].double()).real
    assert error_of(found, wanted) <= error_limit(torch.float32, 0.0)


@pytest.mark.parametrize("backend", RUNNERS)
def test_nothing_is_transformed_of_nothing(backend: str) -> None:
    run_ = runner(backend, fnet())
    assert run_({"x": torch.zeros(0, 9, 4)})["y"].shape == (0, 9, 4)
    assert run_({"x": torch.zeros(2, 0, 4)})["y"].shape == (2, 0, 4)


@pytest.mark.parametrize("backend", RUNNERS)
def test_strided_inputs(backend: str) -> None:
    x = torch.randn(40, 3, 50)[3:36].permute(1, 0, 2)[..., ::2]
    compare(backend, fnet(), {"x": x}, torch.float32)


@pytest.mark.parametrize("backend", RUNNERS)
@pytest.mark.parametrize("mixer", [fnet, waves, around])
def test_gradients_are_fourier_sums_too(backend: str, mixer: object) -> None:
    forward: Mixer = mixer()  # type: ignore[operator]
    wanted = tuple(i.name for i in forward.inputs if i.dtype != "int32")
    passes = differentiate(forward, wanted)
    sizes = {"B": 2, "T": 21, "G": 2, "R": 6, "C": 5, "N": 4, "S": 21, "Q": 6, "E": 5}
    sizes |= {"L": 21}
    inputs = sample_inputs(passes.backward, sizes, torch.float32, seed=3)
    made = run(passes.forward, {i.name: inputs[i.name] for i in passes.forward.inputs})
    inputs |= {name: made[name].float() for name in passes.kept}
    plan = lower(passes.backward, sizes, "float32", fft_terms=1)
    assert any(isinstance(task, TransformTask) for task in plan.tasks)
    compare(backend, passes.backward, inputs, torch.float32)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_batch(value: float) -> None:
    x = torch.randn(3, 20, 12)
    x[1, 4, 5] = value
    found = runner("cpu", fnet())({"x": x})["y"]
    assert found[0].isfinite().all()
    assert found[2].isfinite().all()
    assert found[1].isfinite().float().mean() < 0.1  # torch leaves out products by 0


def test_a_tile_program_says_the_same() -> None:
    sizes = {"B": 2, "T": 9, "G": 2, "R": 3, "C": 4, "N": 3, "S": 9, "Q": 3}
    inputs = sample_inputs(waves(), sizes, torch.float32, seed=4)
    plan = lower(waves(), sizes, "float32", fft_terms=1)
    found, wanted = run_plan(plan, inputs, sizes), run(waves(), inputs)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value)


def test_what_emitted_modules_have_runs_by_itself() -> None:
    for standalone in (False, True):
        text = source(standalone)
        assert "type: ignore" not in text
        assert ("import torch" in text) != standalone
        known: dict[str, object] = {"torch": torch}
        exec(text, known)
        made, x = torch.empty(3, 8), torch.randn(3, 8)
        known["fourier"](x, None, (made, None), ((1, 1),))  # type: ignore[operator]
        torch.testing.assert_close(made, torch.fft.fft(x).real)
