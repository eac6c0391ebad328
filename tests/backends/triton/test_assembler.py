"""Which assembler Triton takes, and what is said of one with a known fault."""

import warnings

import pytest

from mixc.backends.triton.assembler import Assembler, assembler
from mixc.ir.errors import MixcWarning
from mixc.runtime import backends
from mixc.runtime.obstacles import warn_once


@pytest.mark.parametrize(
    ("version", "architecture", "concerns"),
    [
        ((12, 8), "cuda:90", True),
        ((13, 2), "cuda:90", True),
        ((13, 3), "cuda:90", False),
        ((14, 0), "cuda:90", False),
        ((12, 8), "cuda:80", False),
        ((12, 8), "cuda:100", False),
    ],
)
def test_an_old_one_concerns_a_hopper(version, architecture, concerns):
    assert bool(Assembler("ptxas", version).concern(architecture)) == concerns


def test_the_one_that_the_environment_names_is_taken(monkeypatch, tmp_path):
    newer = tmp_path / "ptxas"
    newer.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 13.4, V13.4.1'\n")
    newer.chmod(0o755)
    own = assembler()
    assert own.version >= (12, 0)
    monkeypatch.setenv("TRITON_PTXAS_PATH", str(newer))
    assert assembler() == Assembler(str(newer), (13, 4))
    monkeypatch.setenv("TRITON_PTXAS_PATH", str(tmp_path / "none"))
    assert assembler() == own


def test_a_hopper_with_an_old_one_is_told_once(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("mixc.backends.triton.device.architecture_of", lambda device: "cuda:90")
    monkeypatch.setattr(
        "mixc.backends.triton.assembler.assembler", lambda: Assembler("ptxas", (12, 8))
    )
    warn_once.cache_clear()
    with pytest.warns(MixcWarning, match=r"ptxas 12\.8 may reuse .*TRITON_PTXAS_PATH"):
        backends.warn_of_assembler()
    with warnings.catch_warnings(action="error"):
        backends.warn_of_assembler()
