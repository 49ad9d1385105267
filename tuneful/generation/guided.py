"""Sampling by value: a language model proposes tokens, action values decide among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuneful.generation.lockstep import Lockstep
from tuneful.generation.sampler import Choose
from tuneful.generation.sampling import Sampling
from tuneful.models.q_heads import QHeads
from tuneful.models.roles import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """How the tokens of a policy are chosen by the action values on its hidden states.

    Drawn from pi(a | s) proportional to base(a | s) e^(scale Q(s, a)) over the `top_k` likeliest tokens of the base, a
    temperature T dividing the base's logits. The state value that papers subtract from Q changes nothing in it.
    """

    heads: QHeads
    scale: float
    """How much a unit of value counts; infinite: the best token is taken."""
    top_k: int
    """Tokens of the base that are proposed."""
    base: Role | None = None
    """Who proposes; None: the policy itself, on whose states the values are read."""
    target: bool = False
    """Whether the copies that follow are asked for values."""
    temperature: float = 1.0
    """T of the policy above; at another, U, the whole policy is sharper or flatter: pi^(T / U)."""

    def choose(self, ids: Sequence[list[int]], sampling: Sampling, *, epsilon: float = 0.0) -> Choose:
        """The sampler's hook for prompts of these ids.

        epsilon: the probability with which a token is drawn from the proposals by the base alone.
        """
        beside = None
        if self.base is not None:
            beside = Lockstep(
                self.base, list(ids), num_samples=sampling.num_samples, max_new_tokens=sampling.max_new_tokens
            )
        return _ByValue(self, beside, sampling.temperature or 1.0, epsilon)


class _ByValue:
    """A `choose` that follows a guide."""

    def __init__(self, guide: Guide, beside: Lockstep | None, temperature: float, epsilon: float) -> None:
        self.guide, self.beside, self.temperature, self.epsilon = guide, beside, temperature, epsilon
        self.waves = None if beside is None else beside.waves

    def admit(self, rows: Tensor) -> None:
        if self.beside is not None:
            self.beside.admit(rows)

    def drawn(self, rows: Tensor, ids: Tensor) -> None:
        if self.beside is not None:
            self.beside.drawn(rows, ids)

    def drop(self, rows: Tensor) -> None:
        if self.beside is not None:
            self.beside.drop(rows)

    def __call__(self, logits: Tensor, hidden: Tensor, rows: Tensor) -> Tensor:
        base = logits if self.beside is None else self.beside.logits(rows) / self.temperature
        proposed = base.topk(min(self.guide.top_k, base.shape[-1]), dim=-1)
        q = self.guide.heads.least(hidden, proposed.indices, target=self.guide.target)
        among = weighed(proposed.values, q, self.guide.scale * self.guide.temperature / self.temperature)
        if self.epsilon > 0:
            by_base = proposed.values.log_softmax(-1) + math.log(self.epsilon)
            rest = math.log1p(-self.epsilon) if self.epsilon < 1 else -math.inf
            among = torch.logaddexp(by_base, among.log_softmax(-1) + rest)
        return torch.full_like(base, -torch.inf).scatter(-1, proposed.indices, among)


def possible(q: Tensor, logprobs: Tensor) -> Tensor:
    """Values of tokens, -inf for those that the base gives no probability at all; both float [R, K]."""
    return q.masked_fill(logprobs.exp() == 0, -torch.inf)


def weighed(logits: Tensor, q: Tensor, scale: float) -> Tensor:
    """Logits of base * e^(scale q); for an infinite scale that of the best alone is not -inf. All float [R, K]."""
    if math.isinf(scale):
        best = possible(q, logits.log_softmax(-1)).argmax(-1, keepdim=True)
        return torch.full_like(logits, -torch.inf).scatter(-1, best, 0.0)
    return logits + scale * q
