"""What the learners' tests share: engines on the tiny model, and one that tells what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.protocol import Batch, Loss, Metrics, RoleName
from tuneful.generation.rollout import Rollout
from tuneful.models.loading import load_tokenizer
from tuneful.models.q_heads import QHeads
from tuneful.models.roles import Roles, policy_roles, reward_roles
from tuneful.records import Comparison, Completion, Prompt


class WatchedEngine(LocalEngine):
    """Remembers every batch with the metrics of its loss, and the roles that were asked to score."""

    def __init__(self, roles: Roles, tokenizer: Any, **settings: Any) -> None:
        super().__init__(roles, tokenizer, **settings)
        self.seen: list[tuple[Batch, Metrics]] = []
        self.scored: list[RoleName] = []

    def forward_backward(self, batch: Batch, loss: Loss) -> Metrics:
        metrics = super().forward_backward(batch, loss)
        self.seen.append((batch, metrics))
        return metrics

    def score(self, role: RoleName, rollout: Rollout) -> Tensor:
        self.scored.append(role)
        return super().score(role, rollout)


Build = Callable[..., WatchedEngine]


@pytest.fixture
def policy_engine(tiny_model_dir: Path) -> Build:
    """Policy, reference and value head on the tiny model; arguments go to the engine."""

    def build(**settings: Any) -> WatchedEngine:
        settings.setdefault("optimization", Optimization(learning_rate=1e-2, schedule="constant"))
        return WatchedEngine(policy_roles(tiny_model_dir, value="head"), load_tokenizer(tiny_model_dir), **settings)

    return build


@pytest.fixture
def heads_engine(tiny_model_dir: Path) -> Build:
    """Policy, reference and action values that have left their start, the copies elsewhere; arguments go to the
    engine."""

    def build(**settings: Any) -> WatchedEngine:
        heads = QHeads(32, 82)
        torch.manual_seed(3)
        with torch.no_grad():
            for weight in heads.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        settings.setdefault("optimization", Optimization(learning_rate=1e-2, schedule="constant"))
        roles = replace(policy_roles(tiny_model_dir), heads=heads)
        return WatchedEngine(roles, load_tokenizer(tiny_model_dir), **settings)

    return build


@pytest.fixture
def reward_engine(tiny_model_dir: Path) -> Build:
    """A reward model on the tiny model."""

    def build(**settings: Any) -> WatchedEngine:
        settings.setdefault("optimization", Optimization(learning_rate=1e-2, schedule="constant"))
        return WatchedEngine(reward_roles(tiny_model_dir), load_tokenizer(tiny_model_dir), **settings)

    return build


@pytest.fixture
def prompts() -> list[Prompt]:
    return [Prompt.user(text) for text in ("hello you", "fix the tap", "when can i sleep", "open the green door now")]


@pytest.fixture
def comparisons(prompts: list[Prompt]) -> list[Comparison]:
    """Six pairs, the longer side chosen in some, one of them unsure."""
    first, second, third, fourth = prompts
    return [
        Comparison(first, "hello", "no"),
        Comparison(first, "hello to you too", "stop"),
        Comparison(second, "turn it and wait a day", "no i am not fine today"),
        Comparison(second, "yes please", "the tap", p=0.7),
        Comparison(third, "now", "when the house is quiet and the light red"),
        Comparison(fourth, "it is open", "why"),
    ]


@pytest.fixture
def variety() -> Callable[[Sequence[Prompt], Sequence[Completion]], Tensor]:
    """A reward: how many different tokens were said."""

    def reward(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        return torch.tensor([float(len(set(c.tokens or ()))) for c in completions])

    return reward
