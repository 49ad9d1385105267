"""Ranks: the processes of one run under torchrun. Each holds all weights, or a part, and does its share of the rows.

Every rank runs the same program, and all of them call the functions here in the same order: what one rank knows the
others then know, what each has summed is summed over all. Losses are divided by the count of the whole step, so
gradients are summed and never averaged. In a process of its own there is one rank, and nothing is sent.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tuneful.data.batching import balanced_shares, token_budget_batches
from tuneful.errors import CheckError, RunError, TunefulError
from tuneful.runs.directory import RunDirectory

TIMEOUT = timedelta(minutes=30)
"""A rank that waits longer for the others ends the run: one of them hangs. A stage that one rank runs alone, and a
reward that takes its time, must come within it."""

T = TypeVar("T")


@contextmanager
def process_group() -> Iterator[None]:
    """Inside, the processes that torchrun started are the ranks of one run; on a GPU each has the one of its number.

    A rank that is told to end, because another has, writes its stack first. Without torchrun nothing is done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    faulthandler.register(signal.SIGTERM, chain=True)
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=TIMEOUT)
    atexit.register(_leave)  # after an error, once it is told: a process that exits with the group's threads can abort
    yield
    # Not after an error: the others may be gone. A connection must not close while another rank still reads from it.
    dist.barrier()
    _leave()


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0; rank 0 alone writes files and speaks."""
    return dist.get_rank() if _is_group() else 0


def world_size() -> int:
    """How many processes run this together."""
    return dist.get_world_size() if _is_group() else 1


@contextmanager
def run_directory(path: Path, recipe: Mapping[str, Any]) -> Iterator[RunDirectory]:
    """`path` opened by rank 0, the only one that writes there; the others have a directory that is thrown away."""
    with ExitStack() as opened:
        if rank() > 0:
            path = Path(opened.enter_context(TemporaryDirectory())) / path.name
        yield opened.enter_context(RunDirectory.open(path, recipe))


def share(tokens: Sequence[int], units: Sequence[int] | None = None) -> list[int]:
    """The rows that are this rank's, of rows of so many tokens (see balanced_shares)."""
    return balanced_shares(tokens, world_size(), units)[rank()]


def microbatches(
    tokens: Sequence[int],
    budget: int,
    units: Sequence[int] | None = None,
    prompts: Sequence[Hashable] | None = None,
) -> list[list[int]]:
    """`token_budget_batches` of the rows that are this rank's; none where there are fewer rows than ranks."""
    own = share(tokens, units)
    batches = token_budget_batches(
        [tokens[row] for row in own],
        budget,
        units and [units[row] for row in own],
        prompts and [prompts[row] for row in own],
    )
    return [[own[place] for place in batch] for batch in batches]


def in_step(batches: list[list[int]], filler: list[int]) -> list[tuple[list[int], bool]]:
    """As many passes on every rank: its batches, which count, then `filler` for as long as others have batches left."""
    most = max(gather(lambda: len(batches)))
    return [(batch, True) for batch in batches] + [(filler, False)] * (most - len(batches))


def gather(make: Callable[[], T]) -> list[T]:
    """What `make` returns on each rank, by rank. A TunefulError that it raises on one rank is raised on all."""
    if world_size() == 1:
        return [make()]
    own: T | TunefulError
    try:
        own = make()
    except TunefulError as error:
        own = error
    found: list[T | TunefulError] = [own] * world_size()
    with together():
        dist.all_gather_object(found, own)
    errors = [one for one in found if isinstance(one, TunefulError)]
    if errors:
        raise own if isinstance(own, TunefulError) else errors[0]
    return cast("list[T]", found)


def from_first(make: Callable[[], T]) -> T:
    """What `make` returns on rank 0, the only one that calls it; a TunefulError likewise."""
    first = gather(lambda: make() if rank() == 0 else None)[0]
    return cast("T", first)


def end_after_first() -> NoReturn:
    """End this rank with status 2 and no words, once rank 0, which has an error to tell, is gone."""
    faulthandler.unregister(signal.SIGTERM)
    with suppress(RuntimeError):
        dist.barrier()  # which rank 0 does not come to: it ends when the connection does
    raise SystemExit(2)


def add_up(numbers: Tensor) -> Tensor:
    """The same numbers, summed over all ranks in place."""
    if world_size() > 1:
        with together():
            dist.all_reduce(numbers)
    return numbers


def add_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Sums the gradients over all ranks, in one message. A weight that has a gradient on no rank is left without."""
    if world_size() == 1:
        return
    weights = list(weights)
    gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    present = gradients[0].new_tensor([w.grad is not None for w in weights])
    flat = add_up(torch.cat([part.flatten() for part in (*gradients, present)]))
    *sums, counts = torch.split(flat, [*(w.numel() for w in weights), len(weights)])
    for weight, total, count in zip(weights, sums, counts.tolist(), strict=True):
        weight.grad = total.view_as(weight) if count else None


def refuse_different(what: str, value: str) -> None:
    """CheckError when `value` is not the same on all ranks."""
    values = gather(lambda: value)
    odd = next((k for k, other in enumerate(values) if other != values[0]), None)
    if odd is not None:
        raise CheckError(
            f"{what} are not the same on ranks 0 and {odd}; all ranks need the same files, versions and kind of device"
        )


def _is_group() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def together() -> Iterator[None]:
    """Around what all ranks do at once: when another rank has gone, this one writes where it was."""
    try:
        yield
    except torch.OutOfMemoryError:  # a RuntimeError too, and this rank's own
        raise
    except RuntimeError as error:
        stack = "".join(traceback.format_stack())
        sys.stderr.write(f"rank {rank()} of {world_size()} was here when another rank ended or hung:\n{stack}")
        raise RunError(
            f"rank {rank()} of {world_size()}: another rank has ended or hangs: {str(error).splitlines()[0]}; "
            "see its last words; run again, with as many ranks as you like, to continue from the last checkpoint"
        ) from error
