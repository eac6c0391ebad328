"""Large results in pages of 2 MiB where the system has them.

Memory of more than some 32 MiB comes new from the system at each call and goes back at its end.
The first touch of each page of 4 KiB is then a fault, which took a quarter of the time of a kernel
whose scores are stored; pages of 2 MiB have a five hundredth of them.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable

from torch import Tensor

_PAGE = 1 << 21
_ADVICE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)  # Linux alone has it
AT_LEAST = 1 << 25  # bytes of a call: allocators keep less for the next one


def _system_call() -> Callable[[int, int, int], int] | None:
    if _ADVICE is None or not sys.platform.startswith("linux"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    function.restype = ctypes.c_int
    return function


_MADVISE = _system_call()


def in_large_pages(*tensors: Tensor) -> None:
    """Asks for large pages where ``tensors``, not written yet, cover them whole. What the system
    answers is of no matter: it is advice."""
    if _MADVISE is None or _ADVICE is None:
        return
    for tensor in tensors:
        start = tensor.data_ptr()
        first, last = -(-start // _PAGE), (start + tensor.nbytes) // _PAGE
        if first < last:
            _MADVISE(first * _PAGE, (last - first) * _PAGE, _ADVICE)


__all__ = ["AT_LEAST", "in_large_pages"]
