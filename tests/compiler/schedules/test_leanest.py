"""What an attention has where no configuration fits the target."""

import pytest

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.compiler.schedules.estimates import fits, registers
from mixc.ir.targets import parse_target


@pytest.mark.parametrize(("target", "warps"), [("cuda:90", 8), ("cuda:80", 4)])
def test_the_fewest_registers_where_factors_are_in_shared_memory(target: str, warps: int) -> None:
    """Streaming's gradients of values carry three sums beside two kinds of scores."""
    machine = parse_target(target)
    backward = differentiate(load_file(find_spec("streaming"))).backward
    plan = lower(backward, {"D": 128, "E": 128}, "bf16", target=machine)
    program = next(k.program for k in plan.kernels if k.program.name.endswith("d_v_part"))
    assert not fits(program, machine)
    assert dict(program.launch)["num_warps"] == warps
    assert registers(program) == 192 * 4 // warps
