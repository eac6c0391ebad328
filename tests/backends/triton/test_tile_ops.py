"""Programs of few tile ops, as emitted, under the interpreter and for GPUs that are not here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from mixc.backends.reference.tiles import run_plan
from mixc.backends.triton.cross_compile import CompileWorkers
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.layout import choose_layout
from mixc.backends.triton.run import import_source
from mixc.backends.triton.signatures import kernel_signatures
from mixc.compiler.tiles.builder import Builder
from mixc.ir.mixer import Input, Mixer, Output
from mixc.ir.plan import Buffer, Kernel, Plan
from mixc.ir.targets import TARGETS, parse_target
from mixc.ir.tile import BufferArgument, DType, Tile, Value
from mixc.ir.verify_plan import verify_plan

REAL = DType.FLOAT32
NARROW = {DType.FLOAT16: torch.float16, DType.BFLOAT16: torch.bfloat16, REAL: torch.float32}
Make = Callable[..., Mapping[str, Value]]


class Trial:
    """A program that loads whole tiles, makes others of them, and stores those.

    ``inputs`` and ``outputs`` give their dims; S is a second axis over the positions of T.
    """

    def __init__(
        self,
        inputs: Mapping[str, str],
        outputs: Mapping[str, str],
        make: Make,
        sizes: Mapping[str, int],
        dtype: DType = REAL,
    ) -> None:
        self.builder, self.sizes, self.dtype = Builder("tried"), dict(sizes), dtype
        for name, dims in inputs.items():
            self.builder.buffer(BufferArgument(name, tuple(dims), dtype))
        for name, dims in outputs.items():
            self.builder.buffer(BufferArgument(name, tuple(dims), REAL, written=True))
        for dim, size in sizes.items():
            block = max(4, 1 << (size - 1).bit_length())
            like = "T" if dim == "S" else None
            self.builder.tiles[dim] = Tile(dim, block, whole=True, size=size, like=like)
        made = make(self.builder, *(self.load(n, dims) for n, dims in inputs.items()))
        for name, dims in outputs.items():
            places, inside = self.place(dims)
            self.builder.store(name, places, made[name], inside)
        self.plan = self._plan(inputs, outputs)
        verify_plan(self.plan)
        self.source = emit_module(self.plan)

    def load(self, name: str, dims: str) -> Value:
        places, inside = self.place(dims)
        tile = self.builder.load(name, places, inside, hint=f"{name}_tile")
        return self.builder.cast(tile, REAL)

    def place(self, dims: str) -> tuple[list[tuple[str, Value]], Value]:
        """Positions along dims, and which of them exist."""
        b = self.builder
        places = [(dim, b.range(dim, None, dim.lower())) for dim in dims]
        sizes = [b.constant(self.sizes[dim], DType.INT32) for dim in dims]
        within = [
            b.elementwise("lt", at, size, dtype=DType.BOOL)
            for (_, at), size in zip(places, sizes, strict=True)
        ]
        mask = within[0]
        for other in within[1:]:
            mask = b.elementwise("and", mask, other, dtype=DType.BOOL)
        return places, mask

    def _plan(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Plan:
        mixer = Mixer(
            "tried",
            tuple(Input(n, tuple((d,) for d in dims)) for n, dims in inputs.items()),
            tuple(Output(n, tuple((d,) for d in dims)) for n, dims in outputs.items()),
            (),
        )
        buffers = [Buffer(n, tuple(dims), self.dtype, "input") for n, dims in inputs.items()]
        buffers += [Buffer(n, tuple(dims), REAL, "output") for n, dims in outputs.items()]
        kernel = Kernel(self.builder.finish(), "tried", tuple(outputs), "")
        return Plan(mixer, (kernel,), tuple(buffers), tuple(self.sizes.items()), (), self.dtype)

    def check(self, *given: Tensor, error: float = 2e-6) -> list[Tensor]:
        """Run it, and compare with what its ops mean; gives what they mean."""
        assert "tl.trans" not in self.source
        assert "tl.permute" not in self.source
        tensors = [x.to(NARROW[self.dtype]) for x in given]
        names = [i.name for i in self.plan.mixer.inputs]
        wanted = run_plan(
            self.plan, {n: x.double() for n, x in zip(names, tensors, strict=True)}, self.sizes
        )
        found = import_source(self.source, "tried").tried(*tensors)
        found = found if isinstance(found, tuple) else (found,)
        for made, output in zip(found, wanted.values(), strict=True):
            largest = float(output[output.isfinite()].abs().max().clamp(min=1))
            torch.testing.assert_close(
                made.double(), output.double(), rtol=0, atol=error * largest, equal_nan=True
            )
        return list(wanted.values())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path))
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))


@pytest.fixture(scope="module")
def workers() -> Iterator[CompileWorkers]:
    with CompileWorkers(count=1) as made:
        yield made


def mul(b: Builder, x: Value, y: Value) -> Value:
    return b.elementwise("mul", x, y, dtype=REAL)


def add(b: Builder, x: Value, y: Value) -> Value:
    return b.elementwise("add", x, y, dtype=REAL)


DTYPES = pytest.mark.parametrize("dtype", [REAL, DType.FLOAT16], ids=lambda dtype: dtype.value)


# ------------------------------------------------------------------------------------- scans


def running(op: str, reverse: bool = False, dtype: DType = REAL) -> Trial:
    return Trial(
        {"x": "TD"},
        {"y": "TD"},
        lambda b, x: {"y": b.scan(x, "T", reverse, op=op)},
        {"T": 8, "D": 5},
        dtype,
    )


@pytest.mark.parametrize("op", ["sum", "prod", "max"])
@pytest.mark.parametrize("reverse", [False, True])
@DTYPES
def test_scan(op: str, reverse: bool, dtype: DType) -> None:
    running(op, reverse, dtype).check(torch.randn(8, 5))


def decays_and_terms(b: Builder, a: Value, x: Value, reverse: bool = False) -> dict[str, Value]:
    """(a, x) before (c, y) is (a c, c x + y)."""

    def together(left: tuple[Value, ...], right: tuple[Value, ...]) -> tuple[Value, ...]:
        (a, x), (c, y) = left, right
        return mul(b, a, c), add(b, mul(b, c, x), y)

    made = b.combine([a, x], "T", together, reverse, ["decay", "state"])
    return dict(zip(("p", "s"), made, strict=True))


def combined(reverse: bool = False, dtype: DType = REAL) -> Trial:
    dims = {"a": "TD", "x": "TD"}
    return Trial(
        dims,
        {"p": "TD", "s": "TD"},
        lambda b, a, x: decays_and_terms(b, a, x, reverse),
        {"T": 8, "D": 5},
        dtype,
    )


@pytest.mark.parametrize("reverse", [False, True])
@DTYPES
def test_combine(reverse: bool, dtype: DType) -> None:
    combined(reverse, dtype).check(torch.rand(8, 5), torch.randn(8, 5))


def test_the_function_of_a_combination_reads_as_a_person_would_write_it() -> None:
    assert (
        """\
