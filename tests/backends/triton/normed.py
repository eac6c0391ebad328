"""An attention whose values are a factor of a product that no turn waits for, and are read into
registers, too: a copy of later values may come to where the product still reads."""

NORMED = """
mixer: normed
inputs: {q: [B, H, I, D], k: [B, H, J, D], v: [B, H, J, E]}
dims: {I: T, J: T}
attention:
  over: J
  score: D ** -0.5 * sum(q * k, D) - sum(v * v, E)
  mask: j <= i
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""
