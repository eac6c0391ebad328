"""Small specs by the kernels of every backend that runs here, against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixc.backends.cpu.run import CpuRunner
from mixc.backends.triton.cross_compile import CompileWorkers
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.signatures import kernel_signatures
from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower
from mixc.ir.errors import UnsupportedError
from mixc.ir.targets import parse_target
from mixc.runtime.backends import by_reference, kernel_runner

TARGET = parse_target("cuda:90")
RUNNERS = {
    "cpu": partial(CpuRunner, lower=lower, flags=("-O0",)),
    "interpreter": partial(kernel_runner, chosen="interpreter"),
}
SIZES = {"B": 2, "T": 21, "D": 5, "E": 3, "H": 3}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path))


def check(
    backend: str, spec: str, given: Mapping[str, Tensor] = {}, limit: float = 1e-5, **sizes: int
) -> None:
    """The kernels' results are the reference's; inputs that are not given are random."""
    mixer, lengths = load_text(spec), {**SIZES, **sizes}
    tensors = {i.name: given.get(i.name) for i in mixer.inputs}
    tensors = {
        i.name: torch.randn([lengths[d] for d in i.dims]) if x is None else x
        for i, x in zip(mixer.inputs, tensors.values(), strict=True)
    }
    exact = {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}
    expected = by_reference(mixer, exact, {}, torch.float64)
    found = RUNNERS[backend](mixer)(tensors, {})
    for name, value in expected.items():
        wide = found[name].to(value.dtype)
        torch.testing.assert_close(wide, value, rtol=limit, atol=limit, msg=lambda m, n=name: n + m)


def compiles(spec: str) -> None:
    """A GPU's compiler takes the kernels."""
    plan = lower(load_text(spec), dict.fromkeys("DEFP", 16), "float32")
    with CompileWorkers(count=1) as workers:
        reports = workers.compile(emit_module(plan), kernel_signatures(plan), [TARGET])
    assert {report.name: report.error for report in reports if report.error} == {}


BACKENDS = pytest.mark.parametrize("backend", RUNNERS)

REDUCTIONS = """
mixer: reductions
inputs: {x: [B, T, D], z: [B, H, T], r: [B, T], g: [H]}
dims: {M: (T + 3) // 4}
map:
  doubled: sum(x * 2.0, T, M=t // 4)
  negated: sum(-x, T, M=t // 4)
  scaled: mean(g * x, T, where=t % 3 == 0)
  counted: sum(2.0, T, where=t > 2)
  two: sum(z, H, T, where=z > 0)
  largest: max(z, H, T, where=z < 0.5)
  free: sum(r, T, where=g > 0)
  running: sum(cumsum(r, T) * x, T)
outputs:
  doubled: [B, M, D]
  negated: [B, M, D]
  scaled: [B, H, D]
  counted: []
  two: [B]
  largest: [B]
  free: [B, H]
  running: [B, D]
"""


@BACKENDS
def test_conditions_groups_and_factors_of_reductions(backend: str) -> None:
    check(backend, REDUCTIONS)


FUNCTIONS = """
mixer: functions
inputs: {x: [B, T, D], q: [B, T, D], n: {dims: [T], dtype: int32}, g: [B]}
dims: {I: T, J: T}
let:
  s: sum(q[T=i] * x[T=j], D)
stages:
  - attention: {over: J, score: s, gain: sign(s), mask: j <= i, output: {turned: "x[T=j]"}}
  - attention:
      over: J
      score: s * sigmoid(g) ** (i - j)
      mask: g > 0 and j <= i
      normalize: none
      output: {decayed: "x[T=j]"}
  - map:
      signs: sign(x) * sign(n)
      powers: x * (t // 2 ** (d % 3)) + n ** d % 11 + 0 ** d
      last: x[T=T - 1]
outputs:
  turned: [B, I, D]
  decayed: [B, I, D]
  signs: [B, T, D]
  powers: [B, T, D]
  last: [B, D]
"""


