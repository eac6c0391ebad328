"""What single ops of the tile level mean, against plain torch; every tile is padded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from mixc.backends.reference.tiles import run_plan
from mixc.compiler.tiles.builder import Builder
from mixc.ir.mixer import Input, Mixer, Output
from mixc.ir.plan import Buffer, Kernel, Plan
from mixc.ir.tile import BufferArgument, DType, Program, Tile, Value
from mixc.ir.verify_plan import verify_plan

SIZES = {"M": 5, "N": 5, "D": 3, "E": 6}
Made = Callable[..., Mapping[str, Value]]


def builder(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> tuple[Builder, list[Value]]:
    """A program with every dim whole in a tile, and the tiles of its inputs, 0 where padded."""
    b = Builder("tried")
    for name, dims in inputs.items():
        b.buffer(BufferArgument(name, tuple(dims), DType.FLOAT32))
    for name, dims in outputs.items():
        b.buffer(BufferArgument(name, tuple(dims), DType.FLOAT32, written=True))
    for dim, size in SIZES.items():
        b.tiles[dim] = Tile(dim, 8 if dim != "D" else 4, whole=True, size=size)
    return b, [b.load(n, *place(b, dims), hint=f"{n}_tile") for n, dims in inputs.items()]


def place(b: Builder, dims: str) -> tuple[list[tuple[str, Value]], Value]:
    places, mask = [], None
    for dim in dims:
        at = b.range(dim, None, dim.lower())
        size = b.constant(SIZES[dim], DType.INT32)
        inside = b.elementwise("lt", at, size, dtype=DType.BOOL)
        mask = inside if mask is None else b.elementwise("and", mask, inside, dtype=DType.BOOL)
        places.append((dim, at))
    assert mask is not None
    return places, mask


def execute(inputs: Mapping[str, str], outputs: Mapping[str, str], make: Made) -> tuple:
    """The tensors given at random, and what the program with the ops of ``make`` gives."""
    b, tiles = builder(inputs, outputs)
    made = make(b, *tiles)
    for name, dims in outputs.items():
        places, mask = place(b, dims)
        b.store(name, places, made[name], mask)
    torch.manual_seed(1)
    given = {
        n: torch.randn([SIZES[d] for d in dims], dtype=torch.float64) for n, dims in inputs.items()
    }
    plan = plan_of(b.finish(), inputs, outputs)
    verify_plan(plan)
    found = run_plan(plan, given, SIZES)
    return (*given.values(), *(found[name] for name in outputs))


def plan_of(program: Program, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Plan:
    mixer = Mixer(
        "tried",
        tuple(Input(n, tuple((d,) for d in dims)) for n, dims in inputs.items()),
        tuple(Output(n, tuple((d,) for d in dims)) for n, dims in outputs.items()),
        (),
    )
    buffers = [Buffer(n, tuple(dims), DType.FLOAT32, "input") for n, dims in inputs.items()]
    buffers += [Buffer(n, tuple(dims), DType.FLOAT32, "output") for n, dims in outputs.items()]
    kernel = Kernel(program, "tried", tuple(outputs), "")
    return Plan(mixer, (kernel,), tuple(buffers), tuple(SIZES.items()), (), DType.FLOAT32)


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)


SCANS = {
    "sum": lambda x: x.cumsum(0),
    "prod": lambda x: x.cumprod(0),
    "max": lambda x: x.cummax(0).values,
}


@pytest.mark.parametrize("op", sorted(SCANS))
@pytest.mark.parametrize("reverse", [False, True])
def test_scan(op: str, reverse: bool) -> None:
    """Padding counts: 0 at the end of a reversed product, say, unless the program sees to it."""

    def make(b: Builder, x: Value) -> dict[str, Value]:
        _, inside = place(b, "M")
        neutral = {"sum": 0.0, "prod": 1.0, "max": -torch.inf}[op]
        filled = b.elementwise(
            "where", inside, x, b.constant(neutral, DType.FLOAT32), dtype=DType.FLOAT32
        )
        return {"y": b.scan(filled, "M", reverse, op=op)}

    x, y = execute({"x": "MD"}, {"y": "MD"}, make)
    close(y, SCANS[op](x.flip(0)).flip(0) if reverse else SCANS[op](x))


def keep(b: Builder, x: Value) -> Value:
    """``x`` with 1 where M is padded."""
    _, inside = place(b, "M")
    one = b.constant(1.0, DType.FLOAT32)
    return b.elementwise("where", inside, x, one, dtype=DType.FLOAT32)


@pytest.mark.parametrize("reverse", [False, True])
def test_combine_of_decays_and_terms(reverse: bool) -> None:
    """s = a * s + x, by (a, x) then (c, y) = (a c, c x + y); ``a`` and ``s`` are both stored."""

    def make(b: Builder, a: Value, x: Value) -> dict[str, Value]:
        def together(left: tuple[Value, ...], right: tuple[Value, ...]) -> tuple[Value, ...]:
            (a, x), (c, y) = left, right
            scaled = b.elementwise("mul", c, x, dtype=DType.FLOAT32)
            return (
                b.elementwise("mul", a, c, dtype=DType.FLOAT32),
                b.elementwise("add", scaled, y, dtype=DType.FLOAT32),
            )

        decays, states = b.combine([keep(b, a), x], "M", together, reverse, ["decay", "state"])
        return {"p": decays, "s": states}

    a, x, p, s = execute({"a": "MD", "x": "MD"}, {"p": "MD", "s": "MD"}, make)
    if reverse:
        a, x, p, s = (t.flip(0) for t in (a, x, p, s))
    state = torch.zeros(3, dtype=torch.float64)
    for row in range(5):
        state = a[row] * state + x[row]
        close(s[row], state)
    close(p, a.cumprod(0))


def test_combine_keeps_the_order() -> None:
    """2 x 2 rotations and shears don't commute: the earlier stretch is the left one."""

    def make(b: Builder, *parts: Value) -> dict[str, Value]:
        def dot(a: Value, c: Value, d: Value, e: Value) -> Value:
            first = b.elementwise("mul", a, c, dtype=DType.FLOAT32)
            second = b.elementwise("mul", d, e, dtype=DType.FLOAT32)
            return b.elementwise("add", first, second, dtype=DType.FLOAT32)

        def together(left: tuple[Value, ...], right: tuple[Value, ...]) -> tuple[Value, ...]:
            (a, c, d, e), (f, g, h, i) = left, right
            return dot(a, f, c, h), dot(a, g, c, i), dot(d, f, e, h), dot(d, g, e, i)

        made = b.combine(parts, "N", together, hints=["a", "c", "d", "e"])
        return dict(zip("wxyz", made, strict=True))

    names = dict.fromkeys(("a", "b", "c", "d"), "ND")
    found = execute(names, dict.fromkeys("wxyz", "ND"), make)
    given = torch.stack(found[:4], -1).reshape(5, 3, 2, 2)
    product = torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    for row in range(5):
        product = product @ given[row]
        close(torch.stack([t[row] for t in found[4:]], -1).reshape(3, 2, 2), product)


