"""Peers derived from specs, each against the reference; and the rules of a benchmark."""

import json

import pytest
import torch

import mixc.autotune.bench.bench as benchmarks
from mixc.autotune.bench import peers
from mixc.autotune.bench.bench import OURS, bench, far_behind
from mixc.autotune.bench.dot_product import dot_product
from mixc.autotune.bench.measuring import Clock
from mixc.autotune.bench.sdpa_peers import sdpa
from mixc.autotune.checking.shapes import CPU_PROPORTIONS, timed_sizes
from mixc.backends.reference.evaluate import run
from mixc.commands.bench_specs import cells
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.ir.errors import UnsupportedError

N = 48
SMALL = {"T": N, "D": 16, "E": 8, "H": 6, "G": 2, "B": 2, "I": N, "J": N}
SPELLED = """\
mixer: spelled
inputs:
  q: [T, B, G*R*D]
  k: [B, G, D, J]
  v: [B, J, G, E]
  slope: [G, R]
  far: {dims: [B, J], dtype: bool}
dims: {J: T}
params: {window: 9, soft: 5.0}
attention:
  over: J
  score: soft * tanh(0.3 * sum(q * k, D) / soft) - slope * abs(t - j)
  mask: j <= t and (t - j < window or far)
  output: {o: v}
outputs: {o: [B, T, G*R*E]}
"""


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    """Peers mean the same without torch's compiler, which takes its time."""
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)


def exact(mixer):
    def kernels(tensors):
        return {n: t.float() for n, t in run(mixer, tensors).items()}

    return kernels


def rows(mixer, ours=None, names=("sdpa", "flex", "eager", "reference"), grad=False, **changed):
    known = {i for entry in mixer.inputs for i in entry.dims} | set(dict(mixer.sequences).values())
    wanted = {d: n for d, n in {**SMALL, **changed}.items() if d in known}
    assert max(wanted.values()) == N
    sizes = timed_sizes(mixer, CPU_PROPORTIONS, wanted)
    kernels = ours or exact(mixer)
    return bench(mixer, kernels, sizes, torch.float32, peers=names, rounds=2, grad=grad)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "sayable"),
    [
        ("dense", "sdpa flex eager"),
        ("causal", "sdpa flex eager"),
        ("cross", "sdpa flex eager"),
        ("alibi_window", "sdpa flex eager"),
        ("packed", "sdpa flex eager"),
        ("block_sparse", "sdpa flex eager"),
        ("tree", "sdpa flex eager"),
        ("softcap", "flex eager"),
        ("relu", ""),
        ("sink", "sdpa"),
        ("rope", ""),
        ("longformer", ""),
    ],
)
def test_what_peers_say_is_what_the_spec_says(name, sayable):
    found = rows(load_file(find_spec(name)))
    status = {row.name: row.status for row in found.rows}
    assert status.pop(OURS) == status.pop("reference") == "timed"
    assert [n for n, s in status.items() if s == "timed"] == sayable.split()
    assert all(r.message for r in found.rows if r.status == "not sayable")
    assert all(r.error < 1e-4 for r in found.rows if r.status == "timed")


@pytest.mark.filterwarnings("ignore")
def test_products_of_dims_other_orders_and_grouped_heads_make_no_difference():
    text = SPELLED.replace("[G, R]", "[H]").replace("G*R*D", "H, D").replace("G*R*E", "H*E")
    text = text.replace("dims: {J: T}", "dims: {J: T}\nheads: {G: H}")
    found = rows(load_text(text))
    status = {row.name: (row.status, row.message) for row in found.rows}
    assert status["flex"] == status["eager"] == ("timed", "")
    assert status["sdpa"][0] == "not sayable"
    assert "not linear" in status["sdpa"][1]


def test_query_heads_on_two_axes_are_a_form_of_the_peers_where_one_is_alone():
    mixer = load_text(SPELLED)
    sizes = timed_sizes(mixer, CPU_PROPORTIONS, {"G": 1, "R": 2})
    assert dot_product(mixer, sizes).index_dims[1] == "R"
    with pytest.raises(UnsupportedError, match="q has other axes"):
        dot_product(mixer, timed_sizes(mixer, CPU_PROPORTIONS, {"G": 2, "R": 2}))


