"""The class of each recurrence of the library, as its spec is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

import mixc.specs
from mixc.compiler.analysis.recurrence.classify import classify
from mixc.compiler.analysis.recurrence.describe import describe
from mixc.compiler.analysis.recurrence.flatten import flatten
from mixc.compiler.language.load import load_file
from mixc.compiler.planning.recurrence_context import names_read
from mixc.ir.mixer import Recurrence

from .published import shape

FOLDER = Path(mixc.specs.__path__[0]) / "recurrence"
SHAPES = {
    "aaren": "m: affine max add constant; c: affine add mul; n: affine add mul",
    "abc": (
        "z: affine logaddexp add constant; K: matrix M entry log rank 0; "
        "V: matrix M entry log rank 0"
    ),
    "based": "S: matrix M scalar log rank 0; z: matrix M scalar log rank 0",
    "comba": "S: matrix D scalar log rank 1",
    "delta": "S: matrix D scalar log rank 1",
    "delta_product": "S: matrix D scalar log rank 1",
    "elman": "h: loop mixing",
    "ema": "h: affine add mul constant",
    "gated_delta": "S: matrix D scalar log rank 1",
    "gla": "S: matrix D entry log rank 0",
    "gru": "h: loop mixing",
    "gsa": "K: matrix M entry log rank 0; V: matrix M entry log rank 0",
    "hgrn": "h: affine add mul",
    "hgrn2": "S: matrix D entry log rank 0",
    "hydra": "S: matrix N scalar log rank 0; S_r: matrix N scalar log rank 0",
    "jrt": "S: matrix D scalar log rank 0; n: matrix D scalar log rank 0",
    "kda": "S: matrix D entry log rank 1",
    "lif": "v: loop elementwise",
    "lightnet": "z: affine logaddexp add constant; S: matrix D entry log rank 0",
    "lightning": "S: matrix D scalar log rank 0",
    "linear": "S: matrix D scalar log rank 0",
    "linear_normalized": "S: matrix D scalar log rank 0; z: matrix D scalar log rank 0",
    "lmu": "h m: loop mixing",
    "lmuformer": "m: dense N constant",
    "lru": "h_im h_re: affine add mul constant",
    "lstm": "c h: loop mixing",
    "mamba": "h: affine add mul",
    "mamba2": "S: matrix N scalar log rank 0",
    "mesa": "KK: affine add mul; KV: matrix P scalar log rank 0",
    "mlstm": "m: affine max add; C: matrix D scalar log rank 0; n: matrix D scalar log rank 0",
    "performer": "S: matrix M scalar log rank 0; z: matrix M scalar log rank 0",
    "rebased": "S: matrix M scalar log rank 0; z: matrix M scalar log rank 0",
    "retention": "S: matrix D scalar log rank 0",
    "rg_lru": "h: affine add mul",
    "rwkv4": "m: affine max add constant; num: affine add mul; den: affine add mul",
    "rwkv5": "S: matrix D entry log rank 0",
    "rwkv6": "S: matrix D entry log rank 0",
    "rwkv7": "S: matrix D entry log rank 1",
    "s4d": "h_im h_re: affine add mul constant",
    "s5": "h_im h_re: affine add mul",
    "seq2seq": "c h: loop mixing; cd hd: loop mixing",
    "simple_gla": "S: matrix D scalar log rank 0",
    "slstm": "c h m n: loop mixing",
    "titans": "S W: coupled D rank 2",
    "titans_chunked": "S W start: loop dots",
    "ttt": "W W_grad c c_grad: loop dots",
}


@pytest.mark.parametrize("name", SHAPES)
def test_class(name: str) -> None:
    mixer = load_file(FOLDER / f"{name}.yaml")
    found: list[str] = []
    for stage in mixer.stages:
        if isinstance(stage, Recurrence):
            read = names_read(mixer, stage)
            flat = flatten(stage)
            if flat is None:
                classified = classify(stage, [ref.name for ref in stage.own if ref.name in read])
                assert describe(classified, stage)
            else:
                needed = [ref.name for own, ref, _ in flat.rows if own in read]
                classified = classify(flat.recurrence, needed)
                assert describe(classified, flat.recurrence, flat)
            found += shape(classified)
    assert "; ".join(found) == SHAPES[name]
