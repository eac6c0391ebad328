"""Gradients by the derivative of a mixer against float64 autograd through the reference."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mixc.autotune.checking.proportions import Proportions, default_sizes
from mixc.autotune.checking.sampling import sample_inputs, verification_cases
from mixc.backends.reference.evaluate import run
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import Derivative, differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.binding import Number
from mixc.ir.errors import UnsupportedError
from mixc.ir.expression import Kind, Reduce
from mixc.ir.mixer import Attention, Map, Mixer, Recurrence
from mixc.ir.optional import without_inputs
from mixc.ir.plan import Plan
from mixc.ir.rewriting import every_node
from mixc.ir.roles import query_axis
from mixc.ir.verify_mixer import verify_mixer

SPECS = sorted((Path(__file__).parents[4] / "specs").glob("*/*.yaml"))
SMALL = Proportions(lengths=(11, 7, 5), features=(6, 4, 3), ratio=2, batch=(2, 3), table=5)


def gradients(
    mixer: Mixer, inputs: Mapping[str, Tensor], params: Mapping[str, Number], seed: int = 0
) -> tuple[Derivative, dict[str, Tensor], dict[str, Tensor]]:
    """The derivative of a mixer, the gradients that it gives and those of autograd."""
    derivative = differentiate(mixer)
    verify_mixer(derivative.forward)
    verify_mixer(derivative.backward)
    trained = {i.name for i in mixer.inputs if i.grad and i.kind is Kind.REAL}
    leaves = {
        name: tensor.detach().clone().requires_grad_() if name in trained else tensor
        for name, tensor in inputs.items()
    }
    outputs = run(mixer, leaves, params)
    generator = torch.Generator().manual_seed(seed)
    cotangents = {
        derivative.cotangents[name]: torch.randn(
            outputs[name].shape, generator=generator, dtype=torch.float64
        )
        for name in derivative.cotangents
    }
    # An lse of -inf (nothing visible) is a constant.
    pairs = [(outputs[n], cotangents[c]) for n, c in derivative.cotangents.items()]
    loss = torch.stack([(torch.where(o.isfinite(), o, 0) * c).sum() for o, c in pairs]).sum()
    wanted = {n: t for n, t in leaves.items() if t.requires_grad}
    by_autograd = torch.autograd.grad(loss, list(wanted.values()), materialize_grads=True)
    with torch.no_grad():
        kept = run(derivative.forward, inputs, params)
        given = {**inputs, **{name: kept[name] for name in derivative.kept}, **cotangents}
        names = [i.name for i in derivative.backward.inputs]
        found = run(derivative.backward, {name: given[name] for name in names}, params)
    return (
        derivative,
        {name: found[output] for name, output in derivative.gradients.items()},
        dict(zip(wanted, by_autograd, strict=True)),
    )


def assert_same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name, tensor in wanted.items():
        if name not in found:  # no output depends on it
            assert not tensor.any(), name
            continue
        assert found[name].shape == tensor.shape, name
        scale = float(tensor.abs().max()) if tensor.numel() else 0.0
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-8 * scale + 1e-12)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_library(path: Path) -> None:
    mixer = load_file(path)
    params = verification_cases(mixer, {})[1].params  # windows that are shorter than the lengths
    sizes = default_sizes(mixer, SMALL, params)
    inputs = sample_inputs(mixer, sizes, torch.float64, params=params)
    _, found, wanted = gradients(mixer, inputs, params)
    assert_same(found, wanted)


@pytest.mark.parametrize("name", ["gla", "sink", "rwkv7"])
def test_absent_inputs(name: str) -> None:
    (mixer,) = (load_file(path) for path in SPECS if path.stem == name)
    absent = [i.name for i in mixer.inputs if i.default is not None]
    sizes = default_sizes(mixer, SMALL, {})
    inputs = sample_inputs(mixer, sizes, torch.float64, absent=absent)
    _, found, wanted = gradients(without_inputs(mixer, absent), inputs, {})
    assert_same(found, wanted)


ATTENTION = """
mixer: m
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
  bias: [H, I, J]
  c: [H]
dims: {I: T, J: T}
heads: {G: H}
attention:
  over: J
  score: sum(q * k, D) + bias
  mask: j < i
EXTRA
outputs:
  o: [B, H, I, E]
