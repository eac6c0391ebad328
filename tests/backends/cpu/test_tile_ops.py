"""Tile programs written by hand, native against the interpreter of tile programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import pytest
import torch
from torch import Tensor

from mixc.backends.cpu.build import find_compiler
from mixc.backends.cpu.emit import emit_source
from mixc.backends.cpu.run import run_plan as run_natively
from mixc.backends.reference.tiles import run_plan
from mixc.compiler.tiles.builder import Builder
from mixc.ir.mixer import Input, Mixer, Output
from mixc.ir.plan import Buffer, Kernel, Plan
from mixc.ir.tile import BufferArgument, DType, SizeArgument, Tile, Value
from mixc.ir.verify_plan import verify_plan

F32, BF16, INT, BOOL = DType.FLOAT32, DType.BFLOAT16, DType.INT32, DType.BOOL
TORCH = {F32: torch.float32, BF16: torch.bfloat16}


@dataclass
class Bench:
    """A program of one instance over whole tiles: inputs by name to loaded values."""

    dtype: DType
    sizes: Mapping[str, int]
    b: Builder = field(default_factory=lambda: Builder("kernel"))
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outputs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Whole tiles, padded to 16."""
        for dim, size in self.sizes.items():
            self.b.tiles[dim] = Tile(dim, -(-size // 16) * 16, whole=True, size=size)

    def places(self, axes: Sequence[str]) -> tuple[list[Value], Value | None]:
        """Positions along axes, and which of them exist."""
        found, mask = [], None
        for axis in axes:
            position = self.b.range(axis, None, axis.lower())
            size = self.b.scalar(SizeArgument(axis))
            exists = self.b.elementwise("lt", position, size, dtype=BOOL)
            if mask is not None:
                exists = self.b.elementwise("and", mask, exists, dtype=BOOL)
            mask = exists
            found.append(position)
        return found, mask

    def load(self, name: str, axes: str, cast: bool = True) -> Value:
        """A tile of an input, in float32."""
        dims = tuple(axes)
        self.inputs[name] = dims
        self.b.buffer(BufferArgument(name, dims, self.dtype))
        places, mask = self.places(axes)
        value = self.b.load(name, list(zip(dims, places, strict=True)), mask)
        return self.b.cast(value, F32) if cast else value

    def store(self, name: str, value: Value, axes: str) -> None:
        """Write a tile to an output."""
        dims = tuple(axes)
        self.outputs[name] = dims
        self.b.buffer(BufferArgument(name, dims, F32, written=True))
        places, mask = self.places(axes)
        self.b.store(name, list(zip(dims, places, strict=True)), value, mask)

    def ew(self, fn: str, *args: Value, dtype: DType = F32) -> Value:
        """An elementwise op."""
        return self.b.elementwise(fn, *args, dtype=dtype)

    def plan(self) -> Plan:
        """The program as a plan, checked."""
        program = self.b.finish((), "")
        layouts = {
            n: tuple((d,) for d in dims) for n, dims in {**self.inputs, **self.outputs}.items()
        }
        mixer = Mixer(
            "handmade",
            tuple(Input(n, layouts[n]) for n in self.inputs),
            tuple(Output(n, layouts[n]) for n in self.outputs),
            (),
        )
        buffers = [Buffer(n, d, self.dtype, "input") for n, d in self.inputs.items()]
        buffers += [Buffer(n, d, F32, "output") for n, d in self.outputs.items()]
        kernel = Kernel(program, "by hand", tuple(self.outputs), "")
        plan = Plan(mixer, (kernel,), tuple(buffers), (), (), self.dtype)
        verify_plan(plan)
        return plan

    def check(self, tolerance: float = 2e-5, **tensors: Tensor) -> None:
        """Both backends on random inputs, or on those given."""
        plan = self.plan()
        torch.manual_seed(0)
        given = {
            n: tensors.get(n, torch.randn([self.sizes[d] for d in dims])).to(TORCH[self.dtype])
            for n, dims in self.inputs.items()
        }
        found = run_natively(plan, given, self.sizes, flags=("-O1",))
        wanted = run_plan(plan, given, self.sizes)
        for name, result in wanted.items():
            scale = float(result[result.isfinite()].abs().max()) + 1.0
            torch.testing.assert_close(
                found[name].double(), result, rtol=0, atol=tolerance * scale, equal_nan=True
            )


CASES = pytest.mark.parametrize(("dtype", "size"), [(F32, 1), (F32, 39), (BF16, 39)], ids=str)


EVERY_SCAN = list(product(("sum", "prod", "max"), (False, True)))


@CASES
def test_scans(dtype: DType, size: int) -> None:
    bench = Bench(dtype, {"T": size, "E": 19})
    for name, axes in (("x", "TE"), ("z", "T")):
        loaded = bench.load(name, axes)
        for axis, (op, reverse) in product(axes, EVERY_SCAN):
            made = bench.b.scan(loaded, axis, reverse, op=op)
            bench.store(f"{name}_{axis}_{op}{reverse:d}", made, axes)
    bench.check()


@CASES
def test_combinations(dtype: DType, size: int) -> None:
    """Affine maps put together: (a, b) then (c, d) is (a c, c b + d)."""
    bench = Bench(dtype, {"T": size, "E": 35})

    def affine(left: tuple[Value, ...], right: tuple[Value, ...]) -> list[Value]:
        scaled = bench.ew("mul", left[1], right[0])
        return [bench.ew("mul", left[0], right[0]), bench.ew("add", scaled, right[1])]

    for axes in ("TE", "T"):
        gate = bench.ew("tanh", bench.load(f"a_{axes}", axes))
        pair = (gate, bench.load(f"b_{axes}", axes))
        for over, reverse in product(axes, (False, True)):
            made = bench.b.combine(pair, over, affine, reverse)
            for place, value in enumerate(made):
                bench.store(f"y{place}_{axes}_{over}{reverse:d}", value, axes)
    bench.check()


@CASES
def test_substitution(dtype: DType, size: int) -> None:
    """One right-hand side and many; what lies on and above the diagonal is not read."""
    bench = Bench(dtype, {"T": size, "S": size, "E": 40})
    a = bench.load("a", "TS")
    many = bench.b.substitute(a, bench.load("b", "TE"), "T", "S")
    one = bench.b.substitute(a, bench.load("c", "T"), "T", "S")
    bench.store("x", many, "TE")
    bench.store("y", one, "T")
    poisoned = torch.randn(size, size).tril(-1) / 4 + torch.full((size, size), torch.nan).triu()
    bench.check(a=poisoned.nan_to_num(1e30))


@CASES
def test_dense_systems(dtype: DType, size: int) -> None:
    bench = Bench(dtype, {"D": size, "P": size, "E": 7})
    matrix = bench.load("m", "DP")
    bench.store("x", bench.b.solve(matrix, bench.load("b", "DE"), "D", "P"), "PE")
    bench.store("y", bench.b.solve(matrix, bench.load("c", "D"), "D", "P"), "P")
    permuted = (torch.eye(size) * 4 + torch.randn(size, size) / 8)[torch.randperm(size)]
    bench.check(1e-4, m=permuted)


@CASES
@pytest.mark.parametrize("columns", [16, 64, 160])
def test_a_tile_that_is_folded_both_ways(dtype: DType, size: int, columns: int) -> None:
    """In one pass, where the last axis fills vectors; what it overwrites is read by both."""
    bench = Bench(dtype, {"T": size, "E": columns})
    x, column, row = bench.load("x", "TE"), bench.load("k", "T"), bench.load("v", "E")
    for name, op in (("s", "sum"), ("m", "max"), ("n", "min")):
        state = bench.ew("add", x, bench.ew("mul", column, row))
        bench.store(f"{name}_rows", bench.b.reduce(op, bench.ew("mul", state, column), "T"), "E")
        bench.store(f"{name}_columns", bench.b.reduce(op, bench.ew("mul", state, row), "E"), "T")
    bench.store("y", bench.ew("exp", bench.ew("sub", x, column)), "TE")
    bench.check()


@CASES
def test_renamed_axes(dtype: DType, size: int) -> None:
    """In loops, in dots on either side, beside the first name, and as a position."""
    bench = Bench(dtype, {"T": size, "S": size, "D": 24})
    raw = bench.load("k", "TD", cast=False)
    k = bench.b.cast(raw, F32)
    g = bench.b.scan(bench.load("g", "T"), "T")
    gap = bench.ew("sub", g, bench.b.rename(g, "T", "S"))
    bench.store("gap", gap, "TS")
    dtype_dot = raw if dtype is BF16 else bench.ew("exp", k)
    scores = bench.b.dot(dtype_dot, bench.b.rename(dtype_dot, "T", "S"), "D")
    bench.store("scores", scores, "TS")
    t, _ = bench.places("T")
    later = bench.ew("lt", bench.b.rename(t[0], "T", "S"), t[0], dtype=BOOL)
    lower = bench.ew("where", later, scores, bench.b.constant(0.0, F32))
    narrow = bench.b.cast(lower, BF16) if dtype is BF16 else lower
    made = bench.b.dot(narrow, bench.b.rename(dtype_dot, "T", "S"), "S")
    bench.store("made", made, "TD")
    again = bench.b.rename(bench.ew("mul", made, k), "T", "S")
    bench.store("again", again, "SD")
    bench.check(2e-2 if dtype is BF16 else 2e-5)


@CASES
def test_what_a_dot_masks_is_not_seen(dtype: DType, size: int) -> None:
    """Neither NaN nor infinity, by which side of the dot ever."""
    bench = Bench(dtype, {"T": size, "D": 21, "E": 24})
    w, x, u, y = (
        bench.load(name, axes, cast=False)
        for name, axes in (("w", "TD"), ("x", "DE"), ("u", "DE"), ("y", "TD"))
    )
    acc = bench.b.constant(0.5, F32, frozenset("TE"))
    bench.store("o", bench.b.dot(w, x, "D", acc, masked=True), "TE")
    bench.store("p", bench.b.dot(u, y, "D", masked=True), "TE")
    few_w, few_u = (torch.randn(n, m) * (torch.rand(n, m) < 0.3) for n, m in ((size, 21), (21, 24)))
    odd_x, odd_y = torch.randn(21, 24), torch.randn(size, 21)
    for n, number in enumerate((torch.nan, torch.inf, -torch.inf)):
        odd_x[5 * n, n::4] = number
        odd_y[n::5, 5 * n] = number
    bench.check(2e-2 if dtype is BF16 else 2e-5, w=few_w, x=odd_x, u=few_u, y=odd_y)


def test_what_a_number_rules_out_is_not_read() -> None:
    """Loads and stores that one condition holds for, or that none does."""
    bench = Bench(F32, {"T": 23, "E": 17})
    one, two = bench.b.constant(1, INT), bench.b.constant(2, INT)
    for name, right in (("kept", two), ("dropped", one)):
        holds = bench.ew("lt", one, right, dtype=BOOL)
        places, mask = bench.places("TE")
        bench.inputs[name] = ("T", "E")
        bench.b.buffer(BufferArgument(name, ("T", "E"), F32))
        both = bench.ew("and", holds, mask, dtype=BOOL) if mask is not None else holds
        loaded = bench.b.load(name, list(zip("TE", places, strict=True)), both, fill=3.0)
        bench.store(f"{name}_out", loaded, "TE")
    bench.check()
    assert "mx::load_tile" in emit_source(bench.plan(), find_compiler().target).text


@pytest.mark.parametrize(("size", "places"), [(1, 70), (39, 70), (39, 20)])
def test_terms_that_count_at_one_place(size: int, places: int) -> None:
    """Added there, be they many to a place, or outside, or infinite where they do not count."""
    bench = Bench(F32, {"M": 19, "C": size, "S": places})
    key = bench.b.cast(bench.load("key", "MC"), INT)
    x, zero = bench.load("x", "MC"), bench.b.constant(0.0, F32)
    hit = bench.ew("eq", key, bench.b.range("S", None, "s"), dtype=BOOL)
    _, exists = bench.places("C")
    small = bench.ew("lt", x, bench.b.constant(1.0, F32), dtype=BOOL)
    assert exists is not None
    for n, condition in enumerate((exists, bench.ew("and", exists, small, dtype=BOOL))):
        counts = bench.ew("and", hit, condition, dtype=BOOL)
        term = bench.ew("where", counts, x, zero)
        bench.store(f"sum_{n}", bench.b.reduce("sum", term, "C"), "MS")
        number = bench.ew("where", counts, key, bench.b.constant(0, INT), dtype=INT)
        number = bench.b.cast(number, DType.INT64)
        bench.store(f"keys_{n}", bench.b.cast(bench.b.reduce("sum", number, "C"), F32), "MS")
    torch.manual_seed(0)
    given = torch.randn(19, size)
    given[torch.rand(given.shape) < 0.1] = torch.inf
    keys = torch.randint(-5, places + 9, (19, size))
    keys[:, ::3] = 7
    bench.check(key=keys.float(), x=given)
    source = emit_source(bench.plan(), find_compiler().target).text
    assert source.count("uint32_t(at_S)") == (4 if places == 70 else 0)
