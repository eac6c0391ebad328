"""Streams that lack characters: the commands answer all the same."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mixc.commands.plain_text import in_ascii


def test_characters_as_ascii() -> None:
    assert "".join(map(in_ascii, "Hölder … ± █ 語")) == "Holder ... +- # ?"


# ``list`` prints names with accents, ``show`` pictures; click mends streams for its own messages.
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("list",), 0, "causal"),
        (("show", "longformer"), 0, "+---"),
    ],
)
def test_commands_without_unicode(tmp_path, arguments, code, text) -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "mixc.cli", *arguments],
        cwd=tmp_path,
        env=ascii_only,
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert text in (done.stdout + done.stderr).decode("ascii")
