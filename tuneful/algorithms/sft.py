"""Supervised fine-tuning: imitate demonstrations. The loss is the mean negative log-likelihood of completion tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from tuneful.data.batching import shuffled_batches
from tuneful.data.templates import pair_ids
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Engine, Metrics
from tuneful.errors import ConfigError
from tuneful.functional.masking import masked_sum
from tuneful.models.forward import Outputs
from tuneful.records import Demonstration
from tuneful.settings import require_above, require_at_least, require_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class SFTConfig:
    """Settings of supervised fine-tuning."""

    demonstrations_per_step: int = 64
    """Rows per optimizer step."""
    epochs: int = 1
    """Passes over the demonstrations."""
    max_tokens: int = 1024
    """Prompt and completion together, in a recipe at most the model's context; longer prompts are cut on the left."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""
    optimization: Optimization = Optimization(learning_rate=2e-5, schedule="cosine")
    """Optimizer and schedule."""
    seed: int = 0
    """Order of the demonstrations."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "sft.", "demonstrations_per_step", "epochs", "max_tokens")
        require_seed(self, "sft.")
        require_above(0, self, "sft.", "max_grad_norm", hint="1 is usual")

    def num_steps(self, num_demonstrations: int) -> int:
        """Optimizer steps of the whole run."""
        return -(-num_demonstrations * self.epochs // self.demonstrations_per_step)


class SFT:
    """Learner over demonstrations."""

    def __init__(self, engine: Engine, demonstrations: Sequence[Demonstration], config: SFTConfig, tokenizer: Any):
        if not demonstrations:
            raise ConfigError("sft: no demonstrations to learn from")
        self.engine = engine
        self.config = config
        self.rows = [pair_ids(d.prompt, d.completion, tokenizer, max_tokens=config.max_tokens) for d in demonstrations]
        self.batch = shuffled_batches(len(self.rows), config.demonstrations_per_step, config.seed)
        self.steps = 0

    def step(self) -> Metrics:
        chosen = [self.rows[k] for k in self.batch(self.steps)]
        batch = Batch(role="policy", prompts=[p for p, _ in chosen], completions=[c for _, c in chosen])
        num_tokens = sum(len(c) for c in batch.completions)
        metrics = self.engine.forward_backward(batch, partial(nll_loss, num_tokens=num_tokens))
        metrics["grad_norm"] = self.engine.step(self.config.max_grad_norm)
        metrics["tokens"] = float(num_tokens)
        self.engine.publish_weights()
        self.steps += 1
        return metrics

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def nll_loss(outputs: Outputs, rows: list[int], *, num_tokens: int) -> tuple[Tensor, Metrics]:
    """Token-mean negative log-likelihood over the whole step."""
    assert outputs.logprobs is not None and outputs.entropy is not None
    loss = -masked_sum(outputs.logprobs, outputs.mask) / num_tokens
    entropy = masked_sum(outputs.entropy, outputs.mask) / num_tokens
    return loss, {"loss": float(loss.detach()), "entropy": float(entropy)}
