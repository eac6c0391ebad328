"""Every spec of the library as Triton kernels under the interpreter, against the reference."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from mixc.autotune.checking.checking import verify
from mixc.autotune.checking.proportions import PROPORTIONS, Proportions
from mixc.autotune.checking.sampling import verification_cases
from mixc.backends.triton.run import TritonRunner
from mixc.compiler.language.find import find_spec, library
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.binding import Number
from mixc.ir.mixer import Mixer, Recurrence
from mixc.runtime.overrides import override

# An interpreter takes its time: small sizes, and still ragged blocks, D != E, three query heads.
SMALL = Proportions((37, 50, 19), features=(24, 20, 4), ratio=3, groups=1, batch=(1, 2), table=5)
# Other lengths where only the precision is another.
HALF = Proportions((19, 23, 11), features=(24, 20, 4), ratio=3, groups=1, batch=(1, 2), table=5)
EIGHT = Proportions((19, 37, 50), features=(24, 20, 4), ratio=8, groups=1, batch=(1, 2), table=5)
TRIALS = {
    torch.float32: (
        "eight heads per group",
        "large scores",
        "nothing kept",
        "one token",
        "empty batch",
    ),
    torch.float16: ("strided", "absent inputs"),
    torch.bfloat16: ("strided",),
}
# What masked pairs hold, in one attention of each kind: all are checked natively.
GARBAGE = ("causal", "fox", "landmark", "urpe")
# Triton's interpreter cuts bfloat16 off where it should round, and a recurrence adds that up over
# its rows, as adem does over keys, whose weights have one sign and are divided by nothing: in
# bfloat16 they are checked natively, and on a GPU where there is one.
ADDED_UP = ("adem",)
# The interpreter has no fused multiply-add, by which GPUs and CPUs take a row's maximum off before
# they round: what is made of weights as values loses 2e-5 at large scores. Natively it is checked.
NOT_FUSED = {"coverage": "large scores"}


def adds_up(path: Path) -> bool:
    """Whether a spec adds up over its rows what the interpreter cuts off."""
    recurs = any(isinstance(stage, Recurrence) for stage in load_file(path).stages)
    return recurs or path.stem in ADDED_UP


RUNS = [
    pytest.param(path, dtype, id=f"{str(dtype)[6:]}-{path.stem}")
    for dtype in TRIALS
    for path in library()
    if dtype is not torch.bfloat16 or not adds_up(path)
]


@pytest.fixture(autouse=True)
def _small_and_poisoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sizes, a cache of the test's own, and NaN in every output before a kernel writes."""
    monkeypatch.setitem(PROPORTIONS, "standard", SMALL)
    monkeypatch.setitem(PROPORTIONS, "eight heads per group", EIGHT)
    monkeypatch.setitem(PROPORTIONS, "several blocks", SMALL)
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: _poisoned(empty(*a, **k)))


def _poisoned(tensor: Tensor) -> Tensor:
    return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor


def by_kernels(
    mixer: Mixer, tensors: Mapping[str, Tensor], params: Mapping[str, Number]
) -> dict[str, Tensor]:
    runtime = {p.name: params[p.name] for p in mixer.params if p.runtime and p.name in params}
    fixed = {name: value for name, value in params.items() if name not in runtime}
    return TritonRunner(override(mixer, fixed), lower)(tensors, runtime)


def _turned(name: str, dtype: torch.dtype) -> bool:
    """Whether the trial turns a flag; one precision will do."""
    return "turned" in name and dtype is torch.float32


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize(("path", "dtype"), RUNS)
def test_kernels_match_the_reference(
    path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype is not torch.float32:
        monkeypatch.setitem(PROPORTIONS, "standard", HALF)
    mixer = load_file(path)
    wanted = TRIALS[dtype] + (("garbage",) if path.stem in GARBAGE else ())
    trials = [c for c in verification_cases(mixer) if c.name in wanted or _turned(c.name, dtype)]
    trials = [c for c in trials if NOT_FUSED.get(path.stem) != c.name]
    cases = verify(mixer, {"triton": by_kernels}, [dtype], cases=trials)
    assert cases
    assert {case.name: case.message for case in cases if not case.ok} == {}


def test_heads_of_a_group_are_rows_of_a_block() -> None:
    runner = TritonRunner(load_file(find_spec("cross")), lower)
    q, k, v = (torch.randn(2, h, n, 16) for h, n in ((6, 2), (2, 140), (2, 140)))
    found = runner({"q": q, "k": k, "v": v})["o"]
    (module,) = runner.modules.values()
    assert "cross_o_rows_kernel" in module.function.__globals__
    wanted = sdpa(q, k, v, enable_gqa=True)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_new_length_costs_what_a_known_one_costs() -> None:
    """Measured at 32 us with the kernel left out, 600 where each call solved its sizes."""
    runner = TritonRunner(load_file(find_spec("causal")), lower)
    calls = [{name: torch.randn(1, 1, n, 16) for name in "qkv"} for n in range(33, 64)]
    runner(calls[0])
    (module,) = runner.modules.values()
    object.__setattr__(module, "function", lambda *_: None)
    times = []
    for call in calls[1:]:
        start = time.perf_counter()
        runner(call)
        times.append(time.perf_counter() - start)
    assert min(times) < 200e-6