def test_a_combination_may_use_constants_and_scalars() -> None:
    def make(b: Builder, x: Value) -> dict[str, Value]:
        def together(left: tuple[Value, ...], right: tuple[Value, ...]) -> tuple[Value, ...]:
            most = b.elementwise("max", left[0], right[0], dtype=DType.FLOAT32)
            top = b.constant(0.25, DType.FLOAT32)
            return (b.elementwise("min", most, top, dtype=DType.FLOAT32),)

        (most,) = b.combine([x], "M", together)
        return {"y": most}

    x, y = execute({"x": "MD"}, {"y": "MD"}, make)
    close(y[0], x[0])
    close(y[1:], x.cummax(0).values[1:].clamp(max=0.25))


def test_rename() -> None:
    """A tile under another name meets itself: all pairs of rows."""

    def make(b: Builder, x: Value, w: Value) -> dict[str, Value]:
        other = b.rename(x, "M", "N")
        assert other.axes == {"N", "D"}
        pairs = b.dot(x, other, "D")
        both = b.elementwise("add", pairs, b.rename(w, "N", "M"), dtype=DType.FLOAT32)
        return {"y": both, "z": b.rename(pairs, "M", "E")}

    x, w, y = execute({"x": "MD", "w": "N"}, {"y": "MN"}, make)
    close(y, x @ x.T + w[:, None])


