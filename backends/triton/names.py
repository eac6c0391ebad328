"""Words that emitted Python needs for itself, and Triton's launcher."""

from __future__ import annotations

import builtins
import keyword

from ...ir.plan import Plan
from .. import names
from ..fourier import NAMES as FOURIER_NAMES
from .checks import NAMES as CHECK_NAMES
from .device_functions import DEVICE_FUNCTIONS

# What the launcher takes by keyword beside a kernel's arguments, and what it calls its own.
_LAUNCHER = frozenset(
    "self grid warmup specialize_impl backend options num_warps num_ctas num_stages warp_size "
    "maxnreg ptx_version ptx_options ir_override enable_fp_fusion enable_reflect_ftz "
    "launch_cooperative_grid launch_pdl supported_fp8_dtypes deprecated_fp8_dot_operand_dtypes "
    "default_dot_input_precision allowed_dot_input_precisions max_num_imprecise_acc_default "
    "extern_libs debug backend_name sanitize_overflow arch instrumentation_mode waves_per_eu "
    "kpack matrix_instr_nonkdim schedule_hint cluster_dims device stream params specialization "
    "pre_run_hooks device_type".split()
)
TAKEN = frozenset(
    {*keyword.kwlist, *dir(builtins), *"tl triton torch math program programs knobs tuned".split()}
    | {*DEVICE_FUNCTIONS, *CHECK_NAMES, *FOURIER_NAMES, *_LAUNCHER}
)


def with_plain_names(plan: Plan) -> Plan:
    """The plan with names that its module can have."""
    return names.with_plain_names(plan, TAKEN)


__all__ = ["TAKEN", "with_plain_names"]
