"""What a scan leaves to rows one by one."""

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.mixers.derivative.differentiate import differentiate
from mixc.compiler.pipeline import lower
from mixc.ir.mixer import Mixer
from mixc.ir.targets import AVX2, EVERY_GPU, AnyTarget
from mixc.ir.tile import DType


def test_a_count_in_integers_goes_row_by_row() -> None:
    """A scan has real sums; a matrix beside it goes in chunks all the same."""
    text = """
    mixer: counted
    inputs: {q: [B, T, D], k: [B, T, D], v: [B, T, E]}
    recurrence:
      over: T
      state: {S: [D, E], n: []}
      step:
        - n = n + 1
        - S = 0.5 * S + k * v
        - o = sum(q * S, D) / n
    outputs: {o: [B, T, E]}
    """
    plan = lower(load_text(text), {"D": 16, "E": 16}, "float32")
    assert [kernel.schedule for kernel in plan.kernels] == ["loop", "chunk"]


STEPPED = """
mixer: stepped
inputs: {x: [B, T, C], dt: [B, T, C], rate: [B, T, C], A: [C, N], w: [B, T, N]}
let: {delta: softplus(rate * dt)}
recurrence:
  over: T
  state: {h: [C, N]}
  step:
    - h = exp(delta * A) * h + delta * w * x
    - o = sum(h, N)
outputs: {o: [B, T, C]}
"""


def test_what_each_place_of_a_state_would_compute_again_is_stored_on_a_gpu() -> None:
    """A softplus of two numbers of the channel, which 16 lanes would make; of one, as Mamba's, it
    is made where that was loaded, if a warp has all places of a channel."""

    def kernels(mixer: Mixer, places: int, target: AnyTarget) -> list[str]:
        plan = lower(mixer, {"N": places}, "bf16", target=target)
        return [kernel.program.name for kernel in plan.kernels]

    stepped, mamba = load_text(STEPPED), load_file(find_spec("mamba"))
    assert kernels(stepped, 16, EVERY_GPU) == ["stepped_delta", "stepped_o"]
    stored = next(b for b in lower(stepped, {"N": 16}, "bf16").buffers if b.name == "delta")
    assert stored.dtype is DType.FLOAT32  # a decay's rate is not rounded
    assert kernels(stepped, 4, EVERY_GPU) == ["stepped_o"]
    assert kernels(stepped, 16, AVX2) == ["stepped_o"]
    assert kernels(mamba, 16, EVERY_GPU) == kernels(mamba, 16, AVX2) == ["mamba_o"]
    assert kernels(mamba, 256, EVERY_GPU) == ["mamba_delta", "mamba_o"]


def test_what_other_stages_compute_too_is_stored() -> None:
    """Mamba's gradients read the step size of each place again, in kernels of their own."""
    backward = differentiate(load_file(find_spec("mamba"))).backward
    plan = lower(backward, {"N": 16}, "bf16", target=EVERY_GPU)
    assert plan.kernels[0].program.name == "mamba_backward_delta"
