"""Mixers as callables on tensors."""

import pytest
import torch

import mixc
from mixc.ir.errors import ArgumentError


def tensors(heads=4, groups=2, length=9, dim=8, value_dim=16, dtype=torch.float32):
    q = torch.randn(2, heads, length, dim, dtype=dtype)
    k = torch.randn(2, groups, length, dim, dtype=dtype)
    return q, k, torch.randn(2, groups, length, value_dim, dtype=dtype)


def dense(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, is_causal=True, enable_gqa=True
    )


def test_a_library_mixer_by_position_and_by_name():
    q, k, v = tensors()
    attend = mixc.load("causal")
    o = attend(q, k, v)
    torch.testing.assert_close(o, dense(q, k, v))
    assert torch.equal(attend(q, v=v, k=k), o)


def test_repr_says_how_to_call_it():
    assert repr(mixc.load("alibi_window")) == "alibi_window(q, k, v, slope) -> o"
    assert repr(mixc.load("causal", backend="reference")).endswith("by reference")


def test_params_are_set_at_load():
    q, k, v = tensors()
    slope = torch.zeros(4)
    narrow = mixc.load("alibi_window", window=1)(q, k, v, slope)
    torch.testing.assert_close(narrow, v.repeat_interleave(2, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_results_have_the_dtype_of_the_inputs(dtype):
    assert mixc.load("causal")(*tensors(dtype=dtype)).dtype is dtype


def test_bf16_is_computed_in_float32_and_rounded_once():
    q, k, v = tensors(dtype=torch.bfloat16)
    exact = dense(q.double(), k.double(), v.double()).bfloat16()
    attend = mixc.load("causal", backend="reference")
    torch.testing.assert_close(attend(q, k, v), exact, atol=0, rtol=2**-8)


def test_the_reference_is_differentiable():
    q, k, v = (t.double().requires_grad_() for t in tensors(length=4, dim=2, value_dim=2))
    assert torch.autograd.gradcheck(mixc.load("causal"), (q, k, v), fast_mode=True)


SPEC = """\
mixer: both
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E], bias: {dims: [J], default: 0}}
params: {sharpness: {default: 1.0, runtime: true}}
attention:
  over: J
  score: sharpness * sum(q * k, D) + bias
  normalize: softmax
  output: {o: v}
  lse: lse
outputs: {o: [B, I, E], lse: [B, I]}
"""


@pytest.fixture
def both(tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text(SPEC)
    return mixc.load(path)


def test_several_outputs_are_a_named_tuple(both):
    q, k, v = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 6)
    o, lse = result = both(q, k, v)
    assert result._fields == ("o", "lse")
    torch.testing.assert_close(lse, (q @ k.mT).logsumexp(-1))
    torch.testing.assert_close(o, (q @ k.mT).softmax(-1) @ v)


def test_run_time_params_and_inputs_with_defaults(both):
    q, k, v = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 6)
    bias = torch.randn(5)
    torch.testing.assert_close(
        both(q, k, v, bias, sharpness=0.5).lse, (q @ k.mT * 0.5 + bias).logsumexp(-1)
    )


def test_an_input_without_axes_may_be_a_number(tmp_path):
    path = tmp_path / "scaled.yaml"
    path.write_text("mixer: scaled\ninputs: {x: [T], c: []}\nmap: {y: c * x}\noutputs: {y: [T]}\n")
    x = torch.randn(5).bfloat16()
    assert torch.equal(mixc.load(path)(x, 2), 2 * x)
    assert torch.equal(mixc.load(path)(x, torch.tensor(2.0).bfloat16()), 2 * x)


def test_packed_sequences_do_not_see_each_other():
    q, k, v = (t[:1] for t in tensors(length=11))
    cuts = [0, 4, 4, 11]
    packed = mixc.load("causal")(q, k, v, cu_seqlens=torch.tensor(cuts, dtype=torch.int32))
    for start, end in ((0, 4), (4, 11)):
        alone = dense(q[:, :, start:end], k[:, :, start:end], v[:, :, start:end])
        torch.testing.assert_close(packed[:, :, start:end], alone)


def shapes(*dims):
    return [torch.zeros(dim) for dim in dims]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (shapes((1, 2, 5, 8), (1, 1, 5, 8)), "v: expected a tensor [B, G, J, E], got none"),
        (
            shapes((1, 2, 5, 8), (1, 1, 5, 8), (1, 1, 6, 8)),
            "v: expected [B, G, J, E] with J = 5 as I in q, got [1, 1, 6, 8]",
        ),
        (shapes((1, 2, 5, 8), (1, 1, 5, 8), (1, 5, 8)), "v: expected [B, G, J, E], a tensor of 4"),
        (shapes((1, 3, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8)), "G must divide H"),
        (
            [*shapes((1, 2, 5, 8), (1, 1, 5, 8)), [1.0]],
            "v: expected a tensor [B, G, J, E], got list",
        ),
        (
            [*shapes((1, 2, 5, 8), (1, 1, 5, 8)), torch.zeros(1, 1, 5, 8, dtype=torch.int64)],
            "v: expected float16, bfloat16, float32 or float64, got int64; or declare "
            "`v: {dims: [B, G, J, E], dtype: int32}`",
        ),
        (
            [*shapes((1, 2, 5, 8), (1, 1, 5, 8)), torch.zeros(1, 1, 5, 8, device="meta")],
            "v: expected cpu as q, got meta",
        ),
        (shapes(*[(1, 1, 5, 8)] * 4), "causal takes 3 inputs (q, k, v), got 4"),
    ],
)
def test_wrong_tensors_are_told_in_the_words_of_the_spec(given, message):
    with pytest.raises(ArgumentError) as caught:
        mixc.load("causal")(*given)
    assert message in str(caught.value)