def test_renamed_axes_stay_in_order_of_name() -> None:
    """D -> N in [D, M] moves behind M, whose place the interpreter gives by name."""

    def make(b: Builder, x: Value) -> dict[str, Value]:
        b.tiles["P"] = Tile("P", 4, whole=True, size=3)
        return {"y": b.elementwise("neg", b.rename(x, "D", "P"), dtype=DType.FLOAT32)}

    b, (x,) = builder({"x": "MD"}, {"y": "MP"})
    made = make(b, x)
    places, _ = place(b, "M")
    at = b.range("P", None, "p")
    inside = b.elementwise("lt", at, b.constant(3, DType.INT32), dtype=DType.BOOL)
    rows = b.elementwise("lt", places[0][1], b.constant(5, DType.INT32), dtype=DType.BOOL)
    mask = b.elementwise("and", rows, inside, dtype=DType.BOOL)
    b.store("y", [*places, ("P", at)], made["y"], mask)
    plan = plan_of(b.finish(), {"x": "MD"}, {"y": "MP"})
    given = torch.randn(5, 3, dtype=torch.float64)
    close(run_plan(plan, {"x": given}, {**SIZES, "P": 3})["y"], -given)


@pytest.mark.parametrize("dims", ["MD", "M", "MDE"])
def test_substitute(dims: str) -> None:
    def make(b: Builder, a: Value, x: Value) -> dict[str, Value]:
        return {"y": b.substitute(a, x, "M", "N")}

    a, x, y = execute({"a": "MN", "b": dims}, {"y": dims}, make)
    lower = torch.eye(5, dtype=torch.float64) - a.tril(-1)
    close(y, torch.linalg.solve(lower, x.reshape(5, -1)).reshape(x.shape))


def test_substitute_into_the_rows_of_a_later_axis() -> None:
    def make(b: Builder, a: Value, x: Value) -> dict[str, Value]:
        return {"y": b.substitute(a, x, "N", "M")}

    a, x, y = execute({"a": "NM", "b": "DN"}, {"y": "DN"}, make)
    lower = torch.eye(5, dtype=torch.float64) - a.tril(-1)
    close(y, torch.linalg.solve(lower, x.T).T)


@pytest.mark.parametrize("dims", ["MD", "M", "DM", "MDE"])
def test_solve(dims: str) -> None:
    def make(b: Builder, a: Value, x: Value) -> dict[str, Value]:
        return {"y": b.solve(a, x, "M", "N")}

    out = dims.replace("M", "N")
    a, x, y = execute({"a": "MN", "b": dims}, {"y": out}, make)
    right = x.movedim(dims.index("M"), 0)
    wanted = torch.linalg.solve(a, right.reshape(5, -1)).reshape(right.shape)
    close(y, wanted.movedim(0, dims.index("M")))


def test_the_solution_is_0_past_the_size() -> None:
    """Every position of its tile is summed, the padded ones too."""

    def make(b: Builder, a: Value, x: Value) -> dict[str, Value]:
        return {"y": b.reduce("sum", b.solve(a, x, "M", "N"), "N")}

    a, x, y = execute({"a": "MN", "b": "MD"}, {"y": "D"}, make)
    close(y, torch.linalg.solve(a, x).sum(0))