MORE
"""


@pytest.mark.parametrize(
    ("extra", "more"),
    [
        ("  output: {o: v}", ""),
        ("  output: {o: v}\n  lse: l", "  l: [B, H, I]"),
        ("  output: {o: v}\n  weights: w", "  w: [B, H, I, J]"),
        ("  output: {o: v}\n  gain: exp(c * (i - j) / 9)\n  lse: l", "  l: [B, H, I]"),
        ("  normalize: {softmax: {sink: c}}\n  output: {o: v}\n  lse: l", "  l: [B, H, I]"),
        ("  normalize: {weight: exp(score), denominator: total + exp(c)}\n  output: {o: v}", ""),
        ("  normalize: {weight: score ** 2, denominator: total + 1}\n  output: {o: v}", ""),
        ("  normalize: {weight: sigmoid(score), denominator: 1}\n  output: {o: v}", ""),
        ("  normalize: {weight: score * exp(score), denominator: total}\n  output: {o: v}", ""),
        ('  output: {o: v, p: "v * v"}', "  p: [B, H, I, E]"),
        # Weights that look at other pairs: of the row, of the total, of the queries of a key.
        (
            "  normalize: {weight: 'relu(score - mean(score, J))', denominator: total + 1}\n"
            "  output: {o: v}\n  lse: l",
            "  l: [B, H, I]",
        ),
        (
            "  normalize: {weight: 'relu(score - c * max(score, J))', denominator: total + 1}\n"
            "  output: {o: v}\n  weights: w",
            "  w: [B, H, I, J]",
        ),
        (
            "  normalize: {weight: sigmoid(score), denominator: 'total + sum(score ** 2, J)'}\n"
            "  output: {o: v}",
            "",
        ),
        (
            "  normalize: {weight: 'exp(score) / sum(exp(score), I)', denominator: 'total + 1'}\n"
            "  output: {o: v}",
            "",
        ),
    ],
)
def test_attention(extra: str, more: str) -> None:
    """The first row sees nothing: its gradients are 0, and no NaN is anywhere."""
    mixer = load_text(ATTENTION.replace("EXTRA", extra).replace("MORE", more))
    sizes = {"B": 2, "H": 4, "G": 2, "T": 7, "I": 7, "J": 7, "D": 3, "E": 5}
    inputs = sample_inputs(mixer, sizes, torch.float64, seed=3)
    _, found, wanted = gradients(mixer, inputs, {})
    assert_same(found, wanted)
    assert not found["q"][:, :, 0].any()


def test_inputs_with_one_gradient() -> None:
    """Of what is added up the gradients are one value, under two names."""
    text = ATTENTION.replace("EXTRA", "  output: {o: v}").replace("MORE", "")
    text = text.replace("  c: [H]", "  c: [B, J]\n  d: [B, J]").replace("+ bias", "+ bias + c + d")
    mixer = load_text(text)
    sizes = {"B": 2, "H": 4, "G": 2, "T": 7, "I": 7, "J": 7, "D": 3, "E": 5}
    _, found, wanted = gradients(mixer, sample_inputs(mixer, sizes, torch.float64, seed=3), {})
    assert_same(found, wanted)
    assert found["c"].any()


def test_backward_of_softmax_is_two_sweeps() -> None:
    """One along the queries, for keys and values, one along the keys, for the queries."""
    (causal,) = (load_file(path) for path in SPECS if path.stem == "causal")
    derivative = differentiate(causal)
    assert derivative.kept == ("o", "o_lse")
    assert derivative.gradients == {"q": "d_q", "k": "d_k", "v": "d_v"}
    attentions = [s for s in derivative.backward.stages if hasattr(s, "score")]
    assert [s.over for s in attentions] == ["I", "J"]


def test_wanted_and_given() -> None:
    (lstm,) = (load_file(path) for path in SPECS if path.stem == "lstm")
    derivative = differentiate(lstm, wanted=["x"], given=["o"])
    assert derivative.gradients == {"x": "d_x"}
    assert derivative.cotangents == {"o": "d_o"}
    assert {i.name for i in derivative.backward.inputs} == {"x", "R", "h0", "c0", "d_o"}


def test_a_weight_alone_needs_no_size_of_others() -> None:
    for path in SPECS:
        mixer = load_file(path)
        for entry in mixer.inputs:
            if entry.held is None or not entry.held.trained:
                continue
            try:
                backward = differentiate(mixer, [entry.name]).backward
            except UnsupportedError:
                continue
            verify_mixer(backward)
            known = {dim for given in backward.inputs for dim in given.dims}
            assert known.issuperset(dim for pair in backward.heads for dim in pair)


# What kernels refuse, and why; all else of the library is lowered in both passes, in 16 bits.
REFUSED = {"ttm": "a kernel would hold the axis B whole"}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_both_passes_are_lowered(path: Path) -> None:
    if path.stem in REFUSED:
        with pytest.raises(UnsupportedError, match=REFUSED[path.stem]):
            lowered(path)
    else:
        assert all(plan.kernels for plan in lowered(path))


def lowered(path: Path) -> list[Plan]:
    derivative = differentiate(load_file(path))
    return [lower(mixer, {}, "bfloat16") for mixer in (derivative.forward, derivative.backward)]


def test_no_state_of_a_matrix_is_kept_for_every_row() -> None:
    for name in ("mlstm", "linear_normalized", "abc", "gsa"):
        mixer = differentiate(load_file(next(p for p in SPECS if p.stem == name))).backward
        for stage in mixer.stages:
            if isinstance(stage, Recurrence):
                assert all(len(ref.axes & {"D", "E", "M"}) < 2 for ref in stage.own), name


# A running sum read at both positions, rotations whose channels change places, a table of angles.
@pytest.mark.parametrize("name", ["fox", "rope_axes", "rope_learned"])
def test_sums_over_pairs_are_sweeps_wherever_they_are_read(name: str) -> None:
    backward = differentiate(load_file(next(p for p in SPECS if p.stem == name))).backward
    sweeps = [stage for stage in backward.stages if isinstance(stage, Attention)]
    assert sorted(stage.over for stage in sweeps) == ["I", "J"]
    rest = [e.value for stage in backward.stages if isinstance(stage, Map) for e in stage.equations]
    sums = [node for node in every_node(rest) if isinstance(node, Reduce)]
    assert not any({"I", "J"} <= node.x.axes for node in sums)


# A score that two attentions read by one name, and scores that one chooses between by position.
@pytest.mark.parametrize("name", ["nsa", "streaming", "lm_infinite", "rope_grouped", "infllm"])
def test_scores_that_have_a_name_are_none_of_all_pairs(name: str) -> None:
    mixer = load_file(next(p for p in SPECS if p.stem == name))
    backward = differentiate(mixer).backward
    of_pairs = [s for s in mixer.stages if isinstance(s, Attention) and s.over == "J"]
    pairs = [{stage.over, query_axis(mixer, stage)} for stage in of_pairs]
    rest = [e for stage in backward.stages if isinstance(stage, Map) for e in stage.equations]
    assert not any(pair <= e.value.axes for pair in pairs for e in rest)
    sweeps = [stage for stage in backward.stages if isinstance(stage, Attention)]
    assert len([s for s in sweeps if s.over == "J"]) == len(of_pairs)


def test_what_was_chosen_is_kept_row_after_row() -> None:
    """So that lists of rows are made of neighbours in memory."""
    moba = load_file(next(p for p in SPECS if p.stem == "moba"))
    backward = differentiate(moba).backward
    (selected,) = (i for i in backward.inputs if i.name == "selected")
    assert selected.dims == ("B", "H", "N", "T")


def test_a_product_of_axes_tells_one_of_them() -> None:
    """An output whose cotangent alone has E and H, as one axis, does not tell them apart."""
    mixer = load_text(
        """
