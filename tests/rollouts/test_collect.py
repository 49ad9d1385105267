"""One step's experience: everything the update reads is recorded, each number by whoever should give it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tuneful.engines.local import LocalEngine
from tuneful.errors import RewardError
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import ValueKind, policy_roles
from tuneful.records import Completion, Prompt
from tuneful.rollouts.collect import collect, score

PROMPTS = [Prompt.user("hello"), Prompt("how do i cook bread today"), Prompt("why")]
SAMPLING = Sampling(num_samples=2, max_new_tokens=6)


def build(path: Path, value: ValueKind | None = "head") -> LocalEngine:
    """Policy, reference and value apart from each other."""
    roles = policy_roles(path, lora=LoRA(rank=4), value=value)
    for name, weight in roles.weights().items():
        if "lora_B" in name:
            weight.data.normal_(std=0.3)
    if roles.value is not None and roles.value.head is not None:
        nn.init.normal_(roles.value.head.weight)
    return LocalEngine(roles, load_tokenizer(path))


def lengths(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """Asks for what the reward protocol promises: prompts beside completions, tokens and finish kept."""
    assert len(prompts) == len(completions)
    assert all(c.finish in ("eos", "length") for c in completions)
    return torch.tensor(
        [float(len(p.text) + 100 * len(c.tokens or ())) for p, c in zip(prompts, completions, strict=True)]
    )


@pytest.mark.parametrize("value", ["head", "adapter", "model"])
def test_values_are_those_of_the_value_role(tiny_model_dir: Path, value: ValueKind) -> None:
    """Out of the decode pass for a head on the policy's trunk, out of a pass of its own else; never all zero."""
    engine = build(tiny_model_dir, value)
    rollout = collect(engine, PROMPTS, SAMPLING, lengths, seed=1, with_values=True)
    assert rollout.values is not None
    assert rollout.values[rollout.mask].all()
    assert_close(rollout.values, engine.score("value", rollout), atol=1e-5, rtol=1e-5)


def test_every_number_is_recorded(tiny_model_dir: Path) -> None:
    engine = build(tiny_model_dir)
    rollout = collect(engine, PROMPTS, SAMPLING, lengths, seed=1, missing_eos_penalty=0.0)
    assert rollout.values is None
    assert rollout.reference_logprobs is not None
    assert_close(rollout.logprobs, engine.score("policy", rollout), atol=1e-5, rtol=0)
    assert_close(rollout.reference_logprobs, engine.score("reference", rollout))
    assert (rollout.reference_logprobs - rollout.logprobs).abs().max() > 1e-3
    expected = [len(PROMPTS[k // 2].text) + 100.0 * len(c) for k, c in enumerate(rollout.completions)]
    assert rollout.scores is not None
    assert rollout.scores.tolist() == expected


def test_without_reference(tiny_model_dir: Path) -> None:
    roles = policy_roles(tiny_model_dir, with_reference=False)
    engine = LocalEngine(roles, load_tokenizer(tiny_model_dir))
    rollout = collect(engine, PROMPTS, SAMPLING, lengths, seed=1, with_reference=False)
    assert rollout.reference_logprobs is None


def test_completions_that_never_end_pay(tiny_model_dir: Path) -> None:
    def zero(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        return torch.zeros(len(completions))

    engine = build(tiny_model_dir)
    rollout = collect(engine, PROMPTS * 8, SAMPLING, zero, seed=1, missing_eos_penalty=1.5)
    assert "length" in rollout.finish
    assert rollout.scores is not None
    assert rollout.scores.tolist() == [-1.5 if finish == "length" else 0.0 for finish in rollout.finish]
    assert score(rollout, PROMPTS * 8, zero, 0.0).tolist() == [0.0] * len(rollout)


def test_a_bad_reward_is_refused(tiny_model_dir: Path) -> None:
    def broken(prompts: Any, completions: Any) -> Tensor:
        return torch.full((len(completions),), float("nan"))

    with pytest.raises(RewardError, match=r"^the reward is nan for 6 of 6 completions"):
        collect(build(tiny_model_dir), PROMPTS, SAMPLING, broken, seed=1)
