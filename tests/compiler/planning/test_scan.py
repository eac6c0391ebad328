"""What a scan leaves to rows one by one."""

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.compiler.pipeline import lower
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


def test_what_each_place_of_a_state_would_compute_again_is_stored_on_a_gpu() -> None:
    """Mamba's softplus of dt is a number of the channel, which 16 lanes would make."""
    mixer = load_file(find_spec("mamba"))

    def kernels(places: int, target: AnyTarget) -> list[str]:
        plan = lower(mixer, {"N": places}, "bf16", target=target)
        return [kernel.program.name for kernel in plan.kernels]

    assert kernels(16, EVERY_GPU) == ["mamba_delta", "mamba_o"]
    stored = next(b for b in lower(mixer, {"N": 16}, "bf16").buffers if b.name == "delta")
    assert stored.dtype is DType.FLOAT32  # a decay's rate is not rounded
    assert kernels(4, EVERY_GPU) == ["mamba_o"]
    assert kernels(16, AVX2) == ["mamba_o"]
