"""The start-up checks pass a healthy run and stop one that is broken, naming the cause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tuneful.algorithms.start_up as start_up
import tuneful.engines.local as local
import tuneful.models.llama as llama
import tuneful.rewards.learned as learned
from tuneful.algorithms.ppo import PPOConfig
from tuneful.algorithms.start_up import Finding, check_start
from tuneful.engines.local import LocalEngine
from tuneful.errors import CheckError, RewardError
from tuneful.functional.layers import rotate
from tuneful.models.loading import load_language_model, load_tokenizer, save_model
from tuneful.models.roles import policy_roles, reward_roles
from tuneful.records import Completion, Prompt
from tuneful.rewards.learned import LearnedReward
from tuneful.rewards.reward import Reward

CONFIG = PPOConfig(max_new_tokens=5, temperature=0.9, kl_coef=0.3)


@pytest.fixture(scope="module")
def supervised(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model a little way from the tiny one, as supervised fine-tuning would leave it."""
    directory = tmp_path_factory.mktemp("supervised")
    model = load_language_model(tiny_model_dir)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    save_model(model, load_tokenizer(tiny_model_dir), directory)
    return directory


@pytest.fixture
def engine(supervised: Path) -> LocalEngine:
    return LocalEngine(policy_roles(supervised), load_tokenizer(supervised))


def named(findings: Sequence[Finding], part: str) -> Finding:
    (finding,) = [f for f in findings if part in f.name]
    return finding


def test_a_healthy_run_passes(engine: LocalEngine, prompts: list[Prompt], variety: Reward) -> None:
    findings = check_start(engine, prompts, variety, CONFIG, seed=0)
    assert all(finding.passed for finding in findings if not finding.warning)
    assert named(findings, "KL(policy").value < 1e-6
    assert {f.bar for f in findings} == {0.5, 1e-3, 1e-4, 3.0}
    assert len(findings) == 8


