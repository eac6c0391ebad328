"""Documents end to end, and a sequence in segments, against each document and the whole sequence.

In float64, by the reference: what is packed and what is continued are mixers made of a mixer, so no
kernel is built and nothing but the order of sums may differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from mixc.api import LoadedMixer
from mixc.autotune.checking.sampling import sample_inputs
from mixc.backends.reference.evaluate import run
from mixc.compiler.mixers.pack.pack_sequences import last_outputs, packing
from mixc.compiler.mixers.pack.packing_plan import families_of
from mixc.compiler.mixers.resume.continue_sequence import continue_sequence
from mixc.ir.mixer import Mixer
from mixc.ir.verify_mixer import verify_mixer
from mixc.runtime.documents import one_by_one
from mixc.runtime.packing import document_edges, document_tables
from mixc.verifying.stepped_case import by_segments

EXACT = 1e-8


def packed_differs(mixer: Mixer, sizes: Mapping[str, int], seed: int) -> str:
    """What differs between documents in one row and each by itself; empty where nothing.

    Raises:
        UnsupportedError: a term that can't be packed.
    """
    last, families = last_outputs(mixer), families_of(mixer)
    rows = (o for o in mixer.outputs if o not in last and families.positions(o.dims))
    mixer = replace(mixer, outputs=tuple(rows))
    if not mixer.outputs:
        return ""
    packed = packing(mixer)
    verify_mixer(packed.mixer)
    random = Random(seed)
    count = random.randint(1, 4)
    ends = {axis: torch.tensor(_cuts(random, sizes[axis], count)) for axis in packed.axes}
    edges = document_edges(packed, mixer, ends, {}, sizes)
    root = {dim: mixer.sequence(dim) or dim for dim in sizes}
    sizes = {dim: edges[root[dim]][-1] if root[dim] in edges else n for dim, n in sizes.items()}
    if packed.per_document:
        sizes["B"] = 1
    inputs = sample_inputs(mixer, sizes, torch.float64, seed)
    own = sample_inputs(mixer, {**sizes, "B": count}, torch.float64, seed)
    inputs |= {name: own[name] for name in packed.per_document}
    tables = document_tables(packed, mixer, ends, inputs)
    with torch.no_grad():
        made = run(packed.mixer, {**inputs, **tables})
        wanted = one_by_one(
            mixer, inputs, edges, sizes, packed.per_document, lambda given: run(mixer, given)
        )
    return _difference(made, wanted)


def continued_differs(mixer: Mixer, sizes: Mapping[str, int], seed: int) -> str:
    """What differs between a sequence in segments, single rows among them, and the whole.

    Raises:
        UnsupportedError: a term that needs rows to come.
    """
    continued = continue_sequence(mixer)
    inputs = sample_inputs(mixer, sizes, torch.float64, seed)
    rows, random = sizes[continued.axis.root], Random(seed)
    cuts = sorted({*_cuts(random, rows, random.randint(1, 4)), *((1, 2) if rows > 2 else ())})
    with torch.no_grad():
        wanted = run(mixer, inputs)
        made = by_segments(LoadedMixer(mixer, "reference"), continued, inputs, sizes, cuts)
    return _difference(made, wanted)


def _cuts(random: Random, length: int, parts: int) -> list[int]:
    return sorted([0, length, *(random.randint(0, length) for _ in range(parts - 1))])


def _difference(made: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    for name, right in wanted.items():
        found = made[name].double()
        if found.shape != right.shape:
            return f"{name}: shape {list(found.shape)} instead of {list(right.shape)}"
        right = right.double()
        same = (found == right) | (found.isnan() & right.isnan())
        error = torch.where(same, 0.0, (found - right).abs()).nan_to_num(nan=torch.inf)
        finite = right[right.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 0.0
        if error.numel() and float(error.max()) > EXACT * (1 + scale):
            return f"{name}: error {float(error.max()):.3g} of {scale:.3g} in exact arithmetic"
    return ""