@triton.jit
def _combine_decay(decay_left, state_left, decay_right, state_right):
    return decay_left * decay_right, decay_right * state_left + state_right
"""
        in combined().source
    )
    assert "decay, state = tl.associative_scan((a_tile, x_tile), 0, _combine_decay)" in (
        combined().source
    )


def log_sums(b: Builder, x: Value) -> dict[str, Value]:
    """With a device function and a number inside."""

    def together(left: tuple[Value, ...], right: tuple[Value, ...]) -> tuple[Value, ...]:
        both = b.elementwise("logaddexp", left[0], right[0], dtype=REAL)
        return (b.elementwise("max", both, b.constant(-3.0, REAL), dtype=REAL),)

    return {"y": b.combine([x], "T", together, hints=["total"])[0]}


def test_a_combination_calls_device_functions() -> None:
    Trial({"x": "TD"}, {"y": "TD"}, log_sums, {"T": 8, "D": 3}).check(torch.randn(8, 3))


def test_equal_combinations_share_a_function() -> None:
    def make(b: Builder, a: Value, x: Value, y: Value) -> dict[str, Value]:
        first, second = decays_and_terms(b, a, x), decays_and_terms(b, a, y)
        third = {"m": log_sums(b, a)["y"]}
        return {"r": first["s"], "s": second["s"], **third}

    names = dict.fromkeys("axy", "TD")
    source = Trial(names, dict.fromkeys("rsm", "TD"), make, {"T": 8, "D": 3}).source
    assert source.count("def _combine") == 3  # the names of the second's arguments differ


# ----------------------------------------------------------------------------- triangular systems


def substituted(dims: str, rows: int, dtype: DType = REAL, whole: str = "") -> Trial:
    sizes = {"T": rows, "S": rows, "D": 5, "E": 16}
    used = {d: n for d, n in sizes.items() if d in f"TS{dims}"}
    return Trial(
        {"a": "TS", "b": dims},
        {"y": whole or dims},
        lambda b, a, x: {"y": b.substitute(a, x, "T", "S")},
        used,
        dtype,
    )


@pytest.mark.parametrize("rows", [5, 16, 32, 50, 128])
@pytest.mark.parametrize("dims", ["TE", "T", "TDE"])
@DTYPES
def test_substitute(rows: int, dims: str, dtype: DType) -> None:
    shape = [{"T": rows, "D": 5, "E": 16}[d] for d in dims]
    substituted(dims, rows, dtype).check(torch.randn(rows, rows) / rows**0.5, torch.randn(shape))


@pytest.mark.parametrize("rows", [5, 50])
def test_what_lies_on_and_above_the_diagonal_is_not_read(rows: int) -> None:
    above = torch.full([rows, rows], torch.nan).triu()
    lower = torch.randn(rows, rows).tril(-1) / rows**0.5
    trial = substituted("TE", rows)
    made = import_source(trial.source, "tried").tried(lower + above, torch.ones(rows, 16))
    assert made.isfinite().all()


@pytest.mark.parametrize("rows", [5, 50])
def test_substitute_of_what_is_the_same_in_all_rows(rows: int) -> None:
    substituted("E", rows, whole="TE").check(torch.randn(rows, rows) / rows**0.5, torch.randn(16))


@pytest.mark.parametrize("rows", [16, 64, 128])
def test_substitution_is_as_accurate_as_that_of_torch(rows: int) -> None:
    """Keys that are much alike, with a learning rate of 1: powers of ``a`` grow, its x does not."""
    keys = torch.nn.functional.normalize(torch.randn(rows, 64) + 2 * torch.randn(64), dim=1)
    a, b = -(keys @ keys.T).tril(-1), torch.randn(rows, 16)
    exact = torch.linalg.solve(torch.eye(rows) - a.double(), b.double())
    by_torch = torch.linalg.solve_triangular(torch.eye(rows) - a, b, upper=False).double()
    by_kernel = import_source(substituted("TE", rows).source, "tried").tried(a, b).double()
    assert (by_kernel - exact).abs().max() < 4 * (by_torch - exact).abs().max()


@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize("noise", [0.0, 0.1, 1.0])
def test_substitution_on_tensor_cores_loses_less_than_16_bits_do(
    rows: int, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that are equal, nearly so, and not; the products with 10 bits behind the point."""

    def rounded(x: Any) -> Any:
        assert x.data.dtype == np.float32
        bits = (np.ascontiguousarray(x.data).view(np.int32) + 0x1000) & ~0x1FFF
        return TensorHandle(bits.view(np.float32), x.dtype)

    def dot(own: InterpreterBuilder, a: Any, b: Any, d: Any, precision: Any, most: int) -> Any:
        return exactly(own, rounded(a), rounded(b), d, precision, most)

    exactly = InterpreterBuilder.create_dot
    keys = torch.nn.functional.normalize(torch.randn(64) + noise * torch.randn(rows, 64), dim=1)
    a, b = -(keys @ keys.T).tril(-1).bfloat16(), torch.randn(rows, 16).bfloat16()
    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)
    trial = substituted("TE", rows, DType.BFLOAT16)
    made = import_source(trial.source, "tried").tried(a, b).double()
    exact = torch.linalg.solve(torch.eye(rows) - a.double(), b.double())
    assert (made - exact).norm() < 2**-9 * exact.norm()