mixer: m
inputs: {x: [B, T], y: [B, H, E]}
map: {o: "sum(sum(x, T) - shift(y, B, 40), B)"}
outputs: {o: [E*H]}
"""
    )
    sizes = {"B": 3, "T": 5, "H": 2, "E": 4}
    inputs = sample_inputs(mixer, sizes, torch.float64)
    _, found, wanted = gradients(mixer, inputs, {})
    assert_same(found, wanted)


LEARNED_SCALE = """
mixer: m
inputs: {NAME: [B, I, D], k: [B, J, D], v: [B, J]}
attention:
  over: J
  score: sum(NAME * k, D)
  normalize: NORMALIZE
  output: {o: v}
outputs: {o: [B, I]}
"""


@pytest.mark.parametrize("name", ["score", "total", "scale"])
@pytest.mark.parametrize(
    "normalize", ["softmax", "{weight: sigmoid(score), denominator: total + 1}"]
)
def test_names_of_a_normaliser_may_be_those_of_inputs(name: str, normalize: str) -> None:
    mixer = load_text(LEARNED_SCALE.replace("NAME", name).replace("NORMALIZE", normalize))
    inputs = sample_inputs(mixer, {"B": 2, "I": 5, "J": 7, "D": 4}, torch.float64)
    derivative, found, wanted = gradients(mixer, inputs, {})
    assert_same(found, wanted)
    for each in (mixer, derivative.backward):
        lower(each, {"D": 4}, "float32")


def test_a_dim_is_called_like_the_columns_of_a_chunk() -> None:
    text = """
mixer: m
inputs: {q: [T_2, T, T_3, D], k: [T_2, T, T_3, D], v: [T_2, T, T_3, E], g: [T_2, T, T_3]}
recurrence:
  over: T
  state: {S: [D, E]}
  step:
    - S = exp(g) * S
    - S = S + k * (v - sum(k * S, D))
    - o = sum(q * S, D)
outputs: {o: [T_2, T, T_3, E], S: [T_2, T_3, D, E]}
"""
    lengths = []
    for spec in (text, text.replace("T_2", "B").replace("T_3", "H")):
        mixer = load_text(spec)
        plans = [
            lower(m, {"D": 16, "E": 16}, "float32") for m in (mixer, differentiate(mixer).backward)
        ]
        lengths.append([len(kernel.program.body) for plan in plans for kernel in plan.kernels])
    assert lengths[0] == lengths[1]
