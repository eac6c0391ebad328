"""Which values get a kernel of their own, and why."""

from __future__ import annotations

import networkx
import pytest

from mixc.compiler.language.find import library
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.defaults import attention_configurations
from mixc.compiler.schedules.estimates import fits, shared_bytes
from mixc.compiler.schedules.schedule import plan_context
from mixc.ir.errors import UnsupportedError
from mixc.ir.plan import Plan
from mixc.ir.tile import Dot, DType, For, all_ops

SPEC = """
mixer: m
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
  {inputs}
dims: {{I: T, J: T}}
heads: {{G: H}}
{head}
attention:
  over: J
  score: {score}
  mask: {mask}
  normalize: {normalize}
  output: {{o: v}}
  {more}
outputs: {{o: [B, H, I, E] {outputs}}}
"""


def plan_of(
    score: str = "sum(q * k, D)",
    mask: str = "j <= i",
    dtype: str = "bfloat16",
    normalize: str = "softmax",
    **parts: str,
) -> Plan:
    fields = {"inputs": "", "head": "", "more": "", "outputs": "", **parts}
    text = SPEC.format(score=score, mask=mask, normalize=normalize, **fields)
    return lower(load_text(text), {"D": 64, "E": 64}, dtype)


def kernels(plan: Plan) -> list[tuple[str, str]]:
    return [(k.program.name.removeprefix("m_"), k.reason) for k in plan.kernels]


ATTENTION = ("o", "the attention itself")
AGAIN = "each block of queries would compute it again"


def test_attention_is_one_kernel() -> None:
    plan = plan_of()
    assert kernels(plan) == [ATTENTION]
    assert plan.kernels[0].schedule == "flash"
    assert (plan.kernels[0].reads, plan.kernels[0].writes) == (("q", "k", "v"), ("o",))


def test_a_rotation_of_the_keys_is_stored_once_that_of_the_queries_is_not() -> None:
    plan = plan_of(head="let: {qr: 'rope(q, i, D)', kr: 'rope(k, j, D)'}", score="sum(qr * kr, D)")
    assert kernels(plan) == [("kr", AGAIN), ATTENTION]
    assert plan.buffer("kr").dims == ("B", "G", "J", "D")
    assert plan.buffer("kr").dtype is DType.BFLOAT16


def test_a_value_read_twice_is_stored_once() -> None:
    plan = plan_of(
        head="let: {kr: 'rope(k, j, D)'}", score="sum(rope(q, i, D) * kr, D) + max(kr, D)"
    )
    assert kernels(plan) == [("kr", AGAIN), ATTENTION]


def test_what_a_group_of_heads_shares_is_stored_per_group() -> None:
    plan = plan_of(head="let: {kt: tanh(k)}", score="sum(q * kt, D)")
    assert plan.buffer("kt").dims == ("B", "G", "J", "D")


def test_a_norm_of_queries_or_keys_stays_in_the_kernel() -> None:
    plan = plan_of(score="sum(l2norm(q, D) * l2norm(k, D), D)")
    assert kernels(plan) == [ATTENTION]
    loops = [op for op in plan.kernels[0].program.body if isinstance(op, For)]
    inside = {type(op).__name__ + op.fn for loop in loops for op in loop.body if hasattr(op, "fn")}
    outside = [op for op in plan.kernels[0].program.body if getattr(op, "fn", "") == "rsqrt"]
    assert len(outside) == 1  # of the queries, before the loops
    assert "Elementwisersqrt" in inside


def test_a_running_sum_is_stored_once_though_read_twice() -> None:
    plan = plan_of(
        inputs="f: [B, T, H]",
        head="let: {c: 'cumsum(f, T)'}",
        score="sum(q * k, D) + c[i] - c[j]",
    )
    assert kernels(plan) == [("c", "a running sum"), ATTENTION]
    assert plan.kernels[0].schedule == "running sum"
    assert plan.buffer("c").dtype is DType.FLOAT32


def test_a_reduction_over_a_long_axis_is_stored() -> None:
    plan = plan_of(head="let: {centre: 'mean(k, J)'}", score="sum(q * (k - centre), D)")
    assert kernels(plan) == [("centre_sum", "a reduction over a long axis"), ATTENTION]


