"""Emitted Triton conforms under Triton's interpreter, but for what that does not do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from torch import Tensor

from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.interpreter import mended
from mixc.backends.triton.run import import_source
from mixc.ir.plan import Plan

from ..conformance.suite import TileConformance

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXC_CACHE", str(tmp_path))


class TestTriton(TileConformance):
    # Of Triton's interpreter, not of what is emitted for it.
    exceptions: ClassVar[Mapping[str, str]] = {
        f"bf16, blocks of {block}": "Triton's interpreter cuts bits off to get a bfloat16"
        for block in (1, 64)
    }

    def run(
        self, plan: Plan, tensors: Mapping[str, Tensor], sizes: Mapping[str, int]
    ) -> Mapping[str, Tensor]:
        source = emit_module(plan, wide_dots=True)
        function = getattr(import_source(source, plan.mixer.name), plan.mixer.name)
        with mended():
            made = function(*(tensors[entry.name] for entry in plan.mixer.inputs))
        results = made if isinstance(made, tuple) else (made,)
        return {o.name: r for o, r in zip(plan.mixer.outputs, results, strict=True)}