@pytest.mark.parametrize("mask", ["true", "(i + j + h) % 3 != 0"])
def test_heads_of_a_group_are_rows_where_queries_are_few(mask):
    text = find_spec("cross").read_text().replace("mask: kept", f"mask: {mask}")
    mixer = load_text("".join(n for n in text.splitlines(True) if "kept:" not in n))
    names = ("sdpa-rows", "sdpa-rows-fp32")
    few = bench_of(mixer, names, {"I": 2, "J": 96, "H": 6, "G": 2})
    assert [(r.status, r.message) for r in few.rows[1:]] == [("timed", "")] * 2
    (row,) = bench_of(mixer, names[:1], {"I": 32, "J": 96, "H": 6, "G": 2}).rows[1:]
    assert "more than 16 queries" in row.message
    (row,) = bench_of(mixer, names[:1], {"I": 2, "J": 96, "H": 6, "G": 6}).rows[1:]
    assert "no heads share" in row.message


def bench_of(mixer, names, changed, dtype=torch.bfloat16):
    sizes = timed_sizes(mixer, CPU_PROPORTIONS, changed)

    def kernels(tensors):
        return run(mixer, tensors, dtype=dtype)

    return bench(mixer, kernels, sizes, dtype, peers=names, rounds=2)


@pytest.mark.parametrize("name", ["causal", "alibi", "sink", "gla", "hgrn"])
def test_a_peer_in_float32_takes_and_gives_tensors_of_16_bits(name):
    mixer = load_file(find_spec(name))
    changed = {"T": N} if name in ("gla", "hgrn") else {"T": N, "H": 4, "G": 2}
    plain = "parallel" if name in ("gla", "hgrn") else "sdpa"
    found = bench_of(mixer, (plain, f"{plain}-fp32"), changed)
    _, low, high = found.rows
    assert (low.status, low.message) == (high.status, high.message) == ("timed", "")
    assert high.what == f"{low.what}, cast to fp32"
    single = bench_of(mixer, (f"{plain}-fp32",), changed, torch.float32)
    assert "16 bits" in single.rows[1].message


def test_a_score_is_taken_apart():
    mixer = load_file(find_spec("alibi_window"))
    form = dot_product(mixer, timed_sizes(mixer, CPU_PROPORTIONS))
    factor, bias = form.factor_and_bias
    assert (form.query, form.key, form.value, form.names) == ("q", "k", "v", ("slope",))
    assert factor == 64**-0.5
    assert str(bias) == "-1.0 * (slope * (i - j))"
    assert not form.is_causal  # a window more
    causal = load_file(find_spec("causal"))
    assert dot_product(causal, timed_sizes(causal, CPU_PROPORTIONS)).is_causal


def test_a_peer_that_computes_something_else_is_broken(monkeypatch):
    def wrong(setting):
        made = sdpa(setting)
        return peers.Call("wrong", lambda: made.run() * 1.01, made.results)

    def failing(setting):
        raise RuntimeError("no kernel\nfound")

    made = {"wrong": wrong, "failing": failing}
    monkeypatch.setattr("mixc.autotune.bench.bench.PEERS", made)
    found = rows(load_file(find_spec("causal")), names=("wrong", "failing"))
    _, off, raised = found.rows
    assert (off.status, raised.status) == ("broken", "broken")
    assert off.message.startswith("wrong: o is off by")
    assert raised.message == "RuntimeError: no kernel"
    assert found.ratio is None
    assert found.verdict is None


def test_the_reference_is_shown_and_compared_to_nothing():
    """It is no code of a user's, however fast or slow it is."""
    found = rows(load_file(find_spec("relu")), names=("reference",))
    assert found.rows[1].what.startswith("the reference")
    assert found.rows[1].time_us > 0
    assert found.ratio is found.verdict is found.rows[1].ratio is None
    assert "no peer" in cells(found.rows[1])


