"""``mixc new``: a commented spec to start from."""

from __future__ import annotations

import re
from pathlib import Path

import click

from .options import answer, json_option

STARTER = """\
# A sequence mixer, as equations. Try it:
#   mixc show {name}.yaml       the equations with their axes, the key ranges, the plan
#   mixc verify {name}.yaml     its kernels against the float64 reading of these lines
#   mixc compile {name}.yaml --target cuda:90 -o kernel.py
mixer: {name}
about: Attention to the keys of the last positions and to the first ones.

# Each tensor with its axes, in the order that the caller's tensor has them. A capitalised name
# is an axis; two values that both have an axis D line up on D.
inputs:
  q: [B, H, I, D]
  k: [B, G, J, D]
  v: [B, G, J, E]
dims: {{I: T, J: T}}        # queries and keys are positions of one sequence T
heads: {{G: H}}            # G key and value heads serve H query heads

# Numbers with a default; a caller may set others: mixc.load("{name}.yaml", window=64).
params:
  window: 256
  first: 4
  scale: D ** -0.5        # D as a number is the size of the axis

attention:
  over: J                 # the axis that is summed over
  score: scale * sum(q * k, D)
  # i and j are the positions along I and J. The mask is turned into loop bounds.
  mask: j <= i and (i - j < window or j < first)
  normalize: softmax      # or none, or {{weight: sigmoid(score), denominator: 1}}, ...
  output: {{o: v}}

# The axes of every output, in order: the check on all lines above.
outputs:
  o: [B, H, I, E]
"""


@click.command("new")
@click.argument("name")
@json_option
def command(name: str, as_json: bool) -> None:
    """Write NAME.yaml, a commented spec to start from.

    NAME is lower-case letters, digits and underscores. A file that is there stays as it is.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
        raise click.UsageError(
            f"'{name}' can't name a mixer: lower-case letters, digits and underscores, a letter "
            "first, e.g. my_mixer."
        )
    path = Path(f"{name}.yaml")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(STARTER.format(name=name))
    except FileExistsError:
        raise click.UsageError(f"{path} is there already; choose another name.") from None
    answer({"path": str(path)}, as_json, lambda console: console.print(f"Wrote {path}."))
