"""Pictures of masks: the matrix that is drawn, the terminal's characters, the image file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file, load_text
from mixc.show.mask_picture import MaskPicture, cell_shades, pictures, terminal_lines, write_png

SMALL = """
mixer: small
inputs: {q: [B, H, I, D], k: [B, G, J, D], v: [B, G, J, E]}
dims: {I: T, J: T}
heads: {G: H}
params: {window: 2}
attention:
  over: J
  score: sum(q * k, D)
  mask: MASK
  output: {o: v}
outputs: {o: [B, H, I, E]}
"""


def picture(mask: str, **sizes: int) -> MaskPicture:
    (only,) = pictures(load_text(SMALL.replace("MASK", mask)), sizes)
    return only


def test_the_matrix_is_the_mask() -> None:
    drawn = picture("j <= i and i - j < window", T=5, I=5, J=5)
    assert (drawn.rows, drawn.columns) == ("I", "J")
    expected = torch.ones(5, 5).tril().triu(-1).bool()
    assert torch.equal(drawn.matrix, expected)
    assert drawn.visible == pytest.approx(9 / 25)


@pytest.mark.parametrize("mask", ["j < 3", "i < 3"])
def test_a_mask_without_one_axis_is_drawn_whole(mask: str) -> None:
    matrix = picture(mask, T=6, I=6, J=6).matrix
    assert matrix.shape == (6, 6)
    assert matrix.sum() == 18
    assert bool(matrix[0, 5]) is (mask == "i < 3")


def test_what_takes_too_much_memory_is_not_drawn() -> None:
    # For each pair of I and J the mask compares all keys.
    mask = "sum(q[I=i - j], D) > mean(max(k - k[J=i], D), J)"
    assert len(pictures(load_text(SMALL.replace("MASK", mask)), {"T": 48})) == 1
    assert not pictures(load_text(SMALL.replace("MASK", mask)), {"T": 1 << 14})


def test_characters() -> None:
    drawn = picture("j <= i", T=4, I=4, J=4)
    assert terminal_lines(drawn) == [
        "┌────┐",
        "│█▄  │",
        "│███▄│",
        "└────┘",
        "i down to 4, j across to 4, 62% visible",
    ]
    assert terminal_lines(drawn, width=2)[1:2] == ["│▓░│"]


def test_an_odd_number_of_rows() -> None:
    assert terminal_lines(picture("j <= i", T=3, I=3, J=3))[1:3] == ["│█▄ │", "│▀▀▀│"]


def test_shades_of_blocks() -> None:
    matrix = torch.ones(10, 10).tril().bool()
    assert cell_shades(matrix, 2, 2) == [[1, 0], [2, 1]]
    assert cell_shades(matrix, 10, 10) == [[2 * int(e) for e in row] for row in matrix.tolist()]
    assert cell_shades(torch.ones(7, 3).bool(), 3, 2) == [[2, 2]] * 3


def test_nothing_to_draw() -> None:
    empty = MaskPicture("nothing", "I", "J", torch.zeros(0, 0, dtype=torch.bool))
    assert terminal_lines(empty)[-1] == "i down to 0, j across to 0, 0% visible"


def test_windows_can_be_seen() -> None:
    """Lengths follow the params: neither all visible nor a line."""
    (drawn,) = pictures(load_file(Path(find_spec("alibi_window"))))
    assert drawn.matrix.shape == (2048, 2048)
    assert 0.2 < drawn.visible < 0.45
    (smaller,) = pictures(load_file(Path(find_spec("alibi_window"))), params={"window": 16})
    assert smaller.matrix.shape == (128, 128)


def test_masks_that_depend_on_inputs_and_stages() -> None:
    local, whole = pictures(load_file(Path(find_spec("longformer"))), params={"window": 8})
    assert local.title == "local of longformer"
    assert 0 < whole.visible < local.visible < 1
    (packed,) = pictures(load_file(Path(find_spec("anchor"))))
    assert not packed.matrix[-1, 1:20].any()


def test_image(tmp_path: Path) -> None:
    target = tmp_path / "mask.png"
    drawn = [picture("j <= i", T=8, I=8, J=8), picture("j >= i", T=8, I=8, J=8)]
    write_png(drawn, target)
    assert target.read_bytes().startswith(b"\x89PNG")


def test_what_is_too_long_is_not_drawn() -> None:
    """A size is no promise that somebody has the memory."""
    spec = SMALL.replace("MASK", "j <= i")
    assert len(pictures(load_text(spec))) == 1
    assert pictures(load_text(spec.replace("{I: T, J: T}", "{J: 10**12}"))) == []
