"""What this machine can do."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch

from tuneful.pipeline.doctor.finding import Finding, found
from tuneful.runs.manifest import environment


def look_at_machine() -> Iterator[Finding]:
    """Versions, threads, accelerator and bfloat16."""
    for name, version in environment().items():
        if name not in ("cpus", "threads"):
            yield Finding("machine", name, version)
    threads, cpus = torch.get_num_threads(), _cpus()
    few = "" if threads <= cpus else f"set OMP_NUM_THREADS={cpus}; more threads than CPUs wait for each other"
    yield found("machine", "threads", f"{threads} on {cpus} CPUs", few)
    if torch.cuda.is_available():
        yield Finding("machine", "device", torch.cuda.get_device_name())
        half = torch.cuda.is_bf16_supported(including_emulation=False)
        mend = "" if half else "train in float32; this device only emulates bfloat16"
        yield found("machine", "bfloat16", half, mend)
    else:
        yield Finding("machine", "device", f"cpu ({torch.backends.cpu.get_cpu_capability()})")
        yield Finding("machine", "bfloat16", "works, seldom faster than float32 on a CPU")


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