def test_a_pass_that_is_not_the_models_own_is_stopped(
    engine: LocalEngine, prompts: list[Prompt], variety: Reward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our pass with keys turned the wrong way: sampler and trainer agree with each other and not with the model."""
    monkeypatch.setattr(llama, "rotate", lambda x, cos, sin: rotate(x, cos, -sin))
    with pytest.raises(CheckError, match="between sampler and the whole model") as error:
        check_start(engine, prompts, variety, CONFIG, seed=0)
    assert "sampler and trainer" not in str(error.value)


def test_the_checks_leave_the_weights_alone(engine: LocalEngine, prompts: list[Prompt], variety: Reward) -> None:
    before = engine.weight_hash()
    check_start(engine, prompts, variety, CONFIG, seed=0)
    assert engine.weight_hash() == before
    assert engine.updates == 0


def test_the_bare_base_as_reference_is_stopped(
    supervised: Path, tiny_model_dir: Path, prompts: list[Prompt], variety: Reward
) -> None:
    wrong = LocalEngine(policy_roles(supervised, reference=tiny_model_dir), load_tokenizer(supervised))
    with pytest.raises(CheckError) as error:
        check_start(wrong, prompts, variety, CONFIG, seed=0)
    assert "KL(policy, reference) per completion (exact) in nats is" in str(error.value)
    assert "the reference is not the model the policy starts from" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_policy_that_was_tuned_before_may_be_away_from_its_reference(
    supervised: Path, tiny_model_dir: Path, prompts: list[Prompt], variety: Reward
) -> None:
    tuned = LocalEngine(policy_roles(supervised, reference=tiny_model_dir), load_tokenizer(supervised))
    findings = check_start(tuned, prompts, variety, CONFIG, seed=0, tuned=True)
    assert named(findings, "KL(policy").value > 1e-3


def test_a_sampler_at_another_temperature_is_stopped(
    engine: LocalEngine, prompts: list[Prompt], variety: Reward, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hotter(local.Sampler):
        def sample(self, prompts: Any, sampling: Any, **settings: Any) -> Any:
            hot = super().sample(prompts, replace(sampling, temperature=1.2), **settings)
            return replace(hot, temperature=sampling.temperature)

    monkeypatch.setattr(local, "Sampler", Hotter)
    with pytest.raises(CheckError, match=r"logprob difference between sampler and trainer .* look at temperature"):
        check_start(engine, prompts, variety, CONFIG, seed=0)


def test_a_reward_that_reads_its_neighbours_is_stopped(engine: LocalEngine, prompts: list[Prompt]) -> None:
    def share_of_longest(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        lengths = torch.tensor([float(len(p.text)) for p in prompts])
        return lengths / lengths.max()

    with pytest.raises(CheckError, match=r"change of a reward with its batch or padding .* neighbours"):
        check_start(engine, prompts, share_of_longest, CONFIG, seed=0)


def test_a_reward_model_passes_and_one_that_reads_its_padding_is_stopped(
    engine: LocalEngine, prompts: list[Prompt], tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = reward_roles(tiny_model_dir).reward
    assert role is not None
    reward = LearnedReward(role, load_tokenizer(tiny_model_dir))
    check_start(engine, prompts, reward, CONFIG, seed=0)

    scores = learned.reward_scores

    def at_the_last_column(role: Any, prompts: Any, completions: Any, *, padding: str) -> Tensor:
        width = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
        filled = [list(c) + [0] * (width - len(p) - len(c)) for p, c in zip(prompts, completions, strict=True)]
        return scores(role, prompts, filled if padding == "right" else completions)

    monkeypatch.setattr(learned, "reward_scores", at_the_last_column)
    with pytest.raises(CheckError, match="batch or padding"):
        check_start(engine, prompts, reward, CONFIG, seed=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_refused(engine: LocalEngine, prompts: list[Prompt], value: float) -> None:
    def broken(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
        return torch.tensor([0.0] * (len(completions) - 1) + [value])

    with pytest.raises(RewardError, match=f"the reward is {value} for 1 of "):
        check_start(engine, prompts, broken, CONFIG, seed=0)


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"pad_token": "<eos>"}, "pad token equal to end token"), ({"eos_token": None}, "missing end token")],
)
def test_a_tokenizer_without_ends_of_its_own_is_stopped(
    engine: LocalEngine, prompts: list[Prompt], changes: dict[str, Any], name: str, variety: Reward
) -> None:
    for token, text in changes.items():
        setattr(engine.tokenizer, token, text)
    with pytest.raises(CheckError, match=name):
        check_start(engine, prompts, variety, CONFIG, seed=0)


def test_rewards_on_padding_are_stopped(
    engine: LocalEngine, prompts: list[Prompt], variety: Reward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_mask(scores: Tensor, logprobs: Tensor, reference: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
        return scores[:, None].expand_as(mask) * ~mask  # all of it past the end

    monkeypatch.setattr(start_up, "shape_rewards", without_mask)
    with pytest.raises(CheckError, match=r"summed rewards and score - kl_coef \* KL .* look at the mask"):
        check_start(engine, prompts, variety, CONFIG, seed=0)


def test_every_broken_check_is_named(
    supervised: Path, tiny_model_dir: Path, prompts: list[Prompt], variety: Reward
) -> None:
    wrong = LocalEngine(policy_roles(supervised, reference=tiny_model_dir), load_tokenizer(supervised))
    wrong.tokenizer.pad_token = "<eos>"
    with pytest.raises(CheckError, match=r"pad token equal to end token.*; KL"):
        check_start(wrong, prompts, variety, CONFIG, seed=0)


def test_a_reward_away_from_zero_only_warns(
    engine: LocalEngine, prompts: list[Prompt], variety: Callable[..., Tensor]
) -> None:
    shifted = check_start(engine, prompts, lambda p, c: variety(p, c) + 100, CONFIG, seed=0)
    mean = named(shifted, "distance of the mean reward")
    assert mean.warning
    assert not mean.passed