@BACKENDS
def test_signs_whole_powers_and_decays_by_distance(backend: str) -> None:
    n = torch.randint(-3, 4, (21,), dtype=torch.int32)
    check(backend, FUNCTIONS, {"n": n, "g": torch.tensor([0.5, -0.5])})


SELECTED = """
mixer: selected
inputs: {z: [B, I, J], v: [B, J, E]}
params: {kept: {default: 9, runtime: true}}
let: {s: "clip(z, -9, 9)"}
stages:
  - attention: {over: J, score: s, mask: "rank(z, J) < kept", normalize: softmax, output: {o: v}}
  - attention: {over: J, score: s, mask: "70 >= rank(z, J)", output: {most: v}}
  - attention: {over: J, score: s, mask: "rank(z, J) < 0", output: {none: v}}
outputs: {o: [B, I, E], most: [B, I, E], none: [B, I, E]}
"""


@BACKENDS
@pytest.mark.parametrize("keys", [80, 5])
def test_the_largest_are_selected_with_ties_by_place(backend: str, keys: int) -> None:
    z = torch.randn(2, 21, keys).round()
    z[:, :, 3] = -torch.inf
    z[:, 4] = -torch.inf
    check(backend, SELECTED, {"z": z}, I=21, J=keys)


READ_SUMS = """
mixer: read_sums
inputs: {x: [B, T, D]}
recurrence:
  over: T
  state: {h: [D]}
  step:
    - h = 0.5 * h + x
    - y = cumsum(h, D)[D=(d + 2) % 4] + 2 * sum(h, D)
outputs: {y: [B, T, D]}
"""


@BACKENDS
def test_running_sums_of_a_state_are_read_at_an_index(backend: str) -> None:
    check(backend, READ_SUMS, B=2, T=9, D=5)


CONVOLVED = """
mixer: convolved
inputs:
  q: [B, H, I, D]
  k: [B, H, J, D]
  v: [B, H, J, E]
  w: [H, A, C]
  n: {dims: [T, T2], dtype: int32}
dims: {I: T, J: T, T2: T}
let:
  s: where(j <= i, sum(q * k, D), 0)
stages:
  - attention:
      over: J
      score: sum(at(s, I=i - a, J=j + C // 2 - c) * w, A, C)
      mask: j <= i
      normalize: softmax
      output: {o: v}
  - map: {moved: "sum(at(n, T=t - 2, T2=index(T2) + c, fill=7) * w, C)"}
outputs: {o: [B, H, I, E], moved: [H, A, T, T2]}
"""


@BACKENDS
def test_scores_that_are_convolved(backend: str) -> None:
    n = torch.randint(-9, 9, (70, 70), dtype=torch.int32)
    check(backend, CONVOLVED, {"n": n}, T=70, I=70, J=70, A=2, C=5, B=1, H=2, T2=70)


LARGEST = """
mixer: largest
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E]}
dims: {I: T, J: T}
let: {s: "sum(q * k, D)", m: "max(s, J, where=j <= i)"}
stages:
  - attention: {over: J, score: s, mask: j <= i and s >= m, output: {o: v}}
  - map: {p: "sum(where(j <= i and s == m, v, 0), J)"}
outputs: {o: [B, H, I, E], p: [B, H, I, E]}
"""


@BACKENDS
def test_scores_that_are_compared_with_their_largest(backend: str) -> None:
    """The kernels that compare have the numbers of which the largest was found."""
    check(backend, LARGEST, T=65, I=65, J=65, D=40)


WEIGHTS_ALONE = """
mixer: weights_alone
inputs: {q: [B, H, I, D], k: [B, H, J, D], seen: {dims: [H, N, M], dtype: bool}}
dims: {I: T, J: T, M: (I + 15) // 16, N: (J + 15) // 16}
attention:
  over: J
  score: sum(q * k, D)
  mask: j < i and seen[M=i // 16, N=j // 16]
  weights: p
outputs: {p: [B, H, I, J]}
"""


