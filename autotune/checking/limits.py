"""Limits that still tell right from wrong where plain PyTorch is far off.

A bias of thousands in bfloat16, say: twice PyTorch's error then admits anything. Kernels add in
float32 and are not off like that, so their limit, and that of their peers, has a cap.
"""

from __future__ import annotations

from collections.abc import Mapping

LARGEST_LIMIT: Mapping[str, float] = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.1}
