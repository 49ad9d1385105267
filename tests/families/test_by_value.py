"""What chooses tokens beside an encoder-decoder: action values, and NLPO's mask; what values are read off and what is
proposed. The truth is transformers' plain pass over each row alone, with the formula worked out on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from tests.algorithms.conftest import WatchedEngine
from tests.families.test_learners import NAMES, by_value, plain_pass, tuned
from tests.families.test_read import PROMPTS, theirs_of
from tests.pipeline.recipes import stage_toml
from tests.pipeline.test_learners import BY_VALUE, recipe
from tuneful.algorithms.nlpo import NLPO, NLPOConfig
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.data.templates import prompt_ids
from tuneful.engines.optimization import Optimization
from tuneful.generation import decoding
from tuneful.generation.guided import Guide
from tuneful.generation.sampler import Sampler
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.forward import policy_outputs, top_tokens
from tuneful.models.loading import load_language_model, load_tokenizer
from tuneful.models.q_heads import QHeads
from tuneful.models.roles import Role, policy_roles
from tuneful.pipeline.run import run_recipe
from tuneful.records import Completion, Prompt

EACH = pytest.mark.parametrize("name", NAMES)
SETTINGS: dict[str, Any] = {
    "num_steps": 4,
    "prompts_per_step": 4,
    "samples_per_prompt": 2,
    "max_new_tokens": 8,
    "epochs": 2,
    "kl_coef": 0.1,
}
END = 2
Build = Callable[[], WatchedEngine]


def variety(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """A reward: how many different tokens were said."""
    return tensor([float(len(set(c.tokens or ()))) for c in completions])


@pytest.fixture
def heads(name: str, folder_of: Callable[[str], Path]) -> QHeads:
    """Values of the size of logits, the copies that follow apart from them."""
    config = load_language_model(folder_of(name)).config
    made = QHeads(config.hidden_size, config.vocab_size)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.1)
        if name == "T5":  # which seldom says the end, so that answers are of different lengths
            for head in (*made.q, *made.target):
                head[2].bias[END] += 3.0
    return made


@EACH
@pytest.mark.parametrize("rows", [2, 256], ids=["in waves", "at once"])
@pytest.mark.parametrize("beside", [False, True], ids=["own proposals", "those of another"])
@torch.no_grad()
def test_what_a_guided_policy_draws_from(
    name: str,
    folder_of: Callable[[str], Path],
    heads: QHeads,
    beside: bool,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """base + 2 (Q - V) over the 40 likeliest tokens of the base, mixed with a share of 0.3 of the base there."""
    monkeypatch.setattr(decoding, "MAX_ROWS", rows)
    model, tokenizer = load_language_model(folder_of(name)), load_tokenizer(folder_of(name))
    other = load_language_model(folder_of(name))
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(0.8)
    base = Role("base", other) if beside else None
    guide = Guide(heads=heads, scale=2.0, top_k=40, base=base, target=beside)
    sampling = Sampling(num_samples=2, max_new_tokens=12)
    ids = [prompt_ids(prompt, tokenizer, max_tokens=None) for prompt in PROMPTS]
    hook = guide.choose(ids, sampling, epsilon=0.3)
    rollout = Sampler(Role("policy", model), tokenizer, waves=True).sample(PROMPTS, sampling, seed=1, choose=hook)
    assert len(set(rollout.mask.sum(-1).tolist())) > 1
    for row, completion in enumerate(rollout.completions):
        own, states = plain_pass(model, rollout.prompts[row], completion)
        proposed = plain_pass(other, rollout.prompts[row], completion)[0] if beside else own
        drawn = by_value(guide, proposed, states, epsilon=0.3)
        expected = drawn.gather(-1, tensor(completion)[:, None]).squeeze(-1)
        assert_close(rollout.sampled_logprobs[row, : len(completion)], expected, atol=1e-4, rtol=0)
        assert rollout.allowed is not None
        left = [row.isfinite().nonzero().squeeze(-1).tolist() for row in drawn]
        assert rollout.allowed[row] == left


@EACH
@torch.no_grad()
def test_what_values_are_read_off_and_what_is_proposed(name: str, folder_of: Callable[[str], Path]) -> None:
    """The decoder's last states, and the likeliest tokens there, of rows of different lengths."""
    policy = Role("policy", load_language_model(folder_of(name)))
    prompts, completions = [[5, 6, 7, 8], [9]], [[10, END], [11, 12, 13, 14]]
    passes = [plain_pass(policy.model, p, c) for p, c in zip(prompts, completions, strict=True)]
    outputs = policy_outputs(policy, prompts, completions, with_states=True)
    assert outputs.states is not None
    assert_close(outputs.states, torch.cat([states for _, states in passes]), atol=1e-5, rtol=1e-5)
    tokens, logprobs = top_tokens(policy, prompts, completions, 4)
    expected = torch.cat([logprobs for logprobs, _ in passes]).topk(4)
    assert torch.equal(tokens, expected.indices)
    assert_close(logprobs, expected.values, atol=1e-5, rtol=1e-5)
    every, _ = top_tokens(policy, prompts, completions, 10_000)
    assert every.shape[-1] == policy.model.config.vocab_size


