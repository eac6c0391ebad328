"""``make model``: recurrences by the model of the machine code, beside flash-linear-attention's.

Forward passes in bf16 on an H100, D = E = 128, as a call of these sizes runs without tuning. The
peers' times are by the script that the model was written from, over the kernels of their passes
(``autotune/gpu_model/calibration``; those of 16 heads have no published time beside them): ratios
say more than times. Scans, which have no peer there, stand beside a floor: bytes of their inputs
and outputs, for Mamba its exponentials. Inputs that may be left out are. The table that comes of it
is kept beside this file.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

from mixc.autotune.gpu_model.expectation import expectations
from mixc.autotune.gpu_model.machines import MACHINES
from mixc.backends.triton.cross_compile import CompileWorkers
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.run import BESIDE
from mixc.backends.triton.signatures import kernel_signatures
from mixc.compiler.language.find import find_spec
from mixc.compiler.language.load import load_file
from mixc.compiler.pipeline import lower
from mixc.ir.optional import without_inputs
from mixc.ir.roles import feature_dims, shares_of_keys
from mixc.ir.targets import parse_target

TARGET = parse_target("cuda:90")
WIDTH = 128
# Of (1, 8192, heads, 128): heads, milliseconds of the peer by mixer, and what is asked of them.
PEERS_MS = {
    96: {
        "simple_gla": 0.88,
        "retention": 0.76,
        "gla": 3.37,
        "delta": 2.06,
        "gated_delta": 1.59,
        "kda": 3.94,
    },
    16: {"simple_gla": 0.20, "gla": 0.68, "delta": 0.50, "gated_delta": 0.47, "kda": 0.84},
}
ASKED = {"simple_gla": 0.6, "retention": 0.6, "gla": 0.45}
_ASKED_OF_DELTA_RULES = 0.75
# Of 65536 tokens: the mixer, its sizes (the batch shares the tokens out), the floor, what is asked.
TOKENS = 65536
SCANS_MS = (
    ("mamba", {"B": 1, "C": 8192, "N": 16}, 2.3),
    ("hgrn", {"B": 1, "C": 4096}, 0.6),
    ("hgrn", {"B": 16, "C": 4096}, 0.6),
    ("rg_lru", {"B": 1, "C": 4096}, 0.6),
    ("rg_lru", {"B": 16, "C": 4096}, 0.6),
)
_ASKED_OF_SCANS = 2.5
COLUMNS = ("mixer", "sizes", "shares", "time_us", "peer_us", "ratio", "asked", "spilled", "kernels")
KEPT = Path(__file__).with_suffix(".tsv")


Case = tuple[str, dict[str, int], float, float]  # mixer, sizes, milliseconds beside, what is asked


def row_of(case: Case, workers: CompileWorkers) -> dict[str, object]:
    """A line of the table."""
    name, told, peer_ms, asked = case
    mixer = load_file(find_spec(name))
    mixer = without_inputs(mixer, [i.name for i in mixer.inputs if i.default is not None])
    known = {**told, "G": told.get("H", 1), "D": WIDTH, "E": WIDTH}
    sizes = {d: n for d, n in known.items() if any(d in i.dims for i in mixer.inputs)}
    units = MACHINES[TARGET.name].multiprocessors
    shares = shares_of_keys(mixer, sizes, units, rows=64, beside=BESIDE)
    features = {dim: sizes[dim] for dim in feature_dims(mixer)}
    plan = lower(mixer, features, "bf16", shares, target=TARGET)
    source = emit_module(plan)
    reports = workers.compile(source, kernel_signatures(plan), [TARGET])
    made = expectations(plan, source, reports, sizes)
    time_us, peer_us = sum(one.all_us for one in made), 1e3 * peer_ms
    return {
        "mixer": name,
        "sizes": " ".join(f"{dim}={size}" for dim, size in told.items()),
        "shares": shares,
        "time_us": round(time_us),
        "peer_us": round(peer_us),
        "ratio": f"{time_us / peer_us:.2f}",
        "asked": asked,
        "spilled": sum(report.spilled_bytes or 0 for report in reports),
        "kernels": " ".join(f"{one.name.removesuffix('_kernel')}={one.all_us:.0f}" for one in made),
    }


def cases() -> Iterator[Case]:
    """The lines of the table, in order."""
    for heads, peers in PEERS_MS.items():
        for name, peer_ms in peers.items():
            sizes = {"B": 1, "T": 8192, "H": heads}
            yield name, sizes, peer_ms, ASKED.get(name, _ASKED_OF_DELTA_RULES)
    for name, sizes, floor_ms in SCANS_MS:
        yield name, {**sizes, "T": TOKENS // sizes["B"]}, floor_ms, _ASKED_OF_SCANS


def main() -> None:
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("--out", type=Path, default=KEPT)
    out = parser.parse_args().out
    with CompileWorkers(count=1) as workers, out.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        table.writeheader()
        for case in cases():
            row = row_of(case, workers)
            table.writerow(row)
            print(*row.values(), sep="\t", flush=True)


if __name__ == "__main__":
    main()
