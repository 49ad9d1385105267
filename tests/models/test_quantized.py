"""A base in 4 bits: its numbers, what stays in higher precision, and that adapters on it are saved and merged right."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tuneful.errors import ConfigError, ModelError
from tuneful.models.adapters import LoRA
from tuneful.models.forward import policy_outputs, reward_scores, value_outputs
from tuneful.models.loading import load_language_model, load_scorer, load_tokenizer, scalar_head
from tuneful.models.roles import Role, Roles, policy_roles, reward_on, reward_roles

pytest.importorskip("bitsandbytes", reason='"nf4" needs bitsandbytes')

LORA = LoRA(rank=4)
PROMPTS = [[1, 7, 9, 30], [1, 5]]
COMPLETIONS = [[8, 2], [20, 21, 22, 2]]
IDS = torch.tensor([[1, 7, 9, 30, 12]])

# QLoRA (arXiv 2305.14314), appendix E: the 16 values of NF4, to four places.
NF4 = (
    *(-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0),
    *(0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0),
)


def logprobs(role: Role | None) -> Tensor:
    assert role is not None
    found = policy_outputs(role, PROMPTS, COMPLETIONS).logprobs
    assert found is not None
    return found


def train(roles: Roles, steps: int = 8) -> None:
    optimizer = torch.optim.AdamW(roles.weights().values(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        (-logprobs(roles.policy).mean()).backward()
        optimizer.step()


def trained(path: Path) -> Roles:
    """A policy on a base in NF4, far from its base."""
    roles = policy_roles(path, lora=LORA, dtype="nf4")
    train(roles)
    return roles


def save(role: Role | None, path: Path, like: Path) -> Path:
    assert role is not None and role.adapters is not None
    role.adapters.save(role.name, path)
    load_tokenizer(like).save_pretrained(path)
    return path


def test_the_sixteen_values(wide_model_dir: Path, tmp_path: Path) -> None:
    """Weights that are values of NF4 already come through as they are, to bfloat16's three digits; others do not."""
    plain: Any = AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32)
    weight = plain.model.layers[0].mlp.up_proj.weight
    # Each block of 64 weights holds all values, so its largest is 1.
    weight.data = torch.tensor(NF4).repeat(weight.numel() // 16).reshape(weight.shape)
    plain.save_pretrained(tmp_path)
    held = load_language_model(tmp_path, dtype="nf4").model.layers[0].mlp
    states = torch.randn(3, 32).bfloat16()
    assert_close(held.up_proj(states).float(), states.float() @ weight.data.T, atol=0.05, rtol=0.02)
    other = plain.model.layers[0].mlp.gate_proj.weight.data
    assert (held.gate_proj(states).float() - states.float() @ other.T).abs().max() > 0.1


def test_the_trunks_linear_layers_take_half_a_byte_and_the_rest_is_bfloat16(wide_model_dir: Path) -> None:
    plain: Any = AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32)
    model = load_language_model(wide_model_dir, dtype="nf4")
    linear = {f"{n}.weight" for n, m in plain.model.named_modules(prefix="model") if isinstance(m, nn.Linear)}
    assert len(linear) == 2 * 7
    for name, weight in model.named_parameters():
        assert not weight.requires_grad or name not in linear
        expected = plain.get_parameter(name).numel()
        if name in linear:
            assert (weight.dtype, weight.numel()) == (torch.uint8, expected // 2)
        else:
            assert (weight.dtype, weight.numel()) == (torch.bfloat16, expected)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_classifiers_head_is_not_quantized(wide_model_dir: Path) -> None:
    model = load_scorer(wide_model_dir, seed=3, dtype="nf4")
    expected = scalar_head(load_scorer(wide_model_dir, seed=3)).weight
    assert_close(scalar_head(model).weight.float(), expected, atol=1e-3, rtol=0.01)


def test_policy_and_reference_are_equal_at_the_start_and_the_base_stays(wide_model_dir: Path) -> None:
    roles = policy_roles(wide_model_dir, lora=LORA, dtype="nf4", value="adapter")
    before = logprobs(roles.reference).detach()
    assert torch.equal(logprobs(roles.policy).detach(), before)
    assert before.dtype == torch.float32
    train(roles)
    assert (logprobs(roles.policy) - before).abs().max() > 0.1
    assert torch.equal(logprobs(roles.reference), before)


def test_the_gradient_passes_through_layers_that_were_sampled_from(wide_model_dir: Path) -> None:
    """A pass without gradients must not change what a pass with them computes: the adapters of the first layer get the
    gradient that finite differences say."""
    roles = policy_roles(wide_model_dir, lora=LORA, dtype="nf4")
    train(roles, steps=2)
    with torch.no_grad():
        logprobs(roles.policy)
    name, weight = next((n, w) for n, w in roles.weights().items() if "layers.0" in n and "down_proj.lora_B" in n)
    weight.grad = None
    logprobs(roles.policy).sum().backward()
    assert weight.grad is not None
    gradient, step = weight.grad.clone(), 0.05

    def moved(by: float) -> float:
        with torch.no_grad():
            weight.add_(by * gradient / gradient.norm())
            found = float(logprobs(roles.policy).sum())
            weight.sub_(by * gradient / gradient.norm())
        return found

    slope = (moved(step) - moved(-step)) / (2 * step)
    assert slope == pytest.approx(float(gradient.norm()), rel=0.1), name


def test_an_adapter_comes_back_exactly_and_brings_no_base(wide_model_dir: Path, tmp_path: Path) -> None:
    """Sampling, training and saving in that order: bitsandbytes writes weights repacked for the CPU after a pass
    without gradients, which reload wrong. Only the adapter is ever written, and the base is read from its own place."""
    roles = policy_roles(wide_model_dir, lora=LORA, dtype="nf4")
    with torch.no_grad():
        logprobs(roles.policy)
    train(roles)
    expected = logprobs(roles.policy).detach()
    saved = save(roles.policy, tmp_path / "adapter", wide_model_dir)
    assert [file.name for file in saved.glob("*.safetensors")] == ["adapter_model.safetensors"]
    weights = sum(w.numel() * w.element_size() for w in roles.weights().values())
    assert (saved / "adapter_model.safetensors").stat().st_size == pytest.approx(weights, rel=0.2)
    again = policy_roles(wide_model_dir, lora=LORA, dtype="nf4")
    assert again.policy is not None and again.policy.adapters is not None
    again.policy.adapters.load("again", saved)
    assert torch.equal(logprobs(Role("again", again.policy.model, again.policy.adapters, ("again",))), expected)


def test_it_is_never_repacked(wide_model_dir: Path) -> None:
    model = load_language_model(wide_model_dir, dtype="nf4")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        model(IDS)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_an_adapter_trained_in_4_bits_is_merged_into_the_float_base(wide_model_dir: Path, tmp_path: Path) -> None:
    """By hand: each weight of the float checkpoint plus alpha / rank * B A."""
    roles = trained(wide_model_dir)
    assert roles.policy is not None
    weights = roles.policy.weights
    plain: Any = AutoModelForCausalLM.from_pretrained(wide_model_dir, dtype=torch.float32)
    bare = copy.deepcopy(plain)(IDS).logits
    for name, module in plain.named_modules():
        a, b = (weights.get(f"{name}.lora_{side}.policy.weight") for side in "AB")
        if a is not None and b is not None:
            module.weight.data += LORA.alpha / LORA.rank * b.data @ a.data
    saved = save(roles.policy, tmp_path / "adapter", wide_model_dir)
    merged = load_language_model(saved)
    assert_close(merged(IDS).logits, plain(IDS).logits, atol=1e-4, rtol=1e-4)
    assert (merged(IDS).logits - bare).abs().max() > 0.5


def test_a_small_update_survives_going_into_4_bits(wide_model_dir: Path, tmp_path: Path) -> None:
    """Merged into weights that are in 4 bits, an update of a hundredth of a step would round away to nothing; merged
    before, it is kept on average: the mean of what 64 x 32 weights moved by is what they were to move by."""
    roles = policy_roles(wide_model_dir, lora=LoRA(rank=1, alpha=1), dtype="nf4")
    assert roles.policy is not None
    for name, weight in roles.policy.weights.items():
        weight.data.fill_(0.005 if "lora_A" in name else 1.0)  # every weight moves by .005; a step is about .08
    merged = load_language_model(save(roles.policy, tmp_path / "adapter", wide_model_dir), dtype="nf4")
    bare = load_language_model(wide_model_dir, dtype="nf4")
    one = torch.eye(32).bfloat16()
    moves = [
        new.mlp.up_proj(one).float() - old.mlp.up_proj(one).float()
        for new, old in zip(merged.model.layers, bare.model.layers, strict=True)
    ]
    assert float(torch.stack(moves).mean()) == pytest.approx(0.005, rel=0.4)


class TestOnOneBase:
    @pytest.fixture
    def reward_dir(self, wide_model_dir: Path, tmp_path: Path) -> Path:
        """A reward adapter with a head, trained on a base in NF4."""
        roles = reward_roles(wide_model_dir, lora=LORA, dtype="nf4", seed=3)
        reward = roles.reward
        assert reward is not None
        optimizer = torch.optim.AdamW(roles.weights().values(), lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            scores = reward_scores(reward, PROMPTS, COMPLETIONS)
            (scores[1] - scores[0]).backward()
            optimizer.step()
        self.expected = reward_scores(reward, PROMPTS, COMPLETIONS).detach()
        return save(reward, tmp_path / "reward", wide_model_dir)

    def test_a_reward_scores_on_the_policys_base_as_on_its_own(self, wide_model_dir: Path, reward_dir: Path) -> None:
        roles = policy_roles(wide_model_dir, lora=LORA, dtype="nf4")
        assert roles.policy is not None
        shared = reward_on(roles.policy, reward_dir)
        assert shared.head is not None
        assert shared.head.weight.dtype == torch.float32
        assert torch.equal(reward_scores(shared, PROMPTS, COMPLETIONS), self.expected)
        assert torch.equal(logprobs(roles.policy), logprobs(roles.reference))

    def test_values_start_from_it(self, wide_model_dir: Path, reward_dir: Path) -> None:
        """The value of the last state is the score of the row without its last token."""
        roles = policy_roles(wide_model_dir, lora=LORA, dtype="nf4", value="adapter", value_from=reward_dir)
        assert roles.value is not None and roles.policy is not None
        shared = reward_on(roles.policy, reward_dir)
        values = value_outputs(roles.value, PROMPTS, COMPLETIONS).values
        assert values is not None
        shorter = [completion[:-1] for completion in COMPLETIONS]
        last = torch.stack([values[0, 1], values[1, 3]])
        assert_close(last, reward_scores(shared, PROMPTS, shorter), atol=0.05, rtol=0.05)


def test_it_needs_adapters(wide_model_dir: Path) -> None:
    for build in (policy_roles, reward_roles):
        with pytest.raises(ConfigError, match='base_dtype = "nf4" needs lora'):
            build(wide_model_dir, dtype="nf4")


def test_a_missing_package_is_one_line_with_the_command(wide_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", None)
    with pytest.raises(ModelError) as error:
        load_language_model(wide_model_dir, dtype="nf4")
    assert str(error.value) == '"nf4" needs the package bitsandbytes; pip install bitsandbytes'


def test_a_model_without_linear_layers(tmp_path: Path) -> None:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=4, n_positions=64, vocab_size=40)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"GPT2LMHeadModel has no linear layers to hold in NF4; use \"bfloat16\""):
        load_language_model(tmp_path, dtype="nf4")
