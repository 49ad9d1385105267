"""Which weights play which part: adapters on one base or models of their own, with the same results."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForSequenceClassification

from tuneful.errors import ConfigError, ModelError
from tuneful.models.adapters import LoRA
from tuneful.models.forward import policy_outputs, reward_scores, value_outputs
from tuneful.models.loading import load_language_model, load_scorer, load_tokenizer, save_model, write_reward_file
from tuneful.models.roles import Role, Roles, ValueKind, policy_roles, reward_on, reward_roles

LORA = LoRA(rank=4)
PROMPTS = [[1, 7, 9, 30], [1, 5]]
COMPLETIONS = [[8, 2], [20, 21, 22, 2]]


@pytest.fixture
def reward_dir(wide_model_dir: Path, tmp_path: Path) -> Path:
    """A reward model as an adapter with a head, trained and saved by ourselves."""
    roles = reward_roles(wide_model_dir, lora=LORA, seed=3)
    assert roles.reward is not None and roles.reward.adapters is not None
    reward = roles.reward
    train(roles, lambda: -(reward_scores(reward, PROMPTS, COMPLETIONS) * torch.tensor([1.0, -1.0])).sum(), steps=5)
    roles.reward.adapters.save("reward", tmp_path / "reward")
    load_tokenizer(wide_model_dir).save_pretrained(tmp_path / "reward")
    return tmp_path / "reward"


def logprobs(role: Role | None) -> Tensor:
    assert role is not None
    found = policy_outputs(role, PROMPTS, COMPLETIONS).logprobs
    assert found is not None
    return found


def train(roles: Roles, loss: Callable[[], Tensor], steps: int = 3) -> None:
    optimizer = torch.optim.AdamW(roles.weights().values(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def frozen_weights(model: Any) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}


@pytest.fixture
def tuned_dir(wide_model_dir: Path, tmp_path: Path) -> Path:
    """The supervised model of the story: an adapter trained and saved by ourselves, far from its base."""
    roles = policy_roles(wide_model_dir, lora=LORA, with_reference=False)
    train(roles, lambda: -logprobs(roles.policy).mean(), steps=8)
    assert roles.policy is not None
    assert roles.policy.adapters is not None
    roles.policy.adapters.save("policy", tmp_path / "tuned")
    AutoTokenizer.from_pretrained(wide_model_dir).save_pretrained(tmp_path / "tuned")
    return tmp_path / "tuned"


class TestPolicy:
    def test_without_adapters_the_reference_is_a_frozen_copy(self, wide_model_dir: Path) -> None:
        roles = policy_roles(wide_model_dir)
        before = logprobs(roles.reference).detach()
        assert torch.equal(logprobs(roles.policy), before)
        train(roles, lambda: -logprobs(roles.policy).mean())
        assert (logprobs(roles.policy) - before).abs().max() > 0.1
        assert torch.equal(logprobs(roles.reference), before)
        assert not logprobs(roles.reference).requires_grad

    def test_with_adapters_the_reference_is_the_base_with_them_off(self, wide_model_dir: Path) -> None:
        roles = policy_roles(wide_model_dir, lora=LORA)
        assert roles.policy is not None
        assert roles.reference is not None
        assert roles.policy.model is roles.reference.model
        before = logprobs(roles.reference).detach()
        assert torch.equal(logprobs(roles.policy).detach(), before)  # KL is exactly 0 at the start
        base = frozen_weights(roles.policy.model)
        train(roles, lambda: -logprobs(roles.policy).mean())
        assert (logprobs(roles.policy) - before).abs().max() > 0.1
        assert torch.equal(logprobs(roles.reference), before)
        assert all(torch.equal(weight, base[name]) for name, weight in frozen_weights(roles.policy.model).items())

    def test_the_gradient_reaches_the_adapter_only(self, wide_model_dir: Path) -> None:
        roles = policy_roles(wide_model_dir, lora=LORA)
        assert roles.policy is not None
        (-logprobs(roles.policy).mean()).backward()
        with_grad = {n for n, p in roles.policy.model.named_parameters() if p.grad is not None}
        assert with_grad == set(roles.policy.weights)
        assert all(".policy." in name for name in with_grad)

    def test_a_reference_pass_between_forward_and_backward_loses_nothing(self, wide_model_dir: Path) -> None:
        roles = policy_roles(wide_model_dir, lora=LORA)
        ours = logprobs(roles.policy)
        logprobs(roles.reference)
        (-ours.mean()).backward()
        assert all(w.grad is not None for w in roles.weights().values())

    def test_another_reference_directory(self, wide_model_dir: Path, tiny_model_dir: Path) -> None:
        roles = policy_roles(wide_model_dir, lora=LORA, reference=tiny_model_dir)
        assert_close(logprobs(roles.reference), logprobs(Role("plain", load_language_model(tiny_model_dir))))
        assert not logprobs(roles.reference).requires_grad

    def test_no_reference(self, wide_model_dir: Path) -> None:
        assert policy_roles(wide_model_dir, with_reference=False).reference is None
        assert policy_roles(wide_model_dir, lora=LORA, with_reference=False).reference is None

    def test_a_bfloat16_base(self, wide_model_dir: Path) -> None:
        """Adapters, heads and what comes out are float32."""
        roles = policy_roles(wide_model_dir, lora=LORA, dtype="bfloat16", value="head")
        assert roles.policy is not None
        outputs = policy_outputs(roles.policy, PROMPTS, COMPLETIONS, value=roles.value)
        assert outputs.logprobs is not None
        assert outputs.values is not None
        assert outputs.logprobs.dtype == outputs.values.dtype == torch.float32
        assert {w.dtype for w in roles.weights().values()} == {torch.float32}
        (outputs.values.sum() - outputs.logprobs.mean()).backward()
        assert all(w.grad is not None and w.grad.isfinite().all() for w in roles.weights().values())

    def test_bfloat16_weights_are_not_trained_themselves(self, wide_model_dir: Path) -> None:
        for build in (policy_roles, reward_roles):
            with pytest.raises(ConfigError, match='base_dtype = "bfloat16" needs lora'):
                build(wide_model_dir, dtype="bfloat16")


class TestTunedAdapter:
    def test_all_of_the_merged_model_can_be_trained(self, tuned_dir: Path, reward_dir: Path) -> None:
        """PEFT leaves the base of a merged adapter frozen."""
        for roles in (policy_roles(tuned_dir, value="head"), reward_roles(reward_dir), reward_roles(tuned_dir)):
            assert all(weight.requires_grad for weight in roles.weights().values())
        roles = policy_roles(tuned_dir)
        before = logprobs(roles.policy).detach()
        train(roles, lambda: -logprobs(roles.policy).mean())
        assert (logprobs(roles.policy) - before).abs().max() > 0.01

    def test_its_base_is_found_from_any_folder(
        self, wide_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(wide_model_dir, tmp_path / "base")
        monkeypatch.chdir(tmp_path)
        policy = policy_roles("base", lora=LORA).policy
        assert policy is not None and policy.adapters is not None
        policy.adapters.save("policy", tmp_path / "adapter")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert_close(logprobs(Role("plain", load_language_model("../adapter"))), logprobs(policy), atol=1e-5, rtol=0)

    def test_the_reference_is_the_merged_model_never_the_bare_base(self, tuned_dir: Path, wide_model_dir: Path) -> None:
        merged = logprobs(Role("plain", load_language_model(tuned_dir)))
        bare = logprobs(Role("plain", load_language_model(wide_model_dir)))
        assert (merged - bare).abs().max() > 0.5
        for lora in (None, LORA):
            roles = policy_roles(tuned_dir, lora=lora)
            assert_close(logprobs(roles.reference), merged, atol=1e-5, rtol=0)
            assert_close(logprobs(roles.policy), merged, atol=1e-5, rtol=0)

    def test_an_adapter_trained_on_top_comes_back_with_both(self, tuned_dir: Path, tmp_path: Path) -> None:
        """Saved, it names the tuned adapter as its base; loaded, that one is merged first."""
        roles = policy_roles(tuned_dir, lora=LORA)
        train(roles, lambda: logprobs(roles.policy).mean())
        expected = logprobs(roles.policy).detach()
        assert (expected - logprobs(roles.reference)).abs().max() > 0.1
        assert roles.policy is not None
        assert roles.policy.adapters is not None
        roles.policy.adapters.save("policy", tmp_path / "aligned")
        assert_close(logprobs(Role("plain", load_language_model(tmp_path / "aligned"))), expected, atol=1e-4, rtol=0)


class TestValue:
    def test_a_head_starts_at_zero_and_shares_the_trunk(self, wide_model_dir: Path) -> None:
        for lora in (None, LORA):
            roles = policy_roles(wide_model_dir, lora=lora, value="head")
            assert roles.policy is not None
            assert roles.value is not None
            assert roles.value.shares_trunk(roles.policy)
            values = value_outputs(roles.value, PROMPTS, COMPLETIONS).values
            assert values is not None
            assert not values.any()

    def test_an_adapter_of_its_own(self, wide_model_dir: Path) -> None:
        """Zero at the start; training it moves the values, and neither policy nor reference."""
        roles = policy_roles(wide_model_dir, lora=LORA, value="adapter")
        assert roles.policy is not None
        value = roles.value
        assert value is not None
        assert not value.shares_trunk(roles.policy)
        before = logprobs(roles.policy).detach()

        def loss() -> Tensor:
            values = value_outputs(value, PROMPTS, COMPLETIONS).values
            assert values is not None
            return (values - 1).square().mean()

        start = float(loss().detach())
        train(roles, loss, steps=10)
        assert float(loss().detach()) < 0.8 * start
        assert torch.equal(logprobs(roles.policy), before)
        assert torch.equal(logprobs(roles.reference), before)
        assert any(w.any() for n, w in value.weights.items() if "lora_B" in n)

    def test_one_backward_trains_policy_and_value_adapters(self, wide_model_dir: Path) -> None:
        """What a PPO step does: both outputs in one call, one loss."""
        roles = policy_roles(wide_model_dir, lora=LORA, value="adapter")
        assert roles.policy is not None
        assert roles.value is not None
        assert roles.value.head is not None
        torch.nn.init.normal_(roles.value.head.weight)
        outputs = policy_outputs(roles.policy, PROMPTS, COMPLETIONS, value=roles.value)
        assert outputs.logprobs is not None
        assert outputs.values is not None
        (outputs.logprobs.sum() + outputs.values.sum()).backward()
        silent = [n for n, w in roles.weights().items() if "lora_A" not in n and (w.grad is None or not w.grad.any())]
        assert silent == []

    def test_a_model_of_its_own(self, wide_model_dir: Path) -> None:
        """The policy's weights under a head of zeros."""
        roles = policy_roles(wide_model_dir, value="model", seed=3)
        assert roles.value is not None and roles.policy is not None
        assert not roles.value.shares_trunk(roles.policy)
        values = value_outputs(roles.value, PROMPTS, COMPLETIONS).values
        assert values is not None
        assert not values.any()

    @pytest.mark.parametrize("kind", ["adapter", "model"])
    def test_it_may_start_from_a_reward_model(self, wide_model_dir: Path, reward_dir: Path, kind: ValueKind) -> None:
        """Its value at the last state is gain * score + bias, the score being that of transformers' own classifier."""
        write_reward_file(reward_dir, {"gain": 2.0, "bias": -0.5})
        roles = policy_roles(wide_model_dir, lora=LORA, value=kind, value_from=reward_dir)
        assert roles.value is not None
        row = [*PROMPTS[1], *COMPLETIONS[1]]
        classifier = load_scorer(reward_dir)
        with torch.no_grad():
            expected = 2.0 * classifier(torch.tensor([row[:-1]])).logits[0, 0] - 0.5
            values = value_outputs(roles.value, PROMPTS, COMPLETIONS).values
        assert values is not None
        assert_close(values[1, 3], expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("kind", ["adapter", "model"])
    def test_a_language_model_has_no_values_to_start_from(self, wide_model_dir: Path, kind: ValueKind) -> None:
        with pytest.raises(ConfigError, match=f"value_from: {wide_model_dir} is no reward model"):
            policy_roles(wide_model_dir, lora=LORA, value=kind, value_from=wide_model_dir)

    def test_a_head_cannot_start_from_a_reward_model(self, wide_model_dir: Path, reward_dir: Path) -> None:
        with pytest.raises(ConfigError, match='value_from needs value = "adapter" or "model"'):
            policy_roles(wide_model_dir, value="head", value_from=reward_dir)

    def test_an_adapter_cannot_start_from_a_model(self, wide_model_dir: Path, tmp_path: Path) -> None:
        save_model(load_scorer(wide_model_dir), load_tokenizer(wide_model_dir), tmp_path / "whole")
        with pytest.raises(ConfigError) as error:
            policy_roles(wide_model_dir, lora=LORA, value="adapter", value_from=tmp_path / "whole")
        assert str(error.value) == (
            f"{tmp_path / 'whole'}: this reward is a model of its own; train it with lora to share a base, "
            'or set value = "model"'
        )

    def test_an_adapter_cannot_start_from_one_without_a_head(self, wide_model_dir: Path, tuned_dir: Path) -> None:
        with pytest.raises(ConfigError, match=r"value_from: .* is no reward model"):
            policy_roles(wide_model_dir, lora=LORA, value="adapter", value_from=tuned_dir)

    def test_an_encoder_values_no_tokens(self, wide_model_dir: Path, tmp_path: Path) -> None:
        size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        BertForSequenceClassification(BertConfig(vocab_size=40, num_labels=1, **size)).save_pretrained(tmp_path)
        with pytest.raises(ModelError, match=rf"^{tmp_path}: BertForSequenceClassification has no linear score head"):
            policy_roles(wide_model_dir, value="model", value_from=tmp_path)

    def test_an_adapter_needs_adapters(self, wide_model_dir: Path) -> None:
        with pytest.raises(ConfigError) as error:
            policy_roles(wide_model_dir, value="adapter")
        assert str(error.value) == 'value = "adapter" needs adapters; set lora, or value = "head" or "model"'


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("kind", ["head", "adapter", "model"])
def test_weight_names_are_stable_and_each_weight_stands_once(
    wide_model_dir: Path, lora: LoRA | None, kind: ValueKind
) -> None:
    if lora is None and kind == "adapter":
        pytest.skip("an adapter value needs adapters")
    first = policy_roles(wide_model_dir, lora=lora, value=kind, seed=1)
    again = policy_roles(wide_model_dir, lora=lora, value=kind, seed=2)
    weights = first.weights()
    assert list(weights) == list(again.weights())
    assert len({id(w) for w in weights.values()}) == len(weights)
    assert first.reference is not None
    assert not first.reference.weights
    assert first.policy is not None
    assert first.value is not None
    assert len(weights) == len(first.policy.weights) + len(first.value.weights)


class TestReward:
    def scores(self, role: Role | None) -> Tensor:
        assert role is not None
        return reward_scores(role, PROMPTS, COMPLETIONS)

    @pytest.mark.parametrize("lora", [None, LORA])
    def test_trained_saved_and_loaded_it_scores_the_same(
        self, wide_model_dir: Path, tmp_path: Path, lora: LoRA | None
    ) -> None:
        roles = reward_roles(wide_model_dir, lora=lora, seed=3)
        before = self.scores(roles.reward).detach()
        train(roles, lambda: -(self.scores(roles.reward) * torch.tensor([1.0, -1.0])).sum(), steps=5)
        after = self.scores(roles.reward).detach()
        assert ((after - before) * torch.tensor([1.0, -1.0])).min() > 0.1
        assert roles.reward is not None
        if roles.reward.adapters is None:
            save_model(roles.reward.model, load_tokenizer(wide_model_dir), tmp_path / "reward")
        else:
            roles.reward.adapters.save("reward", tmp_path / "reward")
        loaded = load_scorer(tmp_path / "reward", seed=8)
        assert_close(self.scores(Role("plain", loaded, head=loaded.score)), after, atol=1e-4, rtol=0)

    def test_adapter_and_head_are_trained_and_nothing_else(self, wide_model_dir: Path) -> None:
        roles = reward_roles(wide_model_dir, lora=LORA)
        assert roles.reward is not None
        base = frozen_weights(roles.reward.model.model)
        head = roles.reward.head
        assert head is not None
        before = head.weight.detach().clone()
        self.scores(roles.reward).sum().backward()
        with_grad = {n for n, p in roles.reward.model.named_parameters() if p.grad is not None}
        assert with_grad == set(roles.weights())
        assert any(weight is head.weight for weight in roles.weights().values())
        train(roles, lambda: self.scores(roles.reward).sum())
        assert all(torch.equal(w, base[n]) for n, w in frozen_weights(roles.reward.model.model).items())
        assert not torch.equal(head.weight, before)

    def test_it_starts_like_the_model_without_adapters(self, wide_model_dir: Path) -> None:
        full, thin = reward_roles(wide_model_dir, seed=3), reward_roles(wide_model_dir, lora=LORA, seed=3)
        assert_close(self.scores(thin.reward), self.scores(full.reward))

    def test_on_a_bfloat16_base(self, wide_model_dir: Path, tmp_path: Path) -> None:
        """The head, too, is float32: it follows steps that bfloat16 would round away, and is saved as it is."""
        roles = reward_roles(wide_model_dir, lora=LORA, dtype="bfloat16", seed=3)
        reward = roles.reward
        assert reward is not None and reward.adapters is not None and reward.head is not None
        assert {w.dtype for w in roles.weights().values()} == {torch.float32}
        before = reward.head.weight.detach().clone()
        self.scores(reward).sum().backward()
        torch.optim.AdamW(roles.weights().values(), lr=1e-5).step()
        assert_close((reward.head.weight - before).abs(), torch.full_like(before, 1e-5), atol=2e-7, rtol=0)

        expected = self.scores(reward).detach()
        reward.adapters.save("reward", tmp_path / "reward")
        policy = policy_roles(wide_model_dir, lora=LORA, dtype="bfloat16").policy
        assert policy is not None
        assert torch.equal(self.scores(reward_on(policy, tmp_path / "reward")), expected)
        plain = load_scorer(tmp_path / "reward")
        assert torch.equal(plain.score.weight, reward.head.weight)
        alone = self.scores(Role("plain", plain, head=plain.score))
        assert_close(alone, expected, atol=0.1 * float(expected.detach().std()), rtol=0.05)

    def test_on_a_tuned_adapter(self, tuned_dir: Path, tmp_path: Path) -> None:
        """A reward adapter over the merged supervised model comes back over the merged supervised model."""
        roles = reward_roles(tuned_dir, lora=LORA, seed=3)
        train(roles, lambda: self.scores(roles.reward).sum())
        expected = self.scores(roles.reward).detach()
        assert roles.reward is not None
        assert roles.reward.adapters is not None
        roles.reward.adapters.save("reward", tmp_path / "reward")
        loaded = load_scorer(tmp_path / "reward")
        assert_close(self.scores(Role("plain", loaded, head=loaded.score)), expected, atol=1e-4, rtol=0)

    def test_an_encoder_trains_whole_or_not_at_all(self, tmp_path: Path) -> None:
        size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        BertForSequenceClassification(BertConfig(vocab_size=40, num_labels=1, **size)).save_pretrained(tmp_path)
        roles = reward_roles(tmp_path)
        assert roles.reward is not None
        assert roles.reward.head is None
        train(roles, lambda: self.scores(roles.reward).sum())
        with pytest.raises(ConfigError) as error:
            reward_roles(tmp_path, lora=LORA)
        assert str(error.value).startswith("lora on an encoder reward model is not supported; leave lora out")


def test_a_plain_model_is_what_the_roles_compute(wide_model_dir: Path) -> None:
    plain: Any = AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32)
    expected = plain(torch.tensor([PROMPTS[0] + COMPLETIONS[0]])).logits.log_softmax(-1)[0, 3, 8]
    assert_close(logprobs(policy_roles(wide_model_dir, lora=LORA).policy)[0, 0], expected, atol=1e-5, rtol=0)