@pytest.fixture(params=[None, LoRA(rank=2)], ids=["all weights", "adapters"])
def build(request: pytest.FixtureRequest, name: str, folder_of: Callable[[str], Path]) -> Build:
    def engine() -> WatchedEngine:
        roles = policy_roles(folder_of(name), value="head", lora=request.param)
        rate = Optimization(learning_rate=1e-2, schedule="constant")
        return WatchedEngine(roles, load_tokenizer(folder_of(name)), optimization=rate, tokens_per_microbatch=60)

    return engine


@EACH
def test_nlpo_with_the_whole_probability_is_ppo(build: Build) -> None:
    """Step by step, bit for bit."""
    masked = NLPO(build(), PROMPTS, variety, NLPOConfig(**SETTINGS, top_p=1.0))
    plain = PPO(build(), PROMPTS, variety, PPOConfig(**SETTINGS))
    for _ in range(2):
        told = masked.step()
        assert told.pop("allowed") == 0
        assert told == plain.step()
        assert masked.engine.weight_hash() == plain.engine.weight_hash()  # type: ignore[attr-defined]


@EACH
def test_nlpo_draws_from_the_nucleus_of_the_policy_as_it_was(build: Build) -> None:
    """In the second step the mask is the policy of the first; an update's ratios are 1 among what the mask left."""
    engine = build()
    learner = NLPO(engine, PROMPTS, variety, NLPOConfig(**SETTINGS, top_p=0.5, min_tokens=3, mask_every=5))
    learner.step()
    seen = len(engine.seen)
    rollout = learner.draw()
    learner.learn(rollout)
    _, first = engine.seen[seen]
    assert (first["clip_fraction"], first["approx_kl"] < 1e-9) == (0, True)
    assert rollout.allowed is not None
    theirs = theirs_of(engine)
    for row, completion in enumerate(rollout.completions):
        before, _ = plain_pass(theirs, rollout.prompts[row], completion)
        for t, token in enumerate(completion):
            probs, order = before[t].exp().sort(descending=True)
            count = max(3, 1 + int((probs.cumsum(-1) < 0.5).sum()))
            assert {*rollout.allowed[row][t]} == {*order[:count].tolist(), END}
            assert token in rollout.allowed[row][t]


@EACH
@pytest.mark.parametrize("learner", BY_VALUE)
def test_a_policy_that_speaks_by_value_is_judged(
    learner: str, name: str, folder_of: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    """Beside the model it started from, and by the best of several answers; the KL is of what was drawn from."""
    asked = {"prompts": data, "reward": "shorter", "max_new_tokens": 5, "limit": 3}
    stages = [
        tuned(learner, folder_of(name), data, lora=True),
        stage_toml("compare", do="evaluate", before=folder_of(name), after="@tune", num_samples=2, **asked),
        stage_toml("best", do="best_of_n", model="@tune", num_samples=4, **asked),
    ]
    run_recipe(recipe(tmp_path, *stages), tmp_path / "run")
    compared, best = (json.loads((tmp_path / "run" / one / "report.json").read_text()) for one in ("compare", "best"))
    assert (compared["win_rate"]["n"], compared["kl"]["estimator"]) == (3, "k1")
    assert compared["kl"]["mean"] > 0.01
    means = [point["measures"]["reward"]["mean"] for point in best["best_of_n"]]
    assert [point["n"] for point in best["best_of_n"]] == [1, 2, 4]
    assert means == sorted(means)
    kept = [json.loads(line) for line in (tmp_path / "run" / "best" / "completions.jsonl").read_text().splitlines()]
    assert [len(row["completions"]) for row in kept] == [1, 1, 1]


@torch.no_grad()
def test_no_row_begins_beside_a_base_that_cannot_have_it(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Gemma's rows enter as others leave; those of the T5 that proposes its tokens cannot: base + 4 for the end."""
    monkeypatch.setattr(decoding, "MAX_ROWS", 4)
    tokenizer = load_tokenizer(folder_of("Gemma"))
    model, base = (load_language_model(folder_of(name)) for name in ("Gemma", "T5"))
    heads = QHeads(model.config.hidden_size, size := model.config.vocab_size)
    for head in heads.q:
        head[2].bias[END] = 4.0
    guide = Guide(heads=heads, scale=1.0, top_k=size, base=Role("base", base))
    sampling = Sampling(num_samples=2, max_new_tokens=24)
    hook = guide.choose([prompt_ids(prompt, tokenizer, max_tokens=None) for prompt in PROMPTS], sampling)
    rollout = Sampler(Role("policy", model), tokenizer).sample(PROMPTS, sampling, seed=1, choose=hook)
    assert len(set(rollout.mask.sum(-1).tolist())) > 3
    for row, completion in enumerate(rollout.completions):
        logits, _ = plain_pass(base, rollout.prompts[row], completion)
        logits[:, END] += 4.0
        expected = logits.log_softmax(-1).gather(-1, tensor(completion)[:, None]).squeeze(-1)
        assert_close(rollout.sampled_logprobs[row, : len(completion)], expected, atol=1e-4, rtol=0)
