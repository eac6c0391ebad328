"""What is in flight when a kernel is executed: asynchronous products and copies, as on a Hopper.

The executing package does each at once, so that a wait that is missing changes no number. Here the
tile that a product reads, or a copy fills, is kept until a wait ends it; who touches it before is
at fault. Runs in the environment of ``execute``, and knows nothing of mixc.
"""

from __future__ import annotations

import numpy as np
from ttsem.ops import OPS
from ttsem.values import MemDesc, Poison


class InFlight:
    """Shared memory that products still read, and that copies still fill, oldest first."""

    def __init__(self) -> None:
        self.products: list[list[np.ndarray]] = []
        self.copies: list[list[np.ndarray]] = []
        self.open: list[np.ndarray] = []  # copies since the last group was closed

    def start(self) -> None:
        """Forget all: another program begins."""
        self.__init__()

    def written(self, place: np.ndarray, what: str) -> None:
        """Something writes to ``place``."""
        if any(_meet(place, tile) for tiles in self.products for tile in tiles):
            raise Poison(f"{what} writes where an asynchronous product still reads")

    def read(self, place: np.ndarray, what: str) -> None:
        """Something reads ``place``."""
        if any(_meet(place, tile) for tiles in [*self.copies, self.open] for tile in tiles):
            raise Poison(f"{what} reads what an asynchronous copy may not have written yet")


def _meet(one: np.ndarray, other: np.ndarray) -> bool:
    return np.may_share_memory(one, other) and np.shares_memory(one, other)


def watch(flight: InFlight) -> None:
    """Let every operation on shared memory tell ``flight``."""

    def wrap(name, tell):
        done = OPS[name]

        def handler(interp, op, args):
            tell(op, args)
            return done(interp, op, args)

        OPS[name] = handler

    def product(op, args):
        tiles = [a.data for a in args[:2] if isinstance(a, MemDesc)]
        for tile in tiles:
            flight.read(tile, f"a product ({op.loc})")
        if bool(op.attrs.get("isAsync")):
            flight.products.append(tiles)
        else:
            flight.products.clear()

    def product_wait(op, args):
        left = int(op.attrs.get("pendings", 0))
        del flight.products[: max(len(flight.products) - left, 0)]

    def copy(op, args):
        flight.written(args[1].data, f"a copy ({op.loc})")
        flight.open.append(args[1].data)

    def commit(op, args):
        flight.copies.append(flight.open)
        flight.open = []

    def copy_wait(op, args):
        left = int(op.attrs.get("num", 0))
        del flight.copies[: max(len(flight.copies) - left, 0)]

    def load(op, args):
        flight.read(args[0].data, f"a load ({op.loc})")

    def store(op, args):
        flight.written(args[1].data, f"a store ({op.loc})")

    for name, tell in {
        "ttng.warp_group_dot": product,
        "ttng.warp_group_dot_wait": product_wait,
        "ttg.async_copy_global_to_local": copy,
        "ttg.async_commit_group": commit,
        "ttg.async_wait": copy_wait,
        "ttg.local_load": load,
        "ttg.local_store": store,
    }.items():
        wrap(name, tell)