def test_a_small_table_is_read_where_it_is_needed() -> None:
    plan = plan_of(inputs="bias: [H, R]", score="sum(q * k, D) + bias[R=i - j]")
    assert kernels(plan) == [ATTENTION]


def test_a_product_that_is_read_at_an_index_is_stored() -> None:
    plan = plan_of(
        inputs="e: [H, R, D]",
        head="let: {qe: 'sum(q * e, D)'}",
        score="sum(q * k, D) + qe[R=i - j]",
    )
    assert kernels(plan) == [("qe", "it is read at an index"), ATTENTION]


def test_a_read_at_few_positions_is_pushed_into_the_sum() -> None:
    plan = plan_of(head="let: {s: 'sum(q * k, D)'}", score="s + s[J=0]")
    assert kernels(plan) == [ATTENTION]
    first = plan.kernels[0].program
    outside = [op for op in first.body if isinstance(op, Dot)]
    assert outside == []  # one key for every row: a sum of products before the loops, no dot
    assert [a.name for a in first.buffers.values()].count("k") == 1


def test_a_block_table_only_where_no_bound_is_known() -> None:
    pair = {"inputs": "pair: {dims: [I, J], dtype: bool}"}
    assert kernels(plan_of(mask="j <= i and (i - j) % 4 == 0")) == [ATTENTION]
    assert kernels(plan_of(mask="pair and i - j < 64 and j <= i", **pair)) == [ATTENTION]
    plan = plan_of(mask="pair", **pair)
    assert [k.schedule for k in plan.kernels] == ["block table", "flash"]
    assert plan.buffer("o_blocks").dims == ("I_blocks", "J_blocks")
    assert dict(plan.block_counts) == {"I_blocks": "I", "J_blocks": "J"}
    tiles = plan.kernels[1].program.tile("I"), plan.kernels[1].program.tile("J")
    assert (plan.block_count("I_blocks"), plan.block_count("J_blocks")) == (
        ("I", tiles[0].block),
        ("J", tiles[1].block),
    )


def test_a_costly_bias_is_computed_once_for_each_distance() -> None:
    plan = plan_of(
        "sum(q * k, D) + b[R=min(floor(log2(1 + abs(i - j))), R - 1)]", inputs="b: [R, H]"
    )
    assert kernels(plan) == [
        ("b_by_distance", "it depends on i - j alone: computed once for each distance"),
        ATTENTION,
    ]
    assert plan.buffer("b_by_distance").dims == ("H", "I_to_J")
    assert str(plan.own_sizes["I_to_J"]) == "I + J"
    assert kernels(plan_of("sum(q * k, D) - 0.5 * abs(i - j)")) == [ATTENTION]


def test_two_passes_where_the_normaliser_needs_them() -> None:
    plan = plan_of(normalize="{weight: 'relu(score - mean(score, J))', denominator: total}")
    names = [name for name, _ in kernels(plan)]
    assert names[-1] == "o"
    assert len(names) > 1
    assert plan.findings[0].startswith("two passes: ")
    assert all(b.dtype is DType.FLOAT32 for b in plan.buffers if b.role == "temporary")


def test_weights_as_a_value_are_made_from_the_rows_statistics() -> None:
    plan = plan_of(more="weights: p", outputs=", p: [B, H, I, J]")
    assert kernels(plan) == [ATTENTION, ("p", "the weights as a value")]
    assert {"row_sum", "row_max"} <= set(plan.kernels[1].reads)
    assert [plan.buffer(n).dtype for n in ("row_sum", "row_max", "p")] == [
        DType.FLOAT32,
        DType.FLOAT32,
        DType.BFLOAT16,
    ]


def test_stages_are_kernels_in_order() -> None:
    text = """
mixer: m
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E], g: [B, I, E]}
stages:
  - attention: {over: J, score: "sum(q * k, D)", normalize: softmax, output: {a: v}}
  - map: {o: a * sigmoid(g)}
outputs: {o: [I, B, E]}
"""
    plan = lower(load_text(text), {})
    assert kernels(plan) == [("a", "the attention itself"), ("o", "an output of the mixer")]
    assert plan.buffer("a").role == "temporary"
    assert plan.buffer("o").dims == ("I", "B", "E")