class TestOneBase:
    """Policy, reference, value and reward as adapters on one base."""

    def test_four_roles_and_one_model(self, wide_model_dir: Path, reward_dir: Path) -> None:
        roles = policy_roles(wide_model_dir, lora=LORA, value="adapter")
        assert roles.policy is not None and roles.reference is not None and roles.value is not None
        reward = reward_on(roles.policy, reward_dir)
        assert len({id(role.model) for role in (roles.policy, roles.reference, roles.value, reward)}) == 1
        alone = load_scorer(reward_dir)
        expected = reward_scores(Role("plain", alone, head=alone.score), PROMPTS, COMPLETIONS)
        assert_close(reward_scores(reward, PROMPTS, COMPLETIONS), expected, atol=1e-4, rtol=1e-4)

    def test_on_a_bfloat16_base(self, wide_model_dir: Path, reward_dir: Path) -> None:
        policy = policy_roles(wide_model_dir, lora=LORA, dtype="bfloat16").policy
        assert policy is not None
        alone = load_scorer(reward_dir)
        expected = reward_scores(Role("plain", alone, head=alone.score), PROMPTS, COMPLETIONS)
        found = reward_scores(reward_on(policy, reward_dir), PROMPTS, COMPLETIONS)
        assert_close(found, expected, atol=0.1 * float(expected.detach().std()), rtol=0.05)

    def test_training_the_policy_leaves_the_reward_alone(self, wide_model_dir: Path, reward_dir: Path) -> None:
        roles = policy_roles(wide_model_dir, lora=LORA, value="adapter")
        assert roles.policy is not None
        reward = reward_on(roles.policy, reward_dir)
        before, start = reward_scores(reward, PROMPTS, COMPLETIONS).detach(), logprobs(roles.policy).detach()
        train(roles, lambda: -logprobs(roles.policy).mean())
        assert torch.equal(reward_scores(reward, PROMPTS, COMPLETIONS), before)
        assert torch.equal(logprobs(roles.reference), start)
        assert (logprobs(roles.policy) - start).abs().max() > 0.01

    def test_a_policy_without_adapters(self, wide_model_dir: Path, reward_dir: Path) -> None:
        policy = policy_roles(wide_model_dir).policy
        assert policy is not None
        with pytest.raises(ConfigError, match="share_base needs lora"):
            reward_on(policy, reward_dir)

    def test_a_reward_of_its_own(self, wide_model_dir: Path) -> None:
        policy = policy_roles(wide_model_dir, lora=LORA).policy
        assert policy is not None
        with pytest.raises(
            ConfigError, match=f"{wide_model_dir}: this reward is a model of its own; train it with lora"
        ):
            reward_on(policy, wide_model_dir)

    def test_an_adapter_of_another_base(self, tiny_model_dir: Path, reward_dir: Path) -> None:
        policy = policy_roles(tiny_model_dir, lora=LORA).policy
        assert policy is not None
        with pytest.raises(ModelError, match=r"which is not the base .* train it on that base"):
            reward_on(policy, reward_dir)

    def test_an_adapter_without_a_head(self, wide_model_dir: Path, tmp_path: Path) -> None:
        policy = policy_roles(wide_model_dir, lora=LORA).policy
        assert policy is not None and policy.adapters is not None
        policy.adapters.save("policy", tmp_path / "policy")
        with pytest.raises(ConfigError, match="this adapter has no score head, so it is no reward model"):
            reward_on(policy, tmp_path / "policy")


class TestRecomputing:
    def test_policy_and_value_compute_their_layers_again(self, wide_model_dir: Path) -> None:
        """A value adapter's pass comes between the policy's and its backward pass; gradients are those without."""
        gradients = []
        for again in (False, True):
            roles = policy_roles(wide_model_dir, lora=LORA, value="adapter", seed=2)
            if again:
                roles = roles.recomputing()
            assert roles.policy is not None and roles.value is not None
            for name, weight in roles.weights().items():
                weight.data.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
            outputs = policy_outputs(roles.policy, PROMPTS, COMPLETIONS, value=roles.value)
            assert outputs.logprobs is not None and outputs.values is not None
            (outputs.logprobs.sum() + outputs.values.square().sum()).backward()
            gradients.append([weight.grad for weight in roles.weights().values()])
        for one, other in zip(*gradients, strict=True):
            assert one is not None and torch.equal(one, other)

    def test_other_models_are_refused(self, tmp_path: Path) -> None:
        config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_labels=1)
        BertForSequenceClassification(config).save_pretrained(tmp_path)
        with pytest.raises(ConfigError, match=r"recompute_layers: only for Llama.* is a bert; lower tokens_per_micro"):
            reward_roles(tmp_path).recomputing()
