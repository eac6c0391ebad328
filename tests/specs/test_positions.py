"""Specs of positions: against transformers' biases and rotations, FlexAttention, or the formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from .independent import (
    assert_matches,
    assert_same_gradients,
    kept_in_float64,
    normal,
    positions,
    reference,
    rotate,
    sdpa,
)

B, H, T, D, E = 2, 6, 13, 8, 5
DISTANCE = torch.sub(*positions(T))
CAUSAL = DISTANCE >= 0
FUTURE = torch.zeros(T, T, dtype=torch.float64).masked_fill(~CAUSAL, -math.inf)


def tensors(heads: int = H, groups: int = 2, dim: int = D) -> dict[str, Tensor]:
    """q, k, v as the specs here take them, with gradients."""
    return {
        "q": normal(B, heads, T, dim, grad=True),
        "k": normal(B, groups, T, dim, grad=True),
        "v": normal(B, groups, T, E, grad=True),
    }


def wide(x: Tensor, heads: int = H) -> Tensor:
    """A key head for every query head."""
    return x.repeat_interleave(heads // x.shape[1], dim=1)


def check(name: str, x: dict[str, Tensor], expected: Tensor, **params: float) -> None:
    """Forward to 1e-10, gradients to 1e-9."""
    o = reference(name, x, params)["o"]
    assert_matches(o, expected)
    assert_same_gradients(o, expected, x)


@pytest.mark.parametrize("heads", [8, 6, 1])
def test_alibi_has_the_slopes_of_bloom(heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    x = tensors(heads, groups=1)
    bias = build_alibi_tensor(torch.ones(1, T), heads, torch.float64)[None]  # slope * j
    o = reference("alibi", x)["o"]
    # Its slopes are single precision: exact for a power of two, to 1e-6 otherwise.
    tolerance = 1e-10 if heads in (1, 8) else 1e-6
    assert_matches(o, sdpa(x["q"], x["k"], x["v"], bias + FUTURE), tolerance)


@pytest.mark.parametrize("window", [4, 1024])
def test_alibi_window_as_flex_attention(window: int) -> None:
    x = {name: t.detach() for name, t in tensors().items()}
    slope = torch.rand(H, dtype=torch.float64)

    def bias(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        seen = (j <= i) & (i - j < window)
        return torch.where(seen, s - slope[h] * (i - j), -math.inf)

    expected = flex_attention(x["q"], wide(x["k"]), wide(x["v"]), score_mod=bias)
    o = reference("alibi_window", {**x, "slope": slope}, {"window": window})["o"]
    assert_matches(o, expected)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("rows", "far"), [(32, 128), (8, 10)])
def test_t5_as_transformers(causal: bool, rows: int, far: int) -> None:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    config = T5Config(
        d_model=H * D,
        d_kv=D,
        num_heads=H,
        is_decoder=causal,
        relative_attention_num_buckets=rows,
        relative_attention_max_distance=far,
    )
    layer = T5Attention(config, has_relative_attention_bias=True).double().eval()
    table = layer.relative_attention_bias.weight
    table.data.copy_(normal(rows, H))
    x = tensors(groups=H) | {"bias": table}
    bias = layer.compute_bias(T, T) + (FUTURE if causal else 0)
    o = reference("t5", x, {"causal": causal, "far": far})["o"]
    expected = sdpa(x["q"], x["k"], x["v"], bias, scale=1.0)
    assert_matches(o, expected)
    assert_same_gradients(o, expected, x)


@pytest.mark.parametrize("causal", [False, True])
def test_t5_buckets_at_long_distances(causal: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    length = 300
    i, j = positions(length)
    bucket = T5Attention._relative_position_bucket(j - i, not causal, 32, 128)
    # Scores of 0, values that tell positions apart: the output shows every bias.
    x = {"q": torch.zeros(1, 1, length, 2).double(), "k": torch.zeros(1, 1, length, 2).double()}
    x |= {"v": torch.eye(length).double()[None, None], "bias": normal(32, 1)}
    bias = x["bias"][bucket, 0].masked_fill((j > i) & causal, -math.inf)
    o = reference("t5", x, {"causal": causal})["o"]
    assert_matches(o[0, 0], torch.softmax(bias, dim=-1))


def llama_rotated(x: dict[str, Tensor], angle: Tensor) -> Tensor:
    """Causal attention after transformers' rotation by ``angle`` [B or 1, T, D/2]."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    both = torch.cat([angle, angle], dim=-1)
    q, k = apply_rotary_pos_emb(x["q"], x["k"], both.cos(), both.sin())
    return sdpa(q, k, x["v"], CAUSAL)


