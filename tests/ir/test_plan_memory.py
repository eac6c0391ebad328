"""Bytes of a plan's buffers, by what they grow with."""

from mixc.compiler.language.load import load_text
from mixc.compiler.planning.mixer import plan_mixer
from mixc.ir.binding import evaluate_host
from mixc.ir.plan_memory import bytes_made, shares
from mixc.ir.tile import DType

PLAN = plan_mixer(
    load_text(
        """
mixer: m
inputs: {x: [B, I, D], y: [B, J, D]}
dims: {I: T, J: T}
map: {o: "sum(x * y, D)", p: "cumsum(x, I)"}
outputs: {o: [B, I, J], p: [B, I, D]}
"""
    ),
    {"D": 8},
    DType.BFLOAT16,
)


def test_features_are_counted_and_positions_of_a_sequence_have_its_name() -> None:
    found = {share.buffers: (share.dims, share.bytes) for share in shares(PLAN, {"o", "p", "x"})}
    assert found == {("o",): (("B", "T", "T"), 2), ("x", "p"): (("B", "T"), 32)}


def test_what_a_call_makes_is_its_outputs_and_temporaries() -> None:
    sizes = {"B": 3, "I": 5, "J": 5, "D": 8}
    assert evaluate_host(bytes_made(PLAN), sizes) == 3 * 2 * (25 + 5 * 8)