def test_a_row_far_behind_has_two_turns():
    """But never one that a ratio is made of."""
    assert far_behind({OURS: 1.0, "sdpa": 40.0, "eager": 190.0, "reference": 210.0}) == {
        "reference"
    }
    assert far_behind({OURS: 1.0, "sdpa": 40.0}) == set()
    assert far_behind({OURS: 900.0, "sdpa": 40.0, "flex": 60.0}) == set()


def test_a_peer_without_end_has_one_turn(monkeypatch):
    names = (OURS, "flex", "sdpa", "eager")
    times = dict(zip(names, (1e5, 2e5, 3e6, 6e6), strict=True))
    called = []

    class Told(Clock):
        def once(self, call, calls=1):
            called.append(call())
            return times[called[-1]]

    monkeypatch.setattr(benchmarks, "Clock", Told)
    rows = {name: benchmarks.Row(name, "", "timed") for name in names}
    timed = {name: (lambda own=name: own,) for name in names}
    assert benchmarks._time(rows, timed, "cpu", 7) == 7
    assert {name: row.time_us for name, row in rows.items()} == times
    # Each is warmed up (what is quick twice) and tried; then as many turns as it is worth.
    assert [called.count(name) for name in names] == [10, 10, 4, 1]


def test_kernels_of_ours_that_are_wrong_are_not_timed():
    mixer = load_file(find_spec("causal"))
    found = rows(mixer, lambda tensors: {"o": exact(mixer)(tensors)["o"] * 1.01}, ())
    assert found.rows[0].status == "broken"
    assert found.rows[0].time_us is None


def test_the_data_of_a_benchmark():
    found = rows(load_file(find_spec("causal")), names=("sdpa",))
    data = json.loads(json.dumps(found.as_dict()))
    assert list(data) == [
        "spec", "dtype", "device", "machine", "grad", "sizes", "flops", "visible_pairs", "rounds",
        "ratio", "verdict", "rows",
    ]  # fmt: skip
    assert data["visible_pairs"] == 2 * 6 * N * (N + 1) // 2
    assert data["flops"] == data["visible_pairs"] * 2 * (16 + 8)
    ours, sdpa = data["rows"]
    assert ours["ratio"] == pytest.approx(sdpa["time_us"] / ours["time_us"])
    assert sdpa["ratio"] == 1.0
    assert ours["gflop_s"] == pytest.approx(data["flops"] / ours["time_us"] / 1e3)
    assert sdpa["what"] == "torch SDPA, is_causal"
    assert data["rounds"] == 2


@pytest.mark.parametrize(
    ("name", "names"), [("causal", ("sdpa", "eager")), ("gla", ("parallel",)), ("lstm", ("layer",))]
)
def test_forward_and_backward_of_peers_that_have_them(name, names):
    mixer = load_file(find_spec(name))
    found = rows(mixer, names=names, grad=True, H=2, G=2)
    assert [(row.status, row.message) for row in found.rows] == [("timed", "")] * len(found.rows)
    for row in found.rows:
        assert 0 < row.backward_us < 2 * row.time_us
        assert row.ratio > 0 < row.backward_ratio
        assert f"{row.backward_us:,.0f} us" in cells(row, grad=True)
    assert found.as_dict()["grad"]


def test_gradients_of_ours_that_are_wrong_are_not_timed():
    mixer = load_file(find_spec("causal"))

    def forgetful(tensors):
        return exact(mixer)({**tensors, "v": 0.5 * tensors["v"] + 0.5 * tensors["v"].detach()})

    found = rows(mixer, forgetful, (), grad=True)
    assert found.rows[0].status == "broken"
    assert "gradient of v is off by 0.5" in found.rows[0].message


@pytest.mark.parametrize(("lost", "status"), [(1e-7, "broken"), (1e-3, "timed")])
def test_gradients_are_held_to_what_rounding_does_to_their_equations(monkeypatch, lost, status):
    mixer = load_file(find_spec("causal"))
    monkeypatch.setattr(
        "mixc.autotune.bench.bench.rounding_errors", lambda *_: {"gradient of v": lost}
    )

    def rough(tensors):
        v = tensors["v"]
        return exact(mixer)({**tensors, "v": v + 1e-3 * (v - v.detach())})

    assert rows(mixer, rough, (), grad=True).rows[0].status == status
