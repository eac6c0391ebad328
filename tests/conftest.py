"""What every test process does first: one thread per worker, random inputs that repeat."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _seeded():
    """Each test starts from the same random state, whatever ran before it in its process."""
    import sys

    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
