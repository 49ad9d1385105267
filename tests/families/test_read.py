"""Every family is loaded, sampled and scored: the numbers of transformers' own plain pass over each row alone.

Prompts and answers are longer and shorter than the windows (5 tokens), rows of every length stand in one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from tests.families.families import DECODERS, ENCODERS, POLICIES, widen
from tuneful.engines.local import LocalEngine
from tuneful.errors import GenerationError, ModelError
from tuneful.generation import decoding
from tuneful.generation.decoding import DecoderDecoding, why_waves
from tuneful.generation.sampling import Sampling
from tuneful.models.loading import load_language_model, load_scorer, load_tokenizer, save_model
from tuneful.models.roles import Role, Roles
from tuneful.records import Completion, Prompt
from tuneful.rewards.learned import LearnedReward

PROMPTS = [
    Prompt("hello"),
    Prompt("how do i cook bread today"),
    Prompt("the dog is on the door and the sun is hot now so please shut"),
    Prompt("stop the rain"),
    Prompt("why"),
]
ENDS = {"eos_token_id": 2, "pad_token_id": 0}
SAMPLING = Sampling(num_samples=3, max_new_tokens=24)
ANSWERS = [
    Completion("yes please", finish="eos"),
    Completion("no"),
    Completion("the door is hot now so shut the door and sleep well", finish="eos"),
    Completion("good", finish="length"),
    Completion("good dog thank you", finish="eos"),
]


@pytest.fixture
def engine(folder_of: Callable[[str], Path], name: str) -> LocalEngine:
    model = load_language_model(folder_of(name))
    return LocalEngine(Roles(policy=Role("policy", model)), load_tokenizer(folder_of(name)))


def theirs_of(engine: LocalEngine) -> Any:
    """The same model as transformers loads it."""
    assert engine.roles.policy is not None
    kind: Any = AutoModelForSeq2SeqLM if engine.roles.policy.model.config.is_encoder_decoder else AutoModelForCausalLM
    return kind.from_pretrained(engine.roles.policy.model.name_or_path)


@torch.no_grad()
def plain_logprobs(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    """Of one row, without padding and without a cache."""
    if model.config.is_encoder_decoder:
        ids = torch.tensor([[*prompt, model.config.eos_token_id]])
        logits = model(input_ids=ids, labels=torch.tensor([completion])).logits[0]
    else:
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    logprobs: Tensor = logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None]).squeeze(-1)
    return logprobs


@pytest.mark.parametrize("name", POLICIES)
def test_sampled_logprobs_are_those_of_a_plain_pass(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows at once, and with room for four, so that rows leave and, where they can, enter."""
    theirs = theirs_of(engine)
    together = engine.sample(PROMPTS, SAMPLING, seed=1)
    assert len(set(together.mask.sum(-1).tolist())) > 1
    monkeypatch.setattr(decoding, "MAX_ROWS", 4)
    parted = engine.sample(PROMPTS, SAMPLING, seed=1)
    assert parted.completions == together.completions
    for rollout in (together, parted):
        for k, completion in enumerate(rollout.completions):
            expected = plain_logprobs(theirs, rollout.prompts[k], completion)
            assert_close(rollout.logprobs[k, : len(completion)], expected, atol=1e-5, rtol=0)
    assert_close(engine.score("policy", together), together.logprobs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", POLICIES)
def test_greedy_answers_are_those_of_generate(engine: LocalEngine) -> None:
    theirs = theirs_of(engine)
    rollout = engine.sample(PROMPTS, Sampling(max_new_tokens=16, temperature=0), seed=0)
    for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True):
        ids = torch.tensor([[*prompt, 2] if theirs.config.is_encoder_decoder else prompt])
        mask = torch.ones_like(ids)
        said = theirs.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=16, use_cache=False, **ENDS)[0]
        assert completion == said[1 if theirs.config.is_encoder_decoder else len(prompt) :].tolist()


