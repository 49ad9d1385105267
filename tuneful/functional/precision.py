"""The precision that sums, differences and exponentials are taken in."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(values: Tensor) -> Tensor:
    """`values` in float32 when they are bool, integer, float16 or bfloat16; float32 and float64 stay as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