@BACKENDS
def test_weights_of_listed_blocks_and_no_output(backend: str) -> None:
    seen = torch.rand(3, 3, 3) < 0.6
    check(backend, WEIGHTS_ALONE, {"seen": seen}, T=40, I=40, J=40, M=3, N=3, D=8)


HEADS = """
mixer: heads
inputs: {x: [B, T, H, D], R: [H, P, D]}
recurrence:
  over: T
  state: {y: [H, D]}
  step:
    - y = tanh(x + sum(R * y[D=p], P))
outputs: {y: [B, H, D]}
"""


@BACKENDS
def test_a_state_that_lists_its_heads_mixes_within_each(backend: str) -> None:
    check(backend, HEADS, P=5)


UNSEEN = """
mixer: unseen
inputs: {x: [B, T, D], f: [B, D], r: [B, T]}
map: {long: "sum(f * x, T, where=x > 9)", whole: "sum(r * x, D, where=x < t - 20)"}
outputs: {long: [B, D], whole: [B, T]}
"""


@BACKENDS
def test_infinite_factors_of_sums_of_nothing(backend: str) -> None:
    x = torch.rand(2, 21, 5)
    x[0, 2] = 10.0
    check(
        backend,
        UNSEEN,
        {"x": x, "f": torch.full((2, 5), torch.inf), "r": torch.full((2, 21), -torch.inf)},
    )


ANGLES = """
mixer: angles
inputs: {x: [T, D], g: [T, D]}
map:
  o: cos(cumsum(x, T))
  p: cos(cumsum(x, T, reverse=true, exclusive=true))
  c: cumsum(g, T)
outputs: {o: [T, D], p: [T, D], c: [T, D]}
"""


@BACKENDS
def test_running_sums_lose_one_rounding(backend: str) -> None:
    torch.manual_seed(0)
    g = torch.full((2000, 3), -0.5)
    g[700, 0] = -torch.inf
    check(backend, ANGLES, {"x": 30 * torch.randn(2000, 3), "g": g}, 2e-4, T=2000, D=3)


MAPS = """
mixer: maps
inputs: {x: [B, T, D], n: {dims: [T], dtype: int32}}
map: {o: "sign(x) * sign(n) + t // 2 ** (d % 3) + n ** d % 11", last: "x[T=T - 1]"}
outputs: {o: [B, T, D], last: [B, D]}
"""


@pytest.mark.parametrize(
    "spec",
    [HEADS, MAPS, ANGLES, SELECTED],
    ids=["heads", "maps", "angles", "selected"],
)
def test_these_compile_for_a_gpu(spec: str) -> None:
    compiles(spec)


SOLVED = """
mixer: solved
inputs: {A: [B, I, J], v: [B, I, E]}
map: {o: "solve(A, v, I=J)"}
outputs: {o: [B, J, E]}
"""


@BACKENDS
def test_systems_of_fixed_size_are_solved(backend: str) -> None:
    A = 2 * torch.eye(7) + 0.1 * torch.randn(2, 7, 7)
    check(backend, SOLVED, {"A": A}, I=7)


@BACKENDS
def test_systems_along_a_sequence_are_refused(backend: str) -> None:
    sequence = SOLVED.replace("map:", "dims: {I: T, J: T}\nmap:")
    with pytest.raises(UnsupportedError, match="`solve` along I, an axis of any length"):
        check(backend, sequence, I=7, J=7)


BATCH_OF_VALUES = """
mixer: batch_of_values
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, S, G, J, E]
  w: [B, G, J, E]
heads: {G: H}
dims: {I: T, J: T}
attention:
  over: J
  score: sum(q * k, D)
  mask: j <= i
  output: {o: v, p: w, r: v * w}
  lse: l
  weights: a
outputs:
  o: [B, S, H, I, E]
  p: [B, H, I, E]
  r: [B, H, S, I, E]
  l: [B, H, I]
  a: [B, H, I, J]
"""


@BACKENDS
def test_axes_that_only_values_have(backend: str) -> None:
    """Some outputs have the axis S and some not; these are written once."""
    check(backend, BATCH_OF_VALUES, G=3, I=21, J=21, S=4)