def test_a_length_is_told_with_the_input_that_gave_it(both):
    with pytest.raises(ArgumentError, match=r"v: expected \[B, J, E\] with .*J = 5 as in k, got"):
        both(*shapes((2, 3, 4), (2, 5, 4), (2, 6, 7)))


def test_real_inputs_share_a_dtype():
    q, k, v = tensors()
    with pytest.raises(ArgumentError, match="v: expected float16 as q, got bfloat16"):
        mixc.load("causal")(q.half(), k.half(), v.bfloat16())


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"slop": 1}, "alibi_window has no input 'slop'; did you mean 'slope'?"),
        ({"window": 3}, "window is fixed when the mixer is loaded: mixc.load(..., window=...)"),
        ({"q": 1}, "q is given twice, by position and by name"),
    ],
)
def test_wrong_names(named, message):
    q, k, v = tensors()
    with pytest.raises(ArgumentError) as caught:
        mixc.load("alibi_window")(q, k, v, **named)
    assert message in str(caught.value)


def test_unknown_backend():
    with pytest.raises(ArgumentError, match="expected one of auto, triton, cpu, interpreter"):
        mixc.load("causal", backend="cuda")


def test_triton_needs_a_gpu():
    with pytest.raises(ArgumentError, match="backend 'triton' runs on a GPU"):
        mixc.load("causal", backend="triton")(*tensors())


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="runs on a GPU")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="runs without a GPU")


@no_gpu
def test_a_spec_without_inputs(tmp_path):
    path = tmp_path / "ramp.yaml"
    path.write_text(
        "mixer: ramp\ninputs: {}\ndims: {T: 5}\nmap: {o: 2 * t + 1}\noutputs: {o: [T]}\n"
    )
    for backend in ("interpreter", "reference"):
        assert mixc.load(path, backend=backend)().tolist() == [1, 3, 5, 7, 9]


@no_gpu
def test_the_interpreter_runs_the_kernels():
    q, k, v = tensors(length=37)
    o = mixc.load("causal", backend="interpreter")(q, k, v)
    torch.testing.assert_close(o, dense(q, k, v))


@no_gpu
def test_packing_in_the_interpreter():
    q, k, v = (t[:1] for t in tensors(length=11))
    cuts = torch.tensor([0, 4, 11], dtype=torch.int32)
    packed = mixc.load("causal", backend="interpreter")(q, k, v, cu_seqlens=cuts)
    torch.testing.assert_close(packed, mixc.load("causal")(q, k, v, cu_seqlens=cuts))


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_tensors_run_the_kernels(dtype):
    q, k, v = (t.to("cuda", dtype) for t in tensors(length=300, dim=64, value_dim=64))
    o = mixc.load("causal")(q, k, v)
    limit = 1e-4 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(o.float(), dense(q, k, v).float(), atol=limit, rtol=limit)


def test_which_backend_runs():
    attend = mixc.load("causal")
    assert attend.backend_for("cpu") == "cpu"
    assert attend.backend_for("cuda") == "triton"
    assert mixc.load("causal", backend="interpreter").backend_for("cpu") == "interpreter"


def test_public_names():
    assert set(mixc.__all__) <= set(dir(mixc))
    assert mixc.__version__
    assert issubclass(ArgumentError, mixc.MixcError)
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = mixc.laod


def test_source_is_the_text_of_the_kernels():
    source = mixc.compile_source("alibi_window", sizes={"D": 32, "E": 16}, window=77)
    assert "@triton.jit" in source
    assert "window = 77" in source
    assert source == mixc.load("alibi_window", window=77).source(sizes={"D": 32, "E": 16})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "cuda:91"}, "did you mean 'cuda:90'?"),
        ({"sizes": {"H": 4}}, "the size of H is known at run time only"),
        ({"sizes": {"T": 4}}, "the size of T is known at run time only"),
        ({"sizes": {"Z": 4}}, "causal has no dim 'Z'"),
        ({"dtype": "int8"}, "dtype: expected one of"),
    ],
)
def test_sources_that_there_are_not(settings, message):
    with pytest.raises(ArgumentError) as caught:
        mixc.compile_source("causal", **settings)
    assert message in str(caught.value)


def test_show_prints_equations_ranges_and_the_plan(capsys):
    mixc.load("alibi_window").show()
    text = capsys.readouterr().out
    assert "score[B, H, I, J] = scale * sum(q * k, D) - slope * (i - j)" in text
    assert "j in [max(0, i0 - window + 1), i1 + 1), full in" in text
    assert "one pass" in text


def test_an_output_whose_name_no_tuple_takes(tmp_path):
    """A field of a named tuple may not begin with an underscore."""
    path = tmp_path / "under.yaml"
    path.write_text(
        "mixer: under\ninputs: {x: [B, T]}\nmap: {_x: x + 1, y: x * 2}\n"
        "outputs: {_x: [B, T], y: [B, T]}\n"
    )
    x = torch.randn(2, 3)
    results = mixc.load(path, backend="reference")(x)
    assert results._fields == ("_0", "y")
    assert torch.equal(results[0], x + 1)
    assert torch.equal(results.y, x * 2)


def test_no_row_of_an_axis_of_steps_and_their_parts():
    """0 rows of R corrections each: any R would do, and none is asked for."""
    rows = [torch.randn(1, 0, 2, 8) for _ in range(3)]
    results = mixc.load("delta_product", backend="cpu")(*rows, torch.rand(1, 0, 2))
    assert results.o.shape == (1, 0, 2, 8)
    assert not results.S.any()