@pytest.mark.parametrize("name", [*POLICIES, *ENCODERS])
def test_scores_are_those_of_a_plain_pass(name: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """Together, alone, and padded on either side: the classifier's own score of the row by itself."""
    folder = folder_of(name)
    widen(load_scorer(folder)).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(folder, needs_end=name in DECODERS)
    tokenizer.save_pretrained(tmp_path)
    reward = LearnedReward.load(tmp_path)
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        first, second = reward.encode(prompt, answer)
        types = torch.tensor([[0] * len(first) + [1] * len(second)])
        given = {"input_ids": torch.tensor([first + second])} | ({"token_type_ids": types} if name == "BERT" else {})
        with torch.no_grad():
            expected.append(theirs(**given).logits[0])
    scores = torch.cat(expected)
    assert scores.std() > 0.05
    for changed in (reward, replace(reward, padding="left"), replace(reward, tokens_per_batch=1)):
        assert_close(changed(PROMPTS, ANSWERS), scores, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["T5", "BART", "RoBERTa"])
def test_an_end_token_spelled_in_a_text_is_text(name: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """T5's and BART's want as many end tokens in each row; here they stand behind prompt and answer alone."""
    load_scorer(folder_of(name)).save_pretrained(tmp_path)
    load_tokenizer(folder_of(name)).save_pretrained(tmp_path)
    reward = LearnedReward.load(tmp_path)
    end = reward.tokenizer.eos_token
    prompts, answers = [Prompt(f"say {end}"), Prompt("hello")], [Completion(f"{end} {end}"), Completion("yes")]
    prompt, answer = reward.encode(prompts[0], answers[0])
    assert (prompt + answer).count(2) == 2
    assert reward(prompts, answers).isfinite().all()


def test_tokens_that_generate_would_force_are_drawn(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """BART's configs force <s> in the first place and </s> in the last; a policy, and what it is saved as, do not."""
    plain: Any = AutoModelForSeq2SeqLM.from_pretrained(folder_of("BART"))
    plain.generation_config.update(forced_bos_token_id=0, forced_eos_token_id=2)
    save_model(plain, load_tokenizer(folder_of("BART")), tmp_path / "forced")
    ids, limits = torch.tensor([[0, 40, 41, 2]]), {"max_new_tokens": 4, "do_sample": False}
    forced = plain.generate(ids, attention_mask=torch.ones_like(ids), **limits)[0].tolist()
    assert (forced[1], forced[-1]) == (0, 2)
    ours = load_language_model(tmp_path / "forced")
    save_model(ours, load_tokenizer(tmp_path / "forced"), tmp_path / "saved")
    again: Any = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "saved")
    said = again.generate(ids, attention_mask=torch.ones_like(ids), **limits)[0].tolist()
    with torch.no_grad():
        first = plain(input_ids=ids, decoder_input_ids=torch.tensor([[2]])).logits[0, -1].argmax()
    assert said[1] == first != 0


@pytest.mark.parametrize(("prompt", "answer"), [(5, 128), (126, 8)])
def test_encoder_and_decoder_have_a_context_each(prompt: int, answer: int, folder_of: Callable[[str], Path]) -> None:
    """128 positions: <s>, the letters and </s> in the encoder, the answer in the decoder."""
    model, tokenizer = load_language_model(folder_of("BART")), load_tokenizer(folder_of("BART"))
    model.final_logits_bias[0, 2] = -1e4  # the end is never said
    engine = LocalEngine(Roles(policy=Role("policy", model)), tokenizer)
    rollout = engine.sample([Prompt("a" * prompt)], Sampling(max_new_tokens=answer), seed=0)
    assert engine.score("policy", rollout).isfinite().all()
    for longer, limit in ((127, 8), (5, 129)):
        with pytest.raises(GenerationError, match="the model's context is 128"):
            engine.sample([Prompt("a" * longer)], Sampling(max_new_tokens=limit), seed=0)


def test_an_engine_looks_at_what_its_model_keeps_once(folder_of: Callable[[str], Path]) -> None:
    """By one token before the first sample, and by none before the second."""
    model, looked = load_language_model(folder_of("GPT-2")), []

    def watch(_: Any, __: Any, given: dict[str, Any]) -> None:
        if given.get("input_ids") is not None and given["input_ids"].shape == (1, 1):
            looked.append(given.get("past_key_values") is None)

    model.base_model.register_forward_pre_hook(watch, with_kwargs=True)
    engine = LocalEngine(Roles(policy=Role("policy", model)), load_tokenizer(folder_of("GPT-2")))
    for seed in range(2):
        engine.sample([Prompt("abc")], Sampling(max_new_tokens=2), seed=seed)
    assert looked.count(True) == 1


def test_a_family_that_cannot_place_a_late_row_goes_in_waves(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Gemma that counts positions from the beginning of the cache, as a model does that takes none for each row."""
    role = Role("policy", load_language_model(folder_of("Gemma")))
    assert why_waves(role) is None
    states = DecoderDecoding._states

    def counted(self: Any, ids: Tensor, attended: Tensor, positions: Tensor, cache: Any) -> Tensor:
        width = attended.shape[1]
        return states(self, ids, attended, torch.arange(width - ids.shape[1], width).expand_as(ids), cache)

    monkeypatch.setattr(DecoderDecoding, "_states", counted)
    assert why_waves(role) == "a gemma that begins beside others computes something else"
    with pytest.raises(ModelError, match='a "gpt2" computes something else for a prompt beside a longer one, so it'):
        why_waves(Role("policy", load_language_model(folder_of("GPT-2"))))  # whose positions are not relative
    admitted: list[int] = []
    admit = DecoderDecoding.admit
    monkeypatch.setattr(decoding, "MAX_ROWS", 2)
    monkeypatch.setattr(
        DecoderDecoding,
        "admit",
        lambda self, *given: admitted.append(0 if self.cache is None else len(self.position)) or admit(self, *given),
    )
    engine = LocalEngine(Roles(policy=role), load_tokenizer(folder_of("Gemma")))
    assert engine.waves is not None
    admitted.clear()
    engine.sample(PROMPTS, Sampling(max_new_tokens=12), seed=0)
    assert not any(admitted)
    assert len(admitted) == 3