# ---------------------------------------------------------------------------------- dense systems


def solved(dims: str, size: int, dtype: DType = REAL) -> Trial:
    return Trial(
        {"a": "DF", "b": dims},
        {"y": dims.replace("D", "F")},
        lambda b, a, x: {"y": b.solve(a, x, "D", "F")},
        {d: 5 if d == "E" else size for d in f"DF{dims}"},
        dtype,
    )


@pytest.mark.parametrize("size", [3, 24])
@pytest.mark.parametrize("dims", ["D", "DE"])
@DTYPES
def test_solve(size: int, dims: str, dtype: DType) -> None:
    a = torch.randn(size, size) + size**0.5 * torch.eye(size).flip(0)  # pivots are off the diagonal
    solved(dims, size, dtype).check(a, torch.randn([size, 5][: len(dims)]), error=2e-5)


# ------------------------------------------------------------------------------------- a chunk


def delta_chunk(b: Builder, q: Value, k: Value, k_S: Value, v: Value, S: Value) -> dict[str, Value]:
    """A chunk of a delta rule: all that such kernels do to axes, in the order that they do it."""
    i, j = b.range("T", None, "t"), b.range("S", None, "s")
    zero = b.constant(0.0, REAL)

    def below(x: Value, fn: str) -> Value:
        seen = b.elementwise(fn, j, i, dtype=DType.BOOL)
        return b.elementwise("where", seen, x, zero, dtype=REAL)

    pairs = b.dot(k, k_S, "D")
    missing = b.elementwise("sub", v, b.dot(k, S, "D"), dtype=REAL)
    r = b.substitute(b.elementwise("neg", below(pairs, "lt"), dtype=REAL), missing, "T", "S")
    r_S = b.rename(r, "T", "S")
    scores = below(b.dot(q, k_S, "D"), "le")
    o = b.dot(scores, r_S, "S", b.dot(q, S, "D"))
    return {"o": o, "S1": b.dot(k_S, r_S, "S", S)}


