"""What a scan leaves to rows one by one."""

from mixc.compiler.language.load import load_text
from mixc.compiler.pipeline import lower


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
