"""What every test process does first: one thread, Triton's interpreter where there is no GPU."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd")):
    # Read when triton is imported. The workers that cross-compile take it out again.
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _seeded():
    """Each test starts from the same random state, whatever ran before it in its process."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