BUCKETS = """
mixer: buckets
inputs: {q: [B, I, D], k: [B, J, D], bias: [R, H]}
dims: {I: T, J: T}
attention:
  over: J
  score: sum(q * k, D) + bias[R=min(abs(i - j), R - 1)]
  normalize: none
  output: {o: "where(r == min(abs(i - j), R - 1), 1.0, 0.0)"}
outputs: {o: [B, H, I, R]}
"""


@BACKENDS
def test_an_axis_of_values_that_is_only_an_index(backend: str) -> None:
    check(backend, BUCKETS, I=21, J=21, R=7)
    check(backend, BUCKETS.replace("[R, H]", "[H, R]"), I=21, J=21, R=7)


LOG_DISTANCE = """
mixer: log_distance
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E], slope: [H], table: [R, H]}
params: {causal: false}
let:
  distance: i + J - I - j
  far: floor(2 * log2(1 + abs(distance)))
attention:
  over: J
  score: sum(q * k, D) - slope * log(1 + abs(distance)) + table[R=far + where(distance < 0, 4, 0)]
  mask: distance >= 0 or not causal
  normalize: softmax
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""


@BACKENDS
@pytest.mark.parametrize("causal", ["false", "true"])
def test_a_bias_of_the_distance(backend: str, causal: str) -> None:
    spec = LOG_DISTANCE.replace("causal: false", f"causal: {causal}")
    for lengths in ({"I": 21, "J": 21}, {"I": 1, "J": 70}, {"I": 70, "J": 5}, {"I": 3, "J": 0}):
        check(backend, spec, R=9, **lengths)


@pytest.mark.parametrize("backend", RUNNERS)
def test_two_names_of_one_feature_length_are_no_sequence(backend: str) -> None:
    """P is as long as D, which lies inside a product: a size, and nothing that is cut."""
    spec = """
mixer: mixed_features
inputs: {x: [B, T, H*D], w: [H, P, D]}
dims: {P: D}
map: {y: "sum(w * x[D=p], P)"}
outputs: {y: [B, T, H*D]}
"""
    mixer = load_text(spec)
    assert dict(mixer.sequences) == {}
    x, w = torch.randn(2, 9, 3 * 5), torch.randn(3, 5, 5)
    wanted = torch.einsum("bthp,hpd->bthd", x.view(2, 9, 3, 5), w).reshape(2, 9, 15)
    found = RUNNERS[backend](mixer)({"x": x, "w": w}, {})
    torch.testing.assert_close(found["y"], wanted, rtol=1e-5, atol=1e-5)


NANS = """
mixer: nans
inputs: {x: [B, T], v: [B, T, D], m: {dims: [B, T], dtype: bool}}
dims: {I: T, J: T}
stages:
  - attention:
      over: J
      score: x[T=i] * x[T=j]
      mask: at(m, T=j)
      normalize: softmax
      lse: z
      output: {o: "v[T=j]"}
  - map: {weights: "softmax(x, T, where=m)", log: "logsumexp(x, T, where=m)"}
outputs: {o: [B, I, D], z: [B, I], weights: [B, T], log: [B]}
"""


@BACKENDS
def test_a_row_that_sees_a_nan_is_not_one_that_sees_nothing(backend: str) -> None:
    x = torch.randn(3, 21)
    x[0, 4] = x[1, 4] = torch.nan
    m = torch.ones(3, 21, dtype=torch.bool)
    m[1, 4], m[2] = False, False
    given = {"x": x, "m": m, "v": torch.randn(3, 21, 5)}
    found = RUNNERS[backend](load_text(NANS))(given, {})
    for name in ("o", "z", "weights", "log"):
        assert found[name][0].isnan().all(), name
    others = [t for t in range(21) if t != 4]
    assert found["z"][1, others].isfinite().all()
    assert found["log"][1].isfinite()
    assert (found["z"][2, others] == -torch.inf).all()
    assert found["log"][2] == -torch.inf
    assert not found["weights"][2].any()
