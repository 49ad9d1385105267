"""What an algorithm asks of a machine (docs/decisions/0001)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor

from tuneful.generation.rollout import Rollout
from tuneful.generation.sampler import Choose
from tuneful.generation.sampling import Sampling
from tuneful.models.forward import Outputs
from tuneful.models.ragged import Ids
from tuneful.records import Prompt

Metrics = dict[str, float]
RoleName = Literal["policy", "reference", "value", "reward"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """R rows for one optimizer step."""

    role: Literal["policy", "reward"]
    prompts: Ids
    completions: Ids
    width: int | None = None
    """T of the outputs; None: the longest completion of each micro-batch."""
    units: Sequence[int] | None = None
    """[R]: rows of one number stay in one micro-batch (pairs, whole prompts); None: each row may go alone."""
    with_values: bool = False
    """Whether the outputs hold values [R, T] too."""
    with_states: bool = False
    """Whether the outputs hold the hidden states before each token [M, d] too."""
    entropy_grad: bool = False
    """Whether the entropy [R, T] has a gradient."""
    temperature: float = 1.0
    """Logits are divided by it."""
    allowed: Sequence[Sequence[Sequence[int]]] | None = None
    """Per row and token the ids among which it is chosen, [] for all (`Rollout.allowed`); None: all, for each."""

    def __len__(self) -> int:
        return len(self.prompts)


Loss = Callable[[Outputs, list[int]], tuple[Tensor, Metrics]]
"""(outputs of some rows, their numbers in the batch) -> (loss, metrics), both already divided by the step's count, so
that micro-batches add up to the whole."""


class Engine(Protocol):
    """Sampling, scoring and learning behind one door. The engine owns parameters and optimizer.

    Where several ranks run one program, all make every call with the same arguments and get the same back.
    """

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        seed: int,
        values: bool = False,
        choose: Choose | None = None,
        keep_allowed: bool = True,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Rollout:
        """Completions of every prompt under the policy.

        keep_allowed: whether `Rollout.allowed` tells what `choose` left. on_progress: told how many of how many are
        done.
        """
        ...

    def score(self, role: RoleName, rollout: Rollout) -> Tensor:
        """[N, T] logprobs (policy, reference) or values, [N] raw scores (reward), without gradient."""
        ...

    def forward_backward(self, batch: Batch, loss: Loss) -> Metrics:
        """Accumulate gradients of `loss` over the batch, cut into micro-batches; the sum of their metrics."""
        ...

    def step(self, max_norm: float) -> float:
        """One optimizer step with the gradient clipped to `max_norm`; the norm before clipping."""
        ...

    def leave_out(self, updates: int) -> None:
        """Pass over so many optimizer steps, the gradients so far with them; the schedule goes on as if taken."""
        ...

    def publish_weights(self) -> int:
        """Let the sampler use the current weights; their version."""
        ...

    def save(self, path: Path) -> None:
        """Write weights and optimizer into an existing folder."""
        ...

    def load(self, path: Path) -> None:
        """Restore what `save` wrote and check that it computes what it did then."""
        ...
