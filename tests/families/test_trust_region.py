"""TRPO's Fisher products on encoder-decoders: gradients of gradients through encoder, decoder and what lies between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.families.test_by_value import variety
from tests.families.test_learners import NAMES, plain_pass
from tests.families.test_read import PROMPTS
from tuneful.algorithms import trpo
from tuneful.algorithms.trpo import TRPO, TRPOConfig
from tuneful.engines.local import LocalEngine
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import own_weights, policy_roles

CONFIG = TRPOConfig(
    num_steps=2, prompts_per_step=4, samples_per_prompt=2, max_new_tokens=6, max_kl=0.005, fisher_share=1.0
)


@pytest.fixture
def engine(name: str, folder_of: Callable[[str], Path]) -> LocalEngine:
    """An adapter that has left its start, where half of its gradients are 0."""
    roles = policy_roles(folder_of(name), value="head", lora=LoRA(rank=2), seed=1)
    assert roles.policy is not None
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in roles.policy.weights.values():
            weight.add_(0.05 * torch.randn_like(weight))
    return LocalEngine(roles, load_tokenizer(folder_of(name)), tokens_per_microbatch=60)


@pytest.mark.parametrize("name", NAMES)
def test_a_fisher_product_is_the_change_of_the_kl_gradient(engine: LocalEngine) -> None:
    """F v = (gradient of KL(now, theta + e v) - that of KL(now, theta - e v)) / 2e, row by row by transformers."""
    policy = engine.roles.policy
    assert policy is not None
    rollout = TRPO(engine, PROMPTS, variety, CONFIG).collector.next_rollout()
    weights = list(own_weights(policy).values())
    start = torch.cat([weight.detach().flatten() for weight in weights])

    def logprobs() -> Tensor:
        rows = zip(rollout.prompts, rollout.completions, strict=True)
        policy.activate()
        return torch.cat([plain_pass(policy.model, *row)[0].double() for row in rows])

    def slope(theta: Tensor) -> Tensor:
        with torch.no_grad():
            for weight, part in zip(weights, torch.split(theta, [w.numel() for w in weights]), strict=True):
                weight.copy_(part.view_as(weight))
        kl = (now.exp() * (now - logprobs())).sum(-1).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(kl, weights)])

    now = logprobs().detach()
    torch.manual_seed(2)
    for _ in range(2):
        v = torch.randn_like(start)
        v /= v.norm()
        numeric = (slope(start + 1e-2 * v) - slope(start - 1e-2 * v)) / 2e-2
        slope(start)
        ours = trpo.fisher_product(policy, rollout, weights, engine.tokens_per_microbatch, v)
        assert ours.norm() > 1e-4
        assert (ours - numeric).norm() < 0.02 * ours.norm()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_stays_within_its_bound_and_gains(engine: LocalEngine) -> None:
    policy = engine.roles.policy
    assert policy is not None
    learner = TRPO(engine, PROMPTS, variety, CONFIG)
    rollout = learner.draw()

    def logprobs() -> Tensor:
        rows = zip(rollout.prompts, rollout.completions, strict=True)
        policy.activate()
        return torch.cat([plain_pass(policy.model, *row)[0].double() for row in rows]).detach()

    old = logprobs()
    metrics = learner.learn(rollout)
    kl = float((old.exp() * (old - logprobs())).sum(-1).mean())
    assert metrics["accepted"] == 1
    assert metrics["update_kl"] == pytest.approx(kl, rel=1e-3)
    assert 0.001 < kl < 0.005
    assert metrics["surrogate_gain"] > 0
