"""One more case for ``verify``: a sequence in segments against one pass by the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ..ir.errors import UnsupportedError
from ..ir.mixer import Mixer
from ..runtime.documents import cut
from ..runtime.overrides import override

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..api import LoadedMixer
    from ..autotune.checking.checking import Case
    from ..autotune.checking.sampling import VerificationCase
    from ..compiler.mixers.resume.continue_sequence import Continued
    from ..ir.binding import Number
    from ..runtime.backends import Chosen


def stepped_case(
    mixer: Mixer,
    trial: VerificationCase,
    backend: Chosen,
    dtype: torch.dtype,
    device: str = "cpu",
) -> Case | None:
    """The rows of ``trial`` in three segments, one of them a single step, by ``backend``.

    None where a term needs the whole sequence, or where a backend can't be asked for it.
    """
    import torch

    from ..api import LoadedMixer
    from ..autotune.checking.checking import Case, compare, error_limits, excused
    from ..autotune.checking.one_thread import one_thread
    from ..autotune.checking.sampling import sample_inputs
    from ..backends.reference.evaluate import run
    from ..compiler.mixers.resume.continue_sequence import continue_sequence

    fixed = override(mixer, dict(trial.params))
    try:
        continued = continue_sequence(fixed)
    except UnsupportedError:
        return None
    inputs = sample_inputs(fixed, trial.sizes, dtype, trial.seed)
    placed = {name: tensor.to(device) for name, tensor in inputs.items()}
    loaded = LoadedMixer(fixed, backend)

    def segments(
        _: Mixer, tensors: Mapping[str, Tensor], __: Mapping[str, Number]
    ) -> Mapping[str, Tensor]:
        return by_segments(loaded, continued, tensors, trial.sizes)

    with torch.no_grad():
        with one_thread():
            exact, plain = (run(fixed, inputs, dtype=own) for own in (torch.float64, dtype))
        limits = error_limits(dtype, plain, exact)
        found = compare(segments, fixed, placed, {}, dtype, exact, limits)
        if found.status == "wrong":
            found = excused(found, dtype, exact, run(fixed, inputs, dtype=torch.float32))
    return Case.of(found, backend, str(dtype).removeprefix("torch."), trial.sizes, "stepped")


def by_segments(
    loaded: LoadedMixer,
    continued: Continued,
    inputs: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    ends: Sequence[int] = (),
) -> dict[str, Tensor]:
    """The outputs of segments, put together again.

    Args:
        ends: where they begin, from 0, and the last one's end; half of the rows, one row more and
            the rest without it.
    """
    import torch

    mixer, root = continued.axis.mixer, continued.axis.root
    rows = sizes[root]
    ends = [*ends] or sorted({0, rows // 2, min(rows // 2 + 1, rows), rows})
    edges, state = {root: ends}, None
    made: dict[str, list[Tensor]] = {output.name: [] for output in mixer.outputs}
    for number, (first, end) in enumerate(pairwise(ends)):
        own = {
            entry.name: cut(mixer, entry.layout, inputs[entry.name], edges, number, sizes)
            for entry in mixer.inputs
            if entry.name in inputs and (number == 0 or entry.name not in continued.only_first)
        }
        if end == first + 1:
            result, state = loaded.step(**own, state=state)
        else:
            result, state = loaded(**own, state=state, return_state=True)
        several = result if isinstance(result, tuple) else (result,)
        for name, tensor in zip(made, several, strict=True):
            made[name].append(tensor)
    whole = {}
    for output in mixer.outputs:
        axes = [p for p, dims in enumerate(output.layout) if dims and continued.axis.has(dims[0])]
        parts = made[output.name]
        whole[output.name] = torch.cat(parts, axes[0]) if axes else parts[-1]
    return whole


__all__ = ["by_segments", "stepped_case"]
