"""What ``mixc show`` says of the equations."""

from mixc.compiler.language.load import load_text
from mixc.show.description import describe, description

SPEC = """\
mixer: gated
about: One of everything.
inputs:
  q: [B, T, H*D]
  k: [B, J, G, D]
  v: [B, J, G, E]
  ids: {dims: [B, T], dtype: int32, sorted: true, grad: false, default: 0}
dims:
  J: T
  N: (T + block - 1) // block
heads: {G: H}
params:
  block: 4
  sharp: {default: 1.0, runtime: true}
  steps: {dims: [S], values: [1, 2, 4]}
let:
  unit: l2norm(k, D)
stages:
  - name: near
    attention:
      over: J
      score: sharp * sum(q * unit, D)
      mask: ids[t] == ids[j] and j // block <= t // block
      normalize: {softmax: {sink: 0}}
      gain: sum(steps, S)
      output: {half: v}
      weights: p
  - map:
      o: half * 2
outputs:
  o: [B, T, H*E]
"""


def test_every_line_has_its_axes():
    sections = {
        section.title: [str(line) for line in section.lines] for section in describe(mixer())
    }
    assert sections == {
        "inputs": [
            "q[B, T, H*D]",
            "k[B, J, G, D]",
            "v[B, J, G, E]",
            "ids[B, T]  # int32, sorted, default 0, no gradient",
        ],
        "dims": [
            "J  # positions of the sequence T",
            "G  # divides H: head h reads group h // (H // G)",
            "N = (T + block - 1) // block",
        ],
        "params": ["block = 4", "sharp = 1.0  # run time", "steps[S] = 1, 2, 4"],
        "let": ["unit[B, J, G, D] = l2norm(k, D)"],
        "attention near over J": [
            "score[B, T, H, J] = sharp * sum(q * unit, D)",
            "mask[B, T, J] = ids[t] == ids[j] and j // block <= t // block",
            "weight[B, T, H, J] = exp(score)",
            "denominator[B, T, H] = total",
            "sink = 0",
            "gain = sum(steps, S)",
            "half[B, T, H, E] = sum(weights * gain * v, J)",
            "p[B, T, H, J] = weight / denominator",
        ],
        "map": ["o[B, T, H, E] = half * 2"],
        "outputs": ["o[B, T, H*E]"],
    }


def test_the_same_as_data():
    data = description(mixer())
    assert (data["name"], data["about"]) == ("gated", "One of everything.")
    (let,) = (section for section in data["sections"] if section["title"] == "let")
    assert let["lines"] == (
        {"name": "unit", "axes": ("B", "J", "G", "D"), "text": "l2norm(k, D)", "note": ""},
    )


def mixer():
    return load_text(SPEC)
