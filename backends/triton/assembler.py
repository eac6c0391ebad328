"""NVIDIA's assembler, as Triton finds it: its version, and what is known to be wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

# Before this release ptxas may give the registers of a Hopper's asynchronous product (wgmma) to
# other values while the product still reads them. Triton 3.9 is the first that brings a newer one.
_HOPPER_SINCE = (13, 3)
_HOPPER = "cuda:90"


@dataclass(frozen=True, slots=True)
class Assembler:
    """A ptxas: the one that ``TRITON_PTXAS_PATH`` names where it runs, else Triton's own."""

    path: str
    version: tuple[int, int]

    def concern(self, architecture: str) -> str | None:
        """Why kernels for an architecture should have a newer one; None where they need not."""
        if architecture != _HOPPER or self.version >= _HOPPER_SINCE:
            return None
        found, wanted = (".".join(map(str, v)) for v in (self.version, _HOPPER_SINCE))
        return (
            f"ptxas {found} may reuse registers that an asynchronous product on a Hopper GPU still "
            f"reads: let TRITON_PTXAS_PATH name ptxas {wanted} or newer, or install triton 3.9"
        )


def assembler() -> Assembler:
    """The assembler that Triton takes for everything up to Hopper.

    Raises RuntimeError where there is none.
    """
    from triton import knobs

    tool = knobs.nvidia.ptxas
    major, minor = tool.version.split(".")[:2]
    return Assembler(tool.path, (int(major), int(minor)))


__all__ = ["Assembler", "assembler"]
