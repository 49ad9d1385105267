"""What sharding refuses, and what one process makes of it; what ranks that share layers compute is in test_ranks.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from tuneful.engines import sharding
from tuneful.engines.local import LocalEngine
from tuneful.engines.protocol import Batch
from tuneful.errors import CheckError, ConfigError
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import Roles, policy_roles, reward_roles


def test_other_models_are_refused_also_by_one_process(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"shard: only for Llama, Mistral and Qwen, but the reward .* is a bert"):
        sharding.shard(reward_roles(tmp_path))


def test_one_process_keeps_its_models_as_they_are(tiny_model_dir: Path) -> None:
    roles = policy_roles(tiny_model_dir)
    before = roles.weights()
    sharding.shard(roles)
    assert not sharding.is_sharded(roles)
    assert all(weight is before[name] for name, weight in roles.weights().items())
    assert roles.policy is not None
    assert sharding.full_weights(roles.policy.model) is None  # it is saved as it is


def test_clipping_is_that_of_torch_where_nothing_is_split() -> None:
    """Gradients 3 and 4 have the norm 5, so at a bound of 1 they become a fifth, but for torch's 1e-6."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    weights[0].grad, weights[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert sharding.clip_gradients(weights, 1.0) == 5.0
    assert [weight.grad for weight in weights[:2]] == [pytest.approx(0.6), pytest.approx(0.8)]


def test_parts_of_other_weights_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    def engine(roles: Roles) -> LocalEngine:
        return LocalEngine(roles, load_tokenizer(tiny_model_dir))

    written = engine(policy_roles(tiny_model_dir, lora=LoRA(rank=2)))
    sharding.save_parts(tmp_path / "parts", {"weights": dict(written.roles.weights()), "optimizer": {}})
    with pytest.raises(CheckError, match="holds other weights than this run trains; use the same recipe"):
        engine(policy_roles(tiny_model_dir)).load(tmp_path)


def test_without_ranks_every_pass_counts(tiny_model_dir: Path) -> None:
    engine = LocalEngine(policy_roles(tiny_model_dir), load_tokenizer(tiny_model_dir), tokens_per_microbatch=1)
    batch = Batch(role="policy", prompts=[[3], [4, 5]], completions=[[6], [7]])
    assert sorted(engine._passes(batch.prompts, batch.completions, None)) == [([0], True), ([1], True)]
