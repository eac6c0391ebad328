"""Integer inputs get values where the equations use them."""

import torch

from mixc.autotune.checking.integer_ranges import Range, integer_ranges
from mixc.autotune.checking.sampling import sample_inputs
from mixc.compiler.language.load import load_text

USES = """
mixer: uses
inputs:
  x: [B, T]
  table: [R, B]
  pages: {dims: [B, N], dtype: int32}
  memory: [S]
  row: {dims: [B, T], dtype: int32}
  document: {dims: [B, T], dtype: int32, sorted: true}
  part: {dims: [B, T], dtype: int64}
  length: {dims: [B], dtype: int32}
  step: {dims: [B], dtype: int32}
  place: {dims: [B, T], dtype: int32}
dims: {I: T, J: T}
params: {page: 4}
let:
  shifted: row - 1
  where_to: pages[N=t // page] * page + t % page
map:
  a: at(table, R=shifted) + memory[S=where_to] + place * 0.1
  m[B, I]: sum(document[i] == document[j] and part[i] != part[j] and j < length, J)
  o: x * a * m[I=t] * (t % step) * (place[T=0] < place)
outputs: {o: [B, T]}
"""
SIZES = {"B": 2, "T": 40, "I": 40, "J": 40, "R": 6, "N": 10, "S": 24}


def test_ranges_follow_from_use():
    assert integer_ranges(load_text(USES), SIZES) == {
        "row": Range(0, 6, outside=True),
        "pages": Range(0, 6, outside=True),  # 24 places in pages of 4
        "document": Range(0, 3),
        "part": Range(0, 3),
        "length": Range(0, 41),
        "step": Range(1, 4),
        "place": Range(0, 41),
    }


def test_values_lie_there():
    made = sample_inputs(load_text(USES), {**SIZES, "B": 50}, torch.float32)
    assert made["row"].min() == -1
    assert made["row"].max() == 6
    assert ((made["row"] >= 0) & (made["row"] < 6)).float().mean() > 0.8
    assert made["step"].min() == 1
    assert (made["document"].diff(dim=-1) >= 0).all()
    assert made["document"].dtype == torch.int32
    assert made["part"].dtype == torch.int64
    assert 0 in made["length"] or made["length"].min() < 5