def chunk(size: int, dtype: DType = REAL) -> Trial:
    return Trial(
        {"q": "TD", "k": "TD", "k_S": "SD", "v": "TE", "S": "DE"},
        {"o": "TE", "S1": "DE"},
        delta_chunk,
        {"T": size, "S": size, "D": 24 if size < 64 else 64, "E": 20 if size < 64 else 64},
        dtype,
    )


def test_the_axes_of_a_chunk_are_in_order() -> None:
    """Keys that were computed with can't be read the other way round for their second product."""
    layout = choose_layout(chunk(32, DType.FLOAT16).plan.kernels[0].program)
    assert layout.order == ("T", "D", "S", "E")


@DTYPES
def test_a_chunk_of_the_delta_rule(dtype: DType) -> None:
    k = torch.nn.functional.normalize(torch.randn(50, 24), dim=1)
    q, v, S = torch.randn(50, 24), torch.randn(50, 20), torch.randn(24, 20)
    state = S.double()
    rows = []
    for t in range(50):
        missing = v[t].double() - k[t].double() @ state
        state = state + torch.outer(k[t].double(), missing)
        rows.append(q[t].double() @ state)
    o, S1 = chunk(50, dtype).check(q, k, k, v, S)
    limit = 1e-6 if dtype is REAL else 1e-2
    torch.testing.assert_close(o, torch.stack(rows), rtol=limit, atol=10 * limit)
    torch.testing.assert_close(S1, state, rtol=limit, atol=10 * limit)


# ------------------------------------------------------------------------------------ compiled

COMPILED = {
    "scan": lambda: running("max", True, DType.BFLOAT16),
    "product": lambda: running("prod", True, DType.BFLOAT16),
    "combine": lambda: combined(True, DType.BFLOAT16),
    "device function": lambda: Trial({"x": "TD"}, {"y": "TD"}, log_sums, {"T": 64, "D": 16}),
    "rows": lambda: substituted("TE", 16),
    "vector": lambda: substituted("T", 32),
    "triangle": lambda: substituted("TE", 32),
    "solve": lambda: solved("DE", 24),
    "chunk": lambda: chunk(32, DType.BFLOAT16),
}


@pytest.mark.parametrize("name", COMPILED)
def test_every_target_compiles_it(name: str, workers: CompileWorkers) -> None:
    trial = COMPILED[name]()
    targets = TARGETS if name in ("combine", "chunk") else [parse_target("cuda:90")]
    for report in workers.compile(trial.source, kernel_signatures(trial.plan), targets):
        assert report.error is None, report
        assert report.spilled_bytes == 0, report
        if name == "chunk":
            assert report.tensor_core_instructions, report


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("dtype", [REAL, DType.FLOAT16], ids=lambda dtype: dtype.value)
def test_what_a_dot_masks_is_not_seen(dtype: DType) -> None:
    """Neither NaN nor infinity, by which side of the dot ever."""

    def make(b: Builder, *tiles: Value) -> Mapping[str, Value]:
        w, x, u, y = (b.cast(tile, dtype) for tile in tiles)
        acc = b.constant(0.5, REAL, frozenset("TE"))
        o = b.dot(w, x, "D", acc, masked=True)
        return {"o": o, "p": b.dot(u, y, "D", masked=True)}

    inputs = {"w": "TD", "x": "DE", "u": "DE", "y": "TD"}
    trial = Trial(inputs, {"o": "TE", "p": "TE"}, make, {"T": 19, "D": 16, "E": 24}, dtype)
    few_w, few_u = (torch.randn(n, m) * (torch.rand(n, m) < 0.3) for n, m in ((19, 16), (16, 24)))
    odd_x, odd_y = torch.randn(16, 24), torch.randn(19, 16)
    for n, number in enumerate((torch.nan, torch.inf, -torch.inf)):
        odd_x[5 * n, n::4] = number
        odd_y[n::5, 5 * n] = number
    wanted = trial.check(few_w, odd_x, few_u, odd_y, error=2e-6 if dtype is REAL else 2e-3)
    assert all(0 < int(w.isfinite().sum()) < w.numel() for w in wanted)
