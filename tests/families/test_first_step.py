"""The first step of PPO on every family that can be a policy: adapters, padded rows in small micro-batches.

Sampler, trainer and transformers' plain pass of a model loaded anew agree before a weight has moved. The layouts of
one Llama are in tests/algorithms/test_first_step.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.algorithms.test_first_step import ROUNDING, TellingCollector, TellingEngine, apart
from tests.families.families import POLICIES
from tests.families.test_read import PROMPTS, plain_logprobs, theirs_of
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import policy_roles
from tuneful.records import Completion, Prompt

CONFIG = PPOConfig(num_steps=1, prompts_per_step=5, samples_per_prompt=2, max_new_tokens=12, epochs=1)


def nothing(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """A reward of 0; what a missing end costs is then all that a step learns from."""
    return torch.zeros(len(completions))


@pytest.mark.parametrize("name", POLICIES)
def test_ratio_1_and_kl_0(name: str, folder_of: Callable[[str], Path]) -> None:
    roles = policy_roles(folder_of(name), lora=LoRA(rank=2), value="adapter")
    engine = TellingEngine(roles, load_tokenizer(folder_of(name)), tokens_per_microbatch=60)
    learner = PPO(engine, PROMPTS, nothing, CONFIG)
    learner.collector = collector = TellingCollector(engine, PROMPTS, nothing, CONFIG, with_values=True)
    metrics = learner.step()
    rollout, theirs = collector.collected, theirs_of(engine)
    assert engine.passes > 2
    assert rollout.reference_logprobs is not None
    expected = torch.zeros_like(rollout.logprobs)
    for k, completion in enumerate(rollout.completions):
        expected[k, : len(completion)] = plain_logprobs(theirs, rollout.prompts[k], completion)
    trained, _ = engine.said_of(rollout)
    assert apart(trained, rollout.logprobs) <= ROUNDING
    assert (metrics["clip_fraction"], metrics["approx_kl"] < 1e-10) == (0, True)
    assert float((rollout.logprobs - rollout.reference_logprobs).sum(-1).abs().max()) <= ROUNDING
    assert float(collector.exact_kl.abs().max()) <= ROUNDING
    for found in (trained, rollout.logprobs, rollout.reference_logprobs):
        assert apart(found, expected) <= ROUNDING
