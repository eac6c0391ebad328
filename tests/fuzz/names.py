"""Names that are words of the languages that kernels are written in, and of our own runtime."""

from __future__ import annotations

from .choices import Choices
from .draft import Draft

# Keywords and macros of C++, names of its runtime and of ours, of Triton, torch and Python.
VALUES = (
    "do this threads INT32_MAX MX_INLINE NULL MIXC_LANES int float double auto register template "
    "new delete typename main std tl triton torch pid args out result acc total score mask _x __y "
    "exp sum where memory tile load store float16_t size_t uint64_t linux unix M_PI INFINITY NAN "
    "omp_get_num_threads alignas constexpr namespace operator signed union volatile switch "
    "static_assert thread_local EOF errno program_id print type len range math inputs fields "
    "count index_ self cls num_warps block_t q_ptr stride_q o_0 mixer kernel run launch"
).split()
DIMS = (
    "NULL EOF Do This Int INT32_MAX MIXC_LANES MX_INLINE NAN M_PI Long_name_ Auto "
    "A_2 T_2 J_2 Type SIZE Threads N_ Z9 Program"
).split()


def rename(choices: Choices, draft: Draft) -> None:
    """Give some of the names that a spec declares, and some of its dims, an awkward name."""
    own = [*draft.inputs, *draft.let, *draft.outputs, *_states(draft)]
    dims = [dim for dim in draft.sizes if dim not in draft.outputs]
    some = choices.some(sorted({*own}), 1, 3)
    awkward = choices.shuffled(VALUES)[: len(some)]
    draft.renamed |= dict(zip(some, awkward, strict=True))
    taken = {name.lower() for name in awkward}
    free = [dim for dim in DIMS if dim.lower() not in taken]
    for dim in choices.some(dims, 0, 2):
        new = choices.pick([d for d in free if d not in draft.renamed.values()])
        draft.renamed |= {dim: new, dim.lower(): new.lower()}


def _states(draft: Draft) -> list[str]:
    return [
        name
        for stage in draft.stages
        if "recurrence" in stage
        for name in stage["recurrence"]["state"]
    ]
