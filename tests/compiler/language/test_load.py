"""What a spec's parts become in the mixer."""

import pytest

from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_report, load_text, read_file
from mixc.ir.errors import SpecError
from mixc.ir.expression import Index, Kind, Literal, Read, Ref, Scalar, Size, call
from mixc.ir.mixer import Attention, Map
from mixc.ir.text import write_expression
from mixc.ir.verify_mixer import verify_mixer

ALIBI = """
mixer: alibi_window
about: ALiBi bias inside a causal sliding window.
source: Press et al. 2022, arXiv 2108.12409; Beltagy et al. 2020, arXiv 2004.05150
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
  slope: [H]
dims: {I: T, J: T}                 # queries and keys are positions of one sequence
heads: {G: H}                      # G key/value heads serve H query heads
params:
  window: 1024
  scale: D ** -0.5
attention:
  over: J
  score: scale * sum(q * k, D) - slope * (i - j)
  mask: j <= i and i - j < window
  normalize: softmax
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""


def load(body: str):
    return load_text("mixer: m\n" + body)


def value(expression: str, extra: str = "", axes: str = "[B, T, D]"):
    """The IR of an expression among the inputs x [B, T, D] and n [B] (int32)."""
    text = (
        "mixer: m\ninputs:\n  x: [B, T, D]\n  n: {dims: [B], dtype: int32}\n"
        f"  f: {{dims: [T], dtype: bool}}\n{extra}\n"
        f"map:\n  o: >\n    {expression}\noutputs: {{o: {axes}}}"
    )
    stage = load_text(text).stages[0]
    assert isinstance(stage, Map)
    return stage.equations[0].value


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_the_library_loads_and_verifies(path):
    mixer, warnings = load_report(read_file(path), str(path))
    verify_mixer(mixer)
    assert mixer.name == path.stem
    assert not warnings


def test_the_first_example():
    mixer = load_text(ALIBI, "a.yaml")
    assert mixer.sequences == (("I", "T"), ("J", "T"))
    assert mixer.heads == (("G", "H"),)
    assert mixer.about == "ALiBi bias inside a causal sliding window."
    assert mixer.text == ALIBI
    assert mixer.path == "a.yaml"
    (stage,) = mixer.stages
    assert isinstance(stage, Attention)
    assert stage.queries == {"B", "H", "I"}
    group = call("floordiv", Index("H"), call("floordiv", Size("H"), Size("G")))
    k = Read(Ref("k", frozenset("BGJD"), Kind.REAL), (("G", group),))
    assert k in [a for a in stage.score.args[0].args[1].x.args]
    assert stage.weight == call("exp", Ref("score", frozenset("BHIJ"), Kind.REAL))
    assert stage.denominator == Ref("total", frozenset("BHI"), Kind.REAL)
    assert stage.outputs[0].value.axes == {"B", "H", "J", "E"}
    assert dict(stage.texts)["mask"] == "j <= i and i - j < window"
    assert mixer.outputs[0].span.line == 21


def test_normalisers():
    def stage(normalize: str) -> Attention:
        text = ALIBI.replace("normalize: softmax", f"normalize: {normalize}")
        return load_text(text.replace("window: 1024", "window: 1024\n  eps: 1e-6")).stages[0]

    score, total = stage("softmax").weight.args[0], stage("softmax").denominator
    none = stage("none")
    assert (none.weight, none.denominator) == (score, Literal(1))
    assert stage("{softmax: {sink: slope}}").sink == Ref("slope", frozenset("H"), Kind.REAL)
    general = stage("{weight: sigmoid(score), denominator: total + eps}")
    assert general.weight == call("sigmoid", score)
    assert general.denominator == call("add", total, Scalar("eps", Kind.REAL))
    assert stage("{weight: relu(score)}").denominator == Literal(1)
    top = stage("{weight: 'exp(score - max(score, I))'}").weight
    assert write_expression(top) == "exp(score - max(score, I))"


def test_clauses_of_an_attention():
    mixer = load(
        "inputs: {q: [B, I, D], k: [B, J, D], v: [E], g: [I]}\n"
        "attention:\n"
        "  over: J\n"
        "  score[B, I, J]: sum(q * k, D)\n"
        "  gain: g\n"
        "  output: {o: v, p: 1}\n"
        "  lse: l\n"
        "  weights: w\n"
        "outputs: {o: [B, I, E], p: [B, I], l: [B, I], w: [B, I, J]}"
    )
    stage = mixer.stages[0]
    assert [r.name for r in stage.results] == ["o", "p", "l", "w"]
    assert stage.mask is None
    verify_mixer(mixer)


def test_inputs_say_more():
    mixer = load(
        "inputs:\n"
        "  x: [B, 1, G*R]\n"
        "  n: {dims: [B], dtype: int64, sorted: true, grad: false, default: 3}\n"
        "map: {o: x + n}\n"
        "outputs: {o: [G*R, 1, B]}"
    )
    x, n = mixer.inputs
    assert x.layout == (("B",), (), ("G", "R"))
    assert mixer.outputs[0].layout == (("G", "R"), (), ("B",))
    assert (n.kind, n.dtype, n.sorted, n.grad, n.default) == (Kind.INT, "int64", True, False, 3)


def test_params_and_tables():
    mixer = load(
        "inputs: {x: [B, S, R]}\n"
        "params:\n"
        "  b: a * 2\n"
        "  a: B // 2 + 1\n"
        "  on: true\n"
        "  rate: {default: a / 2, runtime: true}\n"
        "  t: {dims: [S], values: [4, 8]}\n"
        "  u: {dims: [S, R], values: [[1, 2, 1/4], [-inf, 5, 6e2]]}\n"
        "map: {o: where(on, x * t * u, rate * b)}\n"
        "outputs: {o: [B, S, R]}".replace("{o: where", "{o: 'where").replace(
            "rate * b)}", "rate * b)'}"
        )
    )
    assert [(p.name, p.kind, p.runtime, p.flag) for p in mixer.params] == [
        ("b", Kind.INT, False, False),
        ("a", Kind.INT, False, False),
        ("on", Kind.BOOL, False, True),
        ("rate", Kind.REAL, True, False),
    ]
    t, u = mixer.tables
    assert (t.shape, t.values, t.kind) == ((2,), (4.0, 8.0), Kind.INT)
    assert u.shape == (2, 3)
    assert u.values == (1, 2, 0.25, float("-inf"), 5, 600)


def test_sizes_are_in_an_order_that_resolves():
    mixer = load(
        "inputs: {x: [B, T]}\n"
        "dims: {J: T, N: M + block, M: (J + block - 1) // block, K: 3}\n"
        "params: {block: K * 2}\n"
        "map: {o: x}\n"
        "outputs: {o: [B, T]}"
    )
    assert mixer.sequences == (("J", "T"), ("T", "T"))
    assert [dim for dim, _ in mixer.sizes].index("M") < [d for d, _ in mixer.sizes].index("N")
    assert dict(mixer.sizes)["K"] == Literal(3)


@pytest.mark.parametrize("dims", ["{P: 16}", "{D: 16}"])
def test_a_system_is_square_whichever_of_its_axes_has_a_size(dims):
    text = (
        "inputs: {{A: [B, D, P], b: [B, D]}}\ndims: {}\n"
        'map: {{o: "solve(A, b, D=P)"}}\noutputs: {{o: [B, P]}}'
    )
    sizes = dict(load(text.format(dims)).sizes)

    def length(dim):
        size = sizes[dim]
        return length(size.dim) if isinstance(size, Size) else size

    assert length("D") == length("P") == Literal(16)
    with pytest.raises(SpecError, match="along D and P, which have two lengths"):
        load(text.format("{P: 16, D: 32}"))


@pytest.mark.parametrize("dims", ["{P: (D), D: (P)}", "{P: (D), D: (N), N: (P)}", "{P: (P)}"])
def test_a_system_along_axes_whose_sizes_go_round_is_refused(dims):
    text = (
        f"inputs: {{A: [B, D, P], b: [B, D]}}\ndims: {dims}\n"
        'map: {o: "solve(A, b, D=P)"}\noutputs: {o: [B, P]}'
    )
    with pytest.raises(SpecError, match="a size is defined by itself"):
        load(text)


def test_lets_are_in_dependency_order_and_a_stage_has_its_own():
    mixer = load(
        "inputs: {x: [B]}\n"
        "let: {c: b + 1, 'b[B]': a * 2, a: x}\n"
        "stages:\n"
        "  - {let: {a: x * 5}, map: {o: a + c}}\n"
        "  - {let: {d: o - 1}, map: {p: d * d}}\n"
        "outputs: {o: [B], p: [B], c: [B]}"
    )
    assert [e.name for e in mixer.lets] == ["a", "b", "c", "a_2"]
    first, second = mixer.stages
    assert write_expression(first.equations[0].value) == "a_2 + c"
    assert write_expression(second.equations[0].value) == "(o - 1) * (o - 1)"
    assert mixer.lets[3].text == "x * 5"
    verify_mixer(mixer)


def test_a_stage_like_another():
    mixer = load(
        "inputs: {q: [B, I, D], k: [B, J, D], kr: [B, J, D], v: [B, J, E]}\n"
        "params: {width: 4}\n"
        "stages:\n"
        "  - name: forward\n"
        "    let: {near: i - j < width}\n"
        "    attention: {over: J, score: 'sum(q * k, D)', mask: near, output: {o: v}, lse: l}\n"
        "  - {like: forward, suffix: _r, with: {k: kr, width: 2 * width, o: back}}\n"
        "  - {name: sum, map: {s: o + back, d: s * l_r}}\n"
        "  - {like: sum, suffix: _2, with: {l_r: l}}\n"
        "outputs: {d: [B, I, E], d_2: [B, I, E]}"
    )
    forward, back, first, second = mixer.stages
    assert [r.name for r in back.results] == ["back", "l_r"]
    assert write_expression(back.score) == "sum(q * kr, D)"
    assert {e.name: write_expression(e.value) for e in mixer.lets} == {
        "near": "i - j < width",
        "near_2": "i - j < 2 * width",
    }
    assert [write_expression(e.value) for e in first.equations] == ["o + back", "s * l_r"]
    assert [write_expression(e.value) for e in second.equations] == ["o + back", "s_2 * l"]
    assert forward.name == "forward"
    verify_mixer(mixer)


@pytest.mark.parametrize(
    ("line", "phrase"),
    [
        ("{like: nobody}", "no stage is called `nobody`"),
        ("{like: one, suffix: '-'}", "a suffix is made of letters"),
        ("{like: one, with: {zz: x}}", "`zz` is no name that the stage could read"),
        ("{like: one, direction: backward}", "only a recurrence has a direction"),
        ("{map: {p: x}, suffix: _a}", "`suffix` without `like`"),
        ("{name: one, map: {p: x}}", "two stages are called `one`"),
        ("{map: {p: x}, like: one}", "a stage with map and like"),
    ],
)
def test_stages_that_do_not_fit(line, phrase):
    text = f"mixer: m\ninputs: {{x: [B]}}\nstages:\n  - {{name: one, map: {{o: x}}}}\n  - {line}\n"
    with pytest.raises(SpecError, match=phrase):
        load_text(text + "outputs: {o: [B]}")


def test_brackets():
    x = Ref("x", frozenset("BTD"), Kind.REAL)
    t = Index("T")
    assert value("x[t - 1]") == Read(x, (("T", call("sub", t, 1)),))
    assert value("x[T=d, D=t]") == Read(x, (("T", Index("D")), ("D", t)))
    assert value("(x + 1)[T=n]", axes="[B, D]").at == (("T", Ref("n", frozenset("B"), Kind.INT)),)
    assert value("exp(x)[t]").x == call("exp", x)
    assert value("x[t][t - 1]").x == Read(x, (("T", t),))
    related = value("x[k]", "dims: {K: T}\nlet: {unused: x}", "[B, K, D]")
    assert related == Read(x, (("T", Index("K")),))


def test_a_bare_dim_in_second_place_is_a_reduction():
    assert value("max(x, T) + x").args[0].over == ("T",)
    assert value("max(x, (T))") == call("max", Ref("x", frozenset("BTD"), Kind.REAL), Size("T"))
    assert value("max(x, T, D) + x").args[0].over == ("T", "D")


def test_kinds():
    for text, kind in {
        "t // 2 % 3": Kind.INT,
        "n * t - f": Kind.INT,
        "min(t, 3) + abs(n) + sign(t - 2) + where(f, 1, n)": Kind.INT,
        "floor(t / 2) + ceil(x) + round(0.5)": Kind.INT,
        "2 ** t": Kind.INT,
        "t ** 2": Kind.INT,
        "2 ** n": Kind.REAL,
        "t / 2": Kind.REAL,
        "mean(t, T)": Kind.REAL,
        "sum(f, T)": Kind.INT,
        "rank(t, T)": Kind.INT,
        "f and t < 3 or not f": Kind.BOOL,
    }.items():
        whole = value(f"where({text} == 0, x, 0)", "let: {z: x}")
        assert whole.args[0].args[0].kind is kind, text


def test_fresh_positions_are_recorded():
    mixer = load("inputs: {x: [B, J]}\ndims: {J: T}\nmap: {o: 'rank(x, J)'}\noutputs: {o: [B, J]}")
    assert mixer.sizes == (("J_2", Size("J")),)
    assert dict(mixer.sequences) == {"J": "T", "J_2": "T"}
    verify_mixer(mixer)


def test_a_position_summed_inside_what_is_read_gets_a_name_of_its_own():
    x = "inputs: {x: [B, T, D], y: [B, T]}\nmap:\n"
    mixer = load(x + "  o: at(sum(x * (t + y), T), D=t)\noutputs: {o: [B, T]}")
    text = write_expression(mixer.stages[0].equations[0].value)
    assert text == "sum(x[T=t_2] * (t_2 + y[T=t_2]), T_2)[D=t]"
    assert mixer.sizes == (("T_2", Size("T")),)
    same = load(x + "  o: at(sum(x, T) + y, D=t)\noutputs: {o: [B, T]}")
    assert write_expression(same.stages[0].equations[0].value) == "(sum(x[T=t_2], T_2) + y)[D=t]"
    plain = load(x + "  o: at(x * sum(y, T), D=t)\noutputs: {o: [B, T]}")
    assert plain.sizes == ()


def test_a_stacked_axis_has_the_size_of_its_values():
    mixer = load(
        "inputs: {x: [B], y: [B]}\n"
        "let: {both: 'stack(S, x, y, x + y)', m: 'max(both, S)', w: s + 1}\n"
        "map: {o: m}\n"
        "outputs: {o: [B]}"
    )
    assert mixer.sizes == (("S", Literal(3)),)
    with pytest.raises(SpecError, match="3 values stacked along S, which has the size 2"):
        load(
            "inputs: {x: [B]}\nmap: {p: 'stack(S, x, x)', o: 'stack(S, x, x, x)'}\n"
            "outputs: {o: [B, S]}"
        )


def test_a_name_that_hides_an_index_is_a_warning_where_they_meet():
    text = (
        "mixer: m\ninputs: {b: [B, T], t: [T]}\nmap:\n  o: b + t\n  p: index(T) - t\n"
        "  r: where(t <= index(B), 1, 0)\n  s: index(T) - index(B)\noutputs: {o: [B, T]}"
    )
    _, warnings = load_report(text)
    assert [(w.span.line, w.span.column) for w in warnings] == [(5, 17), (6, 12)]
    assert "write `index(T)` if the position is meant" in warnings[0].message
    assert warnings[0].text.startswith("<text>:5:17: warning: `t` is a declared name here")


def test_check_tiling_and_bench():
    mixer = load(
        "inputs: {x: [B, T]}\nmap: {o: x}\noutputs: {o: [B, T]}\n"
        "tiling: {block_i: [64, 128], warps: 4}\ncheck: {T: 33}\nbench: [{B: 1, T: 4096}, {T: 8}]"
    )
    assert mixer.tiling == (("block_i", (64, 128)), ("warps", (4,)))
    assert mixer.check == (("T", 33),)
    assert mixer.bench == ((("B", 1), ("T", 4096)), (("T", 8),))
    with pytest.raises(SpecError, match="`Q` is no dim of this spec"):
        load("inputs: {x: [B]}\nmap: {o: x}\noutputs: {o: [B]}\ncheck: {Q: 3}")
    with pytest.raises(SpecError, match=r"`10 \*\* 12` is no whole number below 10\^9"):
        load("inputs: {x: [B]}\nmap: {o: x}\noutputs: {o: [B]}\ncheck: {B: 10 ** 12}")
