"""The demo, as ``make demo`` runs it."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.timeout(180)
def test_the_demo_ends_well(tmp_path, tmp_path_factory):
    settings = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    settings["MIXC_DATA"] = str(tmp_path_factory.mktemp("data"))
    result = subprocess.run(
        [sys.executable, "-m", "mixc.demo"], cwd=tmp_path, env=settings, capture_output=True
    )
    text = result.stdout.decode()
    assert result.returncode == 0, text + result.stderr.decode()
    summary = text[text.index("Summary") :]
    for name, cases in (("alibi_window", 5), ("my_mixer", 5), ("my_memory", 2)):
        assert f"{name}: {cases} cases, all right" in text
        assert f"{name}_o" in summary
    assert "in chunks and step by step differ by" in text
    assert "S in chunks along T" in summary
    assert summary.count(" < ") == 7
    losses = re.search(r"loss (\d\.\d+) -> (\d\.\d+) nats per byte", text)
    assert losses is not None
    # untrained, about log 256 = 5.5; how far it falls depends on the README's words
    assert float(losses[2]) < 4.5 < 5.0 < float(losses[1]) < 6.5
    assert "winner" in text
    assert "kept in" in text
    assert list(tmp_path.iterdir()) == []
