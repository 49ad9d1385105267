"""Encoder-decoders as policies: the numbers of transformers' own passes, sampling, adapters, checks before PPO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    AutoModelForSeq2SeqLM,
    MBartConfig,
    MBartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from tuneful.algorithms.ppo import PPOConfig
from tuneful.algorithms.start_up import check_start
from tuneful.data.templates import prompt_ids
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.errors import ModelError
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.forward import policy_outputs, value_outputs
from tuneful.models.loading import load_language_model, load_scorer, load_tokenizer, save_model
from tuneful.models.roles import Role, policy_roles
from tuneful.pipeline.export import export
from tuneful.records import Completion, Prompt

PROMPTS = [[7, 9, 30], [5], [40, 41, 42, 43, 44]]
COMPLETIONS = [[8, 2], [20, 21, 22, 2], [9]]
ASKED = [Prompt("hello"), Prompt("how do i cook bread today"), Prompt("why"), Prompt("stop the rain now")]

# The first T5 and T5 1.1, which FLAN-T5 is: another feed-forward part, and logits that are not scaled.
FORMS: dict[str, dict[str, Any]] = {
    "t5": {},
    "flan": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


@pytest.fixture(params=FORMS)
def t5_dir(request: pytest.FixtureRequest, tiny_tokenizer: Any, tmp_path: Path) -> Path:
    """A T5 of random weights drawn wide (width 32, 2 + 3 layers) with the tiny tokenizer, end token 2, no template."""
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
    ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    torch.manual_seed(5)
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tiny_tokenizer), **shape, **ids, **FORMS[request.param]))  # type: ignore[arg-type]
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "relative" not in name:
            weight.data.normal_(std=0.1 if "shared" in name and "flan" in request.param else 0.3)
    tiny_tokenizer.bos_token = None
    tiny_tokenizer.chat_template = None
    save_model(model, tiny_tokenizer, tmp_path / "t5")
    return tmp_path / "t5"


def logprobs(role: Role | None, **settings: Any) -> Tensor:
    assert role is not None
    found = policy_outputs(role, PROMPTS, COMPLETIONS, **settings).logprobs
    assert found is not None
    return found


def test_log_probabilities_are_those_of_transformers(t5_dir: Path) -> None:
    """Row by row, without padding, through its own forward pass with labels."""
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(t5_dir)
    found = logprobs(Role("policy", load_language_model(t5_dir)))
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        labels = torch.tensor([completion])
        logits = model(input_ids=torch.tensor([[*prompt, 2]]), labels=labels).logits
        expected = logits.log_softmax(-1).gather(-1, labels[..., None])[0, :, 0]
        assert_close(found[row, : len(completion)], expected, atol=1e-5, rtol=1e-5)
        assert not found[row, len(completion) :].any()


def test_greedy_answers_are_those_of_generate(t5_dir: Path) -> None:
    """Prompts of different lengths together, against generate on each alone."""
    tokenizer = load_tokenizer(t5_dir)
    engine = LocalEngine(policy_roles(t5_dir), tokenizer)
    rollout = engine.sample(ASKED, Sampling(max_new_tokens=12, temperature=0), seed=0)
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(t5_dir)
    for prompt, completion in zip(ASKED, rollout.completions, strict=True):
        ids = torch.tensor([[*prompt_ids(prompt, tokenizer, max_tokens=None), 2]])
        expected = model.generate(ids, max_new_tokens=12, do_sample=False, use_cache=False)[0, 1:].tolist()
        assert completion == expected


def test_what_was_sampled_scores_the_same_in_training(t5_dir: Path) -> None:
    """Rows end at different steps and leave the cache; values come out of the decode pass."""
    roles = policy_roles(t5_dir, lora=LoRA(rank=4), value="head")
    assert roles.value is not None and roles.value.head is not None
    roles.value.head.weight.data.normal_()
    engine = LocalEngine(roles, load_tokenizer(t5_dir))
    rollout = engine.sample(ASKED, Sampling(num_samples=5, max_new_tokens=30), seed=1, values=True)
    assert len(set(rollout.mask.sum(-1).tolist())) > 1
    assert_close(engine.score("policy", rollout), rollout.logprobs, atol=1e-5, rtol=1e-5)
    assert rollout.values is not None
    expected = value_outputs(roles.value, rollout.prompts, rollout.completions, width=rollout.mask.shape[1]).values
    assert_close(rollout.values, expected, atol=1e-4, rtol=1e-4)
    kl, _ = engine.kl(rollout)
    assert not kl.any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "nf4"])
def test_an_adapter_learns_and_comes_back(dtype: Any, t5_dir: Path, tmp_path: Path) -> None:
    if dtype == "nf4":
        pytest.importorskip("bitsandbytes", reason='"nf4" needs bitsandbytes')
    roles = policy_roles(t5_dir, lora=LoRA(rank=4), dtype=dtype)
    assert roles.policy is not None and roles.policy.adapters is not None
    before = logprobs(roles.reference).detach()
    assert torch.equal(logprobs(roles.policy), before)
    optimizer = torch.optim.AdamW(roles.weights().values(), lr=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        (-logprobs(roles.policy).sum()).backward()
        optimizer.step()
    assert all(weight.grad is not None and weight.grad.any() for weight in roles.weights().values())
    after = logprobs(roles.policy).detach()
    assert after.sum() > before.sum() + 5
    assert torch.equal(logprobs(roles.reference), before)
    if dtype != "float32":
        return
    roles.policy.adapters.save("policy", tmp_path / "adapter")
    load_tokenizer(t5_dir).save_pretrained(tmp_path / "adapter")
    assert_close(logprobs(Role("merged", load_language_model(tmp_path / "adapter"))), after, atol=1e-4, rtol=1e-4)
    theirs: Any = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained(t5_dir), str(tmp_path / "adapter"))
    assert_close(logprobs(Role("theirs", theirs.merge_and_unload())), after, atol=1e-4, rtol=1e-4)
    export(tmp_path / "adapter", tmp_path / "exported", merge=True)
    exported: Any = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "exported")
    assert_close(logprobs(Role("exported", exported)), after, atol=1e-4, rtol=1e-4)


def test_conversations_are_written_without_roles(t5_dir: Path) -> None:
    tokenizer = load_tokenizer(t5_dir)
    assert prompt_ids(Prompt.user("hello"), tokenizer, max_tokens=None) == prompt_ids(
        Prompt("hello"), tokenizer, max_tokens=None
    )


@pytest.mark.parametrize("shape", [{"value": "head"}, {"value": "adapter", "lora": LoRA(rank=4)}])
def test_the_start_up_checks_pass(shape: Any, t5_dir: Path) -> None:
    roles = policy_roles(t5_dir, **shape)
    engine = LocalEngine(roles, load_tokenizer(t5_dir), optimization=Optimization())

    def reward(_: Any, completions: list[Completion]) -> Tensor:
        return torch.tensor([float(len(c.text)) for c in completions])

    config = PPOConfig(max_new_tokens=8)
    assert all(finding.passed or finding.warning for finding in check_start(engine, ASKED, reward, config, seed=0))


def test_it_is_no_reward_model(t5_dir: Path) -> None:
    with pytest.raises(ModelError, match='"t5" cannot become a reward model'):
        load_scorer(t5_dir)


def test_a_family_that_was_not_tried_is_refused(tmp_path: Path) -> None:
    shape = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    MBartForConditionalGeneration(MBartConfig(vocab_size=20, **shape, **heads)).save_pretrained(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match='"mbart" are not supported; these are: t5, bart'):
        load_language_model(tmp_path)
