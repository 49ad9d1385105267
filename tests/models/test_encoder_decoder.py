"""Encoder-decoders as policies and reward models: the numbers of transformers' own passes, sampling, adapters."""

from __future__ import annotations

from dataclasses import replace
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
    T5ForSequenceClassification,
    T5Tokenizer,
)

from tuneful.algorithms.ppo import PPOConfig
from tuneful.algorithms.start_up import check_start, reward_invariance
from tuneful.data.templates import prompt_ids
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.errors import ConfigError, ModelError
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import AdapterSet, LoRA
from tuneful.models.forward import attend_eagerly, plain_logits, policy_outputs, value_outputs
from tuneful.models.loading import load_language_model, load_scorer, load_tokenizer, save_model
from tuneful.models.roles import Role, own_weights, policy_roles
from tuneful.pipeline.export import export
from tuneful.records import Completion, Prompt
from tuneful.rewards.classifier import Classifier, ClassifierReward
from tuneful.rewards.learned import LearnedReward

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


def test_gradients_have_gradients_once_all_its_parts_attend_eagerly(t5_dir: Path) -> None:
    """Of the encoder, of the decoder, and of what lies between; fused attention says that it has none."""
    policy = policy_roles(t5_dir, lora=LoRA(rank=4)).policy
    assert policy is not None
    weights = list(own_weights(policy).values())

    def twice() -> tuple[Tensor, ...]:
        slope = torch.autograd.grad(plain_logits(policy, PROMPTS, COMPLETIONS).exp().sum(), weights, create_graph=True)
        return torch.autograd.grad(torch.stack([(part**2).sum() for part in slope]).sum(), weights)

    with pytest.raises(RuntimeError, match="scaled_dot_product"):
        twice()
    attend_eagerly(policy.model)
    assert any(part.any() for part in twice())


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


def test_a_reward_model_starts_from_all_of_the_language_model(t5_dir: Path, tmp_path: Path) -> None:
    """From an adapter too, whose weights have other names in T5's classifier than in its language model."""
    adapters = AdapterSet(load_language_model(t5_dir))
    adapters.add("policy", LoRA(rank=4))
    for weight in adapters.named_parameters("policy").values():
        weight.data.normal_(std=0.1)
    adapters.save("policy", tmp_path / "adapter")
    for start in (t5_dir, tmp_path / "adapter"):
        expected = load_language_model(start).state_dict()
        found = load_scorer(start).transformer.state_dict()
        assert found.keys() == expected.keys() - {"lm_head.weight"}
        assert all(torch.equal(weight, expected[name]) for name, weight in found.items())


class TestReward:
    """A T5 classifier under a tokenizer of T5's own class, of letters: its end token is a piece of its vocabulary."""

    PROMPTS = (Prompt("hello"), Prompt("how do i cook bread"), Prompt.user("why"))
    ANSWERS = (Completion("no", finish="eos"), Completion("yes"), Completion("please cook the hottest dog"))

    @pytest.fixture
    def own(self) -> Any:
        letters = [(chr(code), -3.0) for code in range(97, 123)]
        special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
        return T5Tokenizer(vocab=special + letters, extra_ids=0)

    @pytest.fixture
    def scorer_dir(self, t5_dir: Path, own: Any, tmp_path: Path) -> Path:
        return self.saved(load_scorer(t5_dir), own, tmp_path / "scorer")

    def saved(self, model: Any, own: Any, folder: Path) -> Path:
        """The model under this tokenizer, which knows fewer tokens than it; its head is drawn wide."""
        model.config.eos_token_id = own.eos_token_id
        model.classification_head.out_proj.weight.data.normal_(std=0.2)
        save_model(model, own, folder)
        return folder

    def test_it_reads_what_its_tokenizer_makes_of_two_texts(self, scorer_dir: Path, own: Any) -> None:
        theirs: Any = T5ForSequenceClassification.from_pretrained(scorer_dir).eval()
        expected = []
        for prompt, answer in zip(self.PROMPTS, self.ANSWERS, strict=True):
            pair = own(prompt.text, answer.text, return_tensors="pt")
            assert pair["input_ids"][0].tolist().count(1) == 2
            expected.append(theirs(**pair).logits[0, 0].detach())
        reward = LearnedReward.load(scorer_dir)
        assert torch.stack(expected).std() > 0.01
        for changed in (reward, replace(reward, padding="left"), replace(reward, tokens_per_batch=1)):
            assert_close(changed(self.PROMPTS, self.ANSWERS), torch.stack(expected), atol=2e-5, rtol=0)

    def test_an_end_token_that_cannot_be_spelled_is_left_out(self, scorer_dir: Path, own: Any) -> None:
        """Read as the tokenizer reads it, it would be one end token more than other rows have."""
        assert own.encode("</s>", add_special_tokens=False, split_special_tokens=True) == [3, 1]
        reward = LearnedReward.load(scorer_dir)
        n, o = own.convert_tokens_to_ids(["n", "o"])
        assert reward.encode(Prompt("no </s>"), Completion("no</s>")) == ([3, n, o, 3, 1], [3, n, o, 1])
        prompts, answers = [Prompt("no </s>"), self.PROMPTS[1]], [Completion("no</s>"), self.ANSWERS[1]]
        assert reward_invariance(reward, prompts, answers).passed

    def test_long_prompts_lose_their_beginning(self, scorer_dir: Path, own: Any) -> None:
        reward = replace(LearnedReward.load(scorer_dir), max_tokens=8)
        words = own.convert_ids_to_tokens
        first, second = reward.encode(Prompt("cook bread"), Completion("no"))
        assert (words(first), words(second)) == (["e", "a", "d", "</s>"], ["▁", "n", "o", "</s>"])
        first, second = reward.encode(Prompt("cook"), Completion("bread dog"))
        assert (words(first), words(second)) == (["</s>"], ["▁", "b", "r", "e", "a", "d", "</s>"])
        with pytest.raises(ConfigError, match="room for at least 3 tokens, got max_tokens = 2"):
            replace(reward, max_tokens=2).encode(Prompt("cook"), Completion("no"))

    @pytest.mark.parametrize("with_prompt", [False, True])
    def test_a_classifier_of_labels(self, t5_dir: Path, own: Any, with_prompt: bool, tmp_path: Path) -> None:
        folder = self.saved(load_scorer(t5_dir, num_labels=2), own, tmp_path / "labels")
        given = Classifier(classifier=str(folder), label=1, with_prompt=with_prompt)
        reward = ClassifierReward.load(given, folder)
        theirs: Any = T5ForSequenceClassification.from_pretrained(folder).eval()
        pairs = [
            (p.text, c.text) if with_prompt else (c.text,) for p, c in zip(self.PROMPTS, self.ANSWERS, strict=True)
        ]
        expected = torch.stack([theirs(**own(*pair, return_tensors="pt")).logits[0, 1].detach() for pair in pairs])
        assert_close(reward(self.PROMPTS, self.ANSWERS), expected, atol=2e-5, rtol=0)
        spelled = [Completion("no</s>"), self.ANSWERS[1]]
        assert reward_invariance(reward, self.PROMPTS[:2], spelled).passed


def test_a_family_that_was_not_tried_is_refused(tmp_path: Path) -> None:
    shape = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    MBartForConditionalGeneration(MBartConfig(vocab_size=20, **shape, **heads)).save_pretrained(tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match='"mbart" are not supported; these are: t5, bart'):
        load_language_model(tmp_path)
