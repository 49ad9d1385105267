"""Counts the bytes of tensors that live at one time, as `torch.cuda.max_memory_allocated` does on a GPU.

Told by torch's CPU allocator through the profiler: a view has no storage of its own, an operation in place takes none,
a temporary counts until it is freed, and what kernels and oneDNN take inside one operation counts too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Peak:
    """num_bytes: the most that lived at one time, set when the block ends."""

    num_bytes: int = 0


@contextmanager
def counted(before: Iterable[Tensor] = ()) -> Iterator[Peak]:
    """The peak of live tensors inside the block. before: those that live already, each storage counted once."""
    peak = Peak()
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in before}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        yield peak
    live = peak.num_bytes = sum(storages.values())
    for _, size in sorted(_allocations(profile)):
        live += size
        peak.num_bytes = max(peak.num_bytes, live)


def _allocations(profile: Any) -> Iterator[tuple[int, int]]:
    """(when, bytes) of what was allocated, bytes below 0 where it was freed."""
    ahead = list(profile.profiler.kineto_results.experimental_event_tree())
    while ahead:
        event = ahead.pop()
        ahead.extend(event.children)
        if event.tag == torch._C._profiler._EventType.Allocation:
            yield event.start_time_ns, event.extra_fields.alloc_size