def angles(frequency: Tensor, place: Tensor | None = None) -> Tensor:
    place = torch.arange(T)[None] if place is None else place
    return place.double()[..., None] * frequency


def plain_frequency(base: float = 10000.0, dim: int = D) -> Tensor:
    return base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)


@pytest.mark.parametrize("base", [10000.0, 5e5])
def test_rope_as_llama(base: float) -> None:
    x = tensors()
    check("rope", x, llama_rotated(x, angles(plain_frequency(base))), base=base)


def test_rope_interleaved_as_gptj() -> None:
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb

    x = tensors()
    angle = angles(plain_frequency())

    def turned(t: Tensor) -> Tensor:
        return apply_rotary_pos_emb(t.transpose(1, 2), angle.sin(), angle.cos()).transpose(1, 2)

    expected = sdpa(turned(x["q"]), turned(x["k"]), x["v"], CAUSAL)
    check("rope_interleaved", x, expected)


def lengthened(kind: str, length: int | None = None, **fields: object) -> tuple[Tensor, float]:
    """transformers' table of frequencies (single precision) and factor on cosines and sines."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=H * D,
        num_attention_heads=H,
        head_dim=D,
        max_position_embeddings=64,
        rope_parameters={"rope_type": kind, "rope_theta": 10000.0, **fields},
    )
    return ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)


LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONGROPE = {
    "short_factor": [1.0, 1.5, 2.0, 4.0],
    "long_factor": [1.0, 3.0, 6.0, 9.0],
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("linear", {"factor": 4.0}),
        ("dynamic", {"factor": 4.0}),
        ("yarn", {"factor": 4.0, "original_max_position_embeddings": 64}),
        ("llama3", LLAMA3),
        ("longrope", LONGROPE),
    ],
)
def test_rope_scaled_takes_the_tables_of_transformers(kind: str, fields: dict[str, object]) -> None:
    table, mscale = lengthened(kind, length=200, **fields)
    freq = table.double().requires_grad_()
    x = tensors() | {"freq": freq}
    turned = x | {"q": x["q"] * mscale, "k": x["k"] * mscale}
    check("rope_scaled", x, llama_rotated(turned, angles(freq)), mscale=mscale)


def test_rope_scaled_takes_a_truncated_basis() -> None:
    freq = plain_frequency()
    freq[2:] = torch.tensor([0.0, 1e-3])  # Giraffe: slow channels stop, or stay at a floor
    x = tensors() | {"freq": freq}
    assert_matches(reference("rope_scaled", x)["o"], llama_rotated(x, angles(freq)))


def test_rope_linear_interpolates_positions() -> None:
    x = tensors()
    expected = plain_frequency() / 4
    assert_matches(lengthened("linear", factor=4.0)[0], expected, 1e-6)
    check("rope_linear", x, llama_rotated(x, angles(expected)), factor=4.0)


def test_rope_linear_raises_the_base_for_ntk() -> None:
    x = tensors()
    stretch = 4.0 * 200 / 64 - 3.0
    expected = plain_frequency(10000.0 * stretch ** (D / (D - 2)))
    assert_matches(lengthened("dynamic", length=200, factor=4.0)[0], expected, 1e-6)
    check("rope_linear", x, llama_rotated(x, angles(expected)), ntk=stretch)


@pytest.mark.parametrize(("dim", "original"), [(D, 64), (32, 4096), (64, 20)])
def test_rope_yarn_ramps_between_interpolated_and_kept(dim: int, original: int) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=dim,
        num_attention_heads=1,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": original,
        },
    )
    table, mscale = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    assert math.isclose(mscale, 0.1 * math.log(4.0) + 1)
    x = {name: t.detach() for name, t in tensors(dim=dim).items()}
    turned = x | {"q": x["q"] * mscale, "k": x["k"] * mscale}
    o = reference("rope_yarn", x, {"original": original})["o"]
    # The table is single precision: an angle of 12 is off by up to 1e-6.
    assert_matches(o, llama_rotated(turned, angles(table.double())), 1e-6)


@pytest.mark.parametrize(("group", "window"), [(3, 6), (4, 5), (2, 1024)])
def test_rope_grouped_is_self_extend(group: int, window: int) -> None:
    x = tensors()
    place = torch.arange(T)

    def scores(q_place: Tensor, k_place: Tensor) -> Tensor:
        return rotate(x["q"], q_place) @ wide(rotate(x["k"], k_place)).mT / math.sqrt(D)

    far = scores(place // group + window - window // group, place // group)
    near = window > DISTANCE
    s = torch.where(near, scores(place, place), far) + FUTURE
    check("rope_grouped", x, torch.softmax(s, -1) @ wide(x["v"]), group=group, window=window)


def test_rope_positions_takes_fractional_steps() -> None:
    x = tensors()
    place = torch.cumsum(torch.tensor([1.0, 0.25, 1 / 3])[torch.randint(3, (B, T))].double(), -1)
    expected = llama_rotated(x, angles(plain_frequency(), place))
    o = reference("rope_positions", {**x, "pos": place})["o"]
    assert_matches(o, expected)
    assert_same_gradients(o, expected, x)


def test_rope_axes_lays_out_sections_as_qwen2_vl() -> None:
    from transformers import Qwen2VLTextConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRotaryEmbedding

    dim = 16
    parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    rotary = Qwen2VLRotaryEmbedding(
        Qwen2VLTextConfig(hidden_size=dim, num_attention_heads=1, rope_parameters=parameters)
    )
    x = tensors(dim=dim)
    place = torch.randint(0, 20, (3, B, T)).double()
    # By hand: the class computes angles in single precision whatever it is given.
    by_axis = place[..., None] * plain_frequency(dim=dim)
    angle = rotary.recomposition_frequencies(by_axis)[..., : dim // 2]
    expected = llama_rotated(x, angle)
    o = reference("rope_axes", {**x, "pos": place})["o"]
    assert_matches(o, expected)
    assert_same_gradients(o, expected, x)


def test_rope_learned_turns_by_the_given_angles() -> None:
    x = tensors() | {"angle": normal(B, H, T, D // 2, grad=True)}

    def turned(t: Tensor) -> Tensor:
        pairs = torch.complex(t[..., : D // 2], t[..., D // 2 :])
        spun = pairs * torch.exp(1j * x["angle"])
        return torch.cat([spun.real, spun.imag], dim=-1)

    expected = sdpa(turned(x["q"]), turned(wide(x["k"])), wide(x["v"]), CAUSAL)
    check("rope_learned", x, expected)


def test_rope_learned_turns_as_the_commuting_matrices_of_comrope() -> None:
    x = {name: t.detach() for name, t in tensors().items()}
    generator = normal(D, D)
    generator = generator - generator.T  # ComRoPE-LD: one matrix, times the position
    place = torch.rand(T, dtype=torch.float64) * 3
    turn = torch.linalg.matrix_exp(place[:, None, None] * generator)

    def turned(t: Tensor) -> Tensor:
        return torch.einsum("tde,bhte->bhtd", turn, t)

    expected = sdpa(turned(x["q"]), turned(x["k"]), x["v"], CAUSAL)
    value, vector = torch.linalg.eig(generator)
    up = value.imag > 0  # A (x + iy) = iw (x + iy): A turns y to x, by w
    basis = math.sqrt(2) * torch.cat([vector[:, up].imag, vector[:, up].real], dim=-1)
    angle = (place[:, None] * value.imag[up]).expand(B, H, T, D // 2)
    ours = x | {"q": x["q"] @ basis, "k": x["k"] @ basis, "angle": angle}
    assert_matches(reference("rope_learned", ours)["o"], expected)


def test_rope_orders_attends_in_each_order_and_mixes() -> None:
    x = tensors() | {"router": torch.rand(B, H, T, 2, dtype=torch.float64).requires_grad_()}
    orders = torch.stack([torch.arange(T).expand(B, T), torch.randperm(T).expand(B, T)])

    def sorted_attention(rank: Tensor) -> Tensor:
        """As published: tokens sorted into the order, causal attention, tokens put back."""
        order = rank.argsort()
        q, k, v = (x[name][:, :, order] for name in "qkv")
        place = torch.arange(T)
        return sdpa(rotate(q, place), rotate(k, place), v, CAUSAL)[:, :, rank]

    both = torch.stack([sorted_attention(orders[p, 0]) for p in range(2)], dim=-1)
    expected = (both * x["router"][:, :, :, None]).sum(-1)
    o = reference("rope_orders", {**x, "pos": orders.int()})["o"]
    assert_matches(o, expected)
    assert_same_gradients(o, expected, x)


def test_rope_hybrid_leaves_the_slow_quarter_unturned() -> None:
    dim = 16
    x = tensors(dim=dim)
    place = torch.randint(0, 20, (2, B, T)).double()
    angle = torch.zeros(B, T, dim // 2, dtype=torch.float64)
    for p, frequency in enumerate(plain_frequency(dim=dim)[:6]):
        angle[:, :, p] = place[p % 2] * frequency
    o = reference("rope_hybrid", {**x, "pos": place})["o"]
    expected = llama_rotated(x, angle)
    assert_matches(o, expected)
    assert_same_gradients(o, expected, x)


@pytest.mark.parametrize(("rows", "far"), [(8, 10), (64, 512)])
def test_disentangled_as_deberta_v2(rows: int, far: int) -> None:
    from transformers import DebertaV2Config
    from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

    config = DebertaV2Config(
        hidden_size=H * D,
        num_attention_heads=H,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=rows // 2,
        max_relative_positions=far,
        share_att_key=False,
    )
    layer = DisentangledSelfAttention(config).double().eval()
    hidden, embedded = normal(B, T, H * D), normal(rows, H * D)

    def heads(t: Tensor) -> Tensor:
        return t.unflatten(-1, (H, D)).transpose(-2, -3)

    x = {
        "q": heads(layer.query_proj(hidden)),
        "k": heads(layer.key_proj(hidden)),
        "v": heads(layer.value_proj(hidden)),
        "q_pos": heads(layer.pos_query_proj(embedded)),
        "k_pos": heads(layer.pos_key_proj(embedded)),
    }
    everyone = torch.ones(B, 1, T, T)
    with kept_in_float64():
        expected, _ = layer(hidden, everyone, rel_embeddings=embedded)
    o = reference("disentangled", x, {"far": far})["o"]
    # Its scale is the square root of 3D in single precision.
    assert_matches(o, heads(expected), 1e-6)


@pytest.mark.parametrize(("rows", "far"), [(512, 512), (64, 512), (64, 256)])
def test_disentangled_buckets_at_long_distances(rows: int, far: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    length = far + 20
    bucket = make_log_bucket_position(torch.sub(*positions(length)).double(), rows // 2, far)
    row = (bucket.long() + rows // 2).clamp(0, rows - 1)
    # No content, values that tell positions apart: the output shows every c2p term.
    x = {"q": torch.ones(1, 1, length, 1).double(), "k": torch.zeros(1, 1, length, 1).double()}
    x |= {"q_pos": torch.zeros(1, rows, 1).double(), "k_pos": normal(1, rows, 1)}
    o = reference("disentangled", x | {"v": torch.eye(length).double()[None, None]}, {"far": far})
    assert_matches(o["o"][0, 0], torch.softmax(x["k_pos"][0, row, 0] / math.sqrt(3), dim=-1))


@pytest.mark.parametrize("causal", [False, True])
def test_xlnet_as_transformers(causal: bool) -> None:
    from transformers import XLNetConfig
    from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

    layer = XLNetRelativeAttention(XLNetConfig(d_model=H * D, n_head=H)).double().eval()
    x = tensors(groups=H) | {
        "r_key": normal(H, 2 * T, D, grad=True),
        "content_bias": normal(H, D, grad=True),
        "position_bias": normal(H, D, grad=True),
    }
    del layer.r_w_bias, layer.r_r_bias
    layer.r_w_bias, layer.r_r_bias = x["content_bias"], x["position_bias"]

    def time_major(t: Tensor) -> Tensor:
        return t.permute(2, 0, 1, 3)

    expected = layer.rel_attn_core(
        *(time_major(x[name]) for name in "qkv"),
        time_major(x["r_key"].expand(B, -1, -1, -1)),
        attn_mask=(~CAUSAL).double()[:, :, None, None] if causal else None,
    )
    check("xlnet", x, expected.permute(1, 2, 0, 3), causal=causal)


def test_tupe_adds_the_positions_own_scores() -> None:
    x = tensors() | {"q_pos": normal(H, T, D, grad=True), "k_pos": normal(H, T, D, grad=True)}
    scale = 1 / math.sqrt(2 * D)
    bias = scale * x["q_pos"] @ x["k_pos"].mT
    check("tupe", x, sdpa(x["q"], wide(x["k"]), wide(x["v"]), bias, scale))


def test_seqpe_adds_the_products_of_encoded_positions() -> None:
    x = tensors() | {"q_pos": normal(B, H, T, 3, grad=True), "k_pos": normal(B, H, T, 3, grad=True)}
    bias = 0.5 * x["q_pos"] @ x["k_pos"].mT / math.sqrt(D) + FUTURE
    check("seqpe", x, sdpa(x["q"], wide(x["k"]), wide(x["v"]), bias), share=0.5)


def test_keys_of_a_cache_move_by_one_more_rotation() -> None:
    """Three tokens are put in behind the fourth of eight: what comes later moves up."""
    raw = normal(2, 3, 8, 6)
    old = torch.arange(8, dtype=torch.int32).expand(2, 8)
    new = torch.where(old < 4, old, old + 3)
    k = rotate(raw, old[:, None]).requires_grad_()
    moved = reference("rope_shift", {"k": k, "old": old, "new": new})["moved"]
    assert_matches(moved, rotate(raw, new[:, None]))
