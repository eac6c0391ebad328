"""What every test process does first: one thread, Triton's interpreter where there is no GPU."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd")):
    # Read when triton is imported. The workers that cross-compile take it out again.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# What a machine with other work on it takes for an example says nothing about the code. A suite
# that decides what lands draws the same examples each time; who asks for a number of them, and
# `make fuzz`, draws others.
settings.register_profile(
    "mixc",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    derandomize="MIXC_EXAMPLES" not in os.environ,
)
settings.load_profile("mixc")


@pytest.fixture(autouse=True)
def _seeded():
    """Each test starts from the same random state, whatever ran before it in its process."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