@pytest.mark.parametrize("path", library(), ids=lambda path: path.stem)
def test_kernels_form_an_acyclic_graph_in_their_order(path: object) -> None:
    plan = lower(load_file(path), {})  # type: ignore[arg-type]
    graph = plan.graph()
    assert networkx.is_directed_acyclic_graph(graph)
    order = {k.program.name: n for n, k in enumerate(plan.kernels)}
    assert all(order[a] < order[b] for a, b in graph.edges)
    read = {name for k in plan.kernels for name in k.reads}
    read.update(*(loop.needs | loop.filled for loop in plan.loops))
    # What a kernel keeps from one pass to the next it reads itself.
    read.update(n for k in plan.kernels for n, b in k.program.buffers.items() if b.kept)
    assert all(b.name in read for b in plan.buffers if b.role == "temporary")
    assert all(
        b.dtype is plan.dtype for b in plan.buffers if b.role == "input" and b.dtype.is_narrow
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("size", [16, 64, 128, 256])
def test_the_first_configuration_that_fits_is_taken(size: int, dtype: str) -> None:
    text = SPEC.format(
        score="sum(q * k, D)",
        mask="j <= i",
        normalize="softmax",
        inputs="",
        head="",
        more="",
        outputs="",
    )
    plan = lower(load_text(text), {"D": size, "E": size}, dtype)
    program = plan.kernels[0].program
    assert fits(program, plan.target)
    choices = attention_configurations(plan_context(plan), "I", "J")
    taken = [
        c.launch == program.launch and c.blocks["I"] == program.tile("I").block for c in choices
    ]
    assert any(taken)


def test_larger_heads_take_smaller_blocks() -> None:
    def rows(size: int) -> int:
        plan = lower(load_text(SPARE), {"D": size, "E": size}, "float32")
        return plan.kernels[0].program.tile("I").block

    assert rows(64) >= rows(128) > rows(512)


SPARE = """
mixer: m
inputs: {q: [B, I, D], k: [B, J, D], v: [B, J, E]}
attention: {over: J, score: "sum(q * k, D)", normalize: softmax, output: {o: v}}
outputs: {o: [B, I, E]}
"""


def test_scores_that_gather_take_smaller_blocks() -> None:
    plain = plan_of().kernels[-1].program
    gather = plan_of(inputs="bias: [B, H, I, J]", score="sum(q * k, D) + bias").kernels[-1].program
    size = plain.tile("I").block * plain.tile("J").block
    assert gather.tile("I").block * gather.tile("J").block < size
    assert shared_bytes(plain) > 0


def test_tiling_sets_the_block() -> None:
    plan = plan_of(head="tiling: {block_i: [32, 64], block_j: [16]}")
    program = plan.kernels[0].program
    assert (program.tile("I").block, program.tile("J").block) == (32, 16)


def test_what_no_schedule_computes_says_so() -> None:
    with pytest.raises(UnsupportedError, match=r"m: the attention over J has no query axis"):
        lower(
            load_text(
                "mixer: m\ninputs: {k: [J], v: [J, E]}\n"
                "attention: {over: J, score: k, normalize: softmax, output: {o: v}}\n"
                "outputs: {o: [E]}"
            ),
            {},
        )


def test_dots_are_of_the_working_type() -> None:
    for dtype in ("bfloat16", "float16", "float32"):
        plan = plan_of(dtype=dtype, head="let: {kr: 'rope(k, j, D)'}", score="sum(q * kr, D)")
        dots = [op for op in all_ops(plan.kernels[-1].program.body) if isinstance(op, Dot)]
        assert dots
        assert {v.dtype for d in dots for v in (d.a, d.b)} == {DType(dtype)}
        assert {d.out.dtype for d in dots} == {DType.FLOAT32}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mesa", "KK, KV row by row along T: not in chunks: a state of two axes that is no matrix"),
        (
            "lstm",
            "h, c row by row along T: not in chunks: no matrix state; not by a scan: h, c: not",
        ),
        ("mamba", "h scanned along T: no matrix state"),
        ("gated_delta", "S in chunks along T"),
        ("delta_product", "S in chunks along TR: its rounds laid out in time"),
    ],
)
def test_the_plan_says_why_a_schedule_was_taken(name: str, found: str) -> None:
    (path,) = [path for path in library() if path.stem == name]
    assert any(found in finding for finding in lower(load_file(path), {}).findings)
