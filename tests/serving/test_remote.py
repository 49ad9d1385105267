"""The remote sampler and its engine against real servers: equal to this process, and clear about every fault."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.serving.process import Crowd, Served, call, relay, unspoiled
from tuneful.algorithms.ppo import PPO, PPOConfig
from tuneful.engines.local import LocalEngine
from tuneful.engines.optimization import Optimization
from tuneful.engines.remote import RemoteSampler
from tuneful.engines.remote_engine import RemoteEngine
from tuneful.errors import ConfigError, GenerationError
from tuneful.generation.sampling import Sampling
from tuneful.models.adapters import LoRA
from tuneful.models.loading import load_tokenizer
from tuneful.models.roles import policy_roles
from tuneful.records import Completion, Prompt

PROMPTS = [Prompt.user(text) for text in ("hello you", "fix the tap", "when can i sleep", "open the green door now")]
SAMPLING = Sampling(num_samples=3, max_new_tokens=9)
CONFIG = PPOConfig(
    num_steps=2,
    prompts_per_step=4,
    samples_per_prompt=2,
    max_new_tokens=9,
    epochs=2,
    optimization=Optimization(learning_rate=1e-2, schedule="constant"),
)
SETTINGS = {"optimization": CONFIG.optimization}


def variety(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> Tensor:
    """A reward: how many different tokens were said."""
    return torch.tensor([float(len(set(c.tokens or ()))) for c in completions])


def roles(base: Path) -> Any:
    return policy_roles(base, lora=LoRA(rank=2), value="head")


def engine(url: str, base: Path, folder: Path, **settings: Any) -> RemoteEngine:
    """Waits between requests are not slept."""
    settings.setdefault("sleep", lambda _: None)
    tokenizer = load_tokenizer(base)
    return RemoteEngine(roles(base), tokenizer, RemoteSampler(url, tokenizer, folder=folder, **settings), **SETTINGS)


def local(base: Path) -> LocalEngine:
    return LocalEngine(roles(base), load_tokenizer(base), **SETTINGS)


def moved(ours: LocalEngine) -> None:
    """Train a step, so that the adapter does something."""
    PPO(ours, PROMPTS, variety, CONFIG).step()


def refusal(ours: LocalEngine) -> str:
    with pytest.raises(GenerationError) as error:
        ours.sample(PROMPTS, SAMPLING, seed=5)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_rollout_is_that_of_this_process(served: Served, base_dir: Path, tmp_path: Path) -> None:
    ours, there = local(base_dir), engine(served.url, base_dir, tmp_path)
    for step in range(2):
        expected, found = (e.sample(PROMPTS, SAMPLING, seed=5 + step) for e in (ours, there))
        assert found.completions == expected.completions
        assert (found.prompts, found.texts, found.finish) == (expected.prompts, expected.texts, expected.finish)
        assert found.group.tolist() == expected.group.tolist()
        assert found.version.tolist() == expected.version.tolist() == [step] * 12
        assert_close(found.mask, expected.mask)
        assert_close(found.logprobs, expected.logprobs, atol=1e-5, rtol=0)
        assert there.trusted
        assert 0 <= found.engine_mismatch["engine_mismatch_mean"] <= found.engine_mismatch["engine_mismatch"] < 1e-4
        moved(ours)
        moved(there)


def test_ppo_through_the_server_ends_with_the_same_weights(served: Served, base_dir: Path, tmp_path: Path) -> None:
    ours, there = local(base_dir), engine(served.url, base_dir, tmp_path)
    start = {name: weight.detach().clone() for name, weight in ours.roles.weights().items()}
    for learner in (learners := [PPO(e, PROMPTS, variety, CONFIG) for e in (ours, there)]):
        metrics = [learner.step() for _ in range(2)]
    assert metrics[-1]["engine_mismatch"] < 1e-4
    assert [learner.engine.version for learner in learners] == [2, 2]  # type: ignore[attr-defined]
    for name, weight in ours.roles.weights().items():
        assert_close(there.roles.weights()[name], weight, atol=1e-4, rtol=0)
    assert max(float((w.detach() - start[n]).abs().max()) for n, w in ours.roles.weights().items()) > 1e-2
    assert [folder.name for folder in tmp_path.iterdir()] == ["version-2"]
    cards = call(served.url + "/v1/models")[1]["data"]
    assert [card["id"].startswith("policy-2-") for card in cards if card["parent"]] == [True]


def test_a_server_that_is_not_ready_is_asked_again(served: Served, base_dir: Path, tmp_path: Path) -> None:
    waits: list[float] = []
    with relay(served.url, unspoiled, refuse=[500, 503]) as url:
        there = engine(url, base_dir, tmp_path, concurrency=1, sleep=waits.append)
        found = there.sample(PROMPTS, SAMPLING, seed=5)
    assert found.completions == local(base_dir).sample(PROMPTS, SAMPLING, seed=5).completions
    assert waits == [0.5, 1.0]


def test_a_server_that_never_gets_ready(served: Served, base_dir: Path, tmp_path: Path) -> None:
    with relay(served.url, unspoiled, refuse=[500] * 50) as url:
        told = refusal(engine(url, base_dir, tmp_path, retries=2, concurrency=1))
    assert told.startswith(f"sampler {url} does not answer, asked 3 times for prompt 0: status 500")
    assert "not now" in told


def test_a_late_answer_is_asked_for_again(served: Served, base_dir: Path, tmp_path: Path) -> None:
    with relay(served.url, unspoiled, slow=[3.0]) as url:
        there = engine(url, base_dir, tmp_path, timeout=2.0, concurrency=1)
        found = there.sample(PROMPTS[:1], SAMPLING, seed=5)
    assert found.completions == local(base_dir).sample(PROMPTS[:1], SAMPLING, seed=5).completions


def test_a_server_that_is_always_late(served: Served, base_dir: Path, tmp_path: Path) -> None:
    with relay(served.url, unspoiled, slow=[3.0] * 3) as url:
        told = refusal(engine(url, base_dir, tmp_path, timeout=2.0, retries=1, concurrency=1))
    assert "does not answer, asked 2 times for prompt 0: ReadTimeout" in told


def spoil_choices(change: Any) -> Any:
    """What a relay does to each choice of a completion."""

    def spoil(path: str, status: int, answer: Any) -> tuple[int, Any]:
        for choice in answer.get("choices", ()):
            change(choice)
        return status, answer

    return spoil


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.pop("token_ids"), "without token_ids: reinforcement learning needs the token ids"),
        (lambda c: c.pop("logprobs"), "without logprobs: reinforcement learning needs the token ids"),
        (lambda c: c["token_ids"].append(7), r"gives \d+ log-probabilities of \d+ tokens"),
        (lambda c: c["prompt_token_ids"].pop(), "read other token ids in prompt 0 than were sent"),
        (lambda c: c.update(prompt_token_ids=None), "answers prompt 0 without prompt_token_ids: "),
        (lambda c: c.pop("prompt_token_ids"), "answers prompt 0 without prompt_token_ids: "),
        (lambda c: c.update(finish_reason="abort"), 'ended prompt 0 by "abort"'),
        (
            lambda c: c.update(finish_reason="stop", token_ids=[7], logprobs={"token_logprobs": [-1]}),
            "the end token out",
        ),
        (lambda c: c.pop("finish_reason"), "which is no completion"),
        (lambda c: c["logprobs"].update(token_logprobs=[None] * len(c["token_ids"])), "which is no completion"),
    ],
)
def test_an_answer_that_nothing_can_be_learned_from(
    served: Served, base_dir: Path, tmp_path: Path, change: Any, told: str
) -> None:
    with relay(served.url, spoil_choices(change)) as url, pytest.raises(GenerationError, match=told):
        engine(url, base_dir, tmp_path, concurrency=1).sample(PROMPTS, SAMPLING, seed=5)


def test_with_stop_strings_the_end_token_must_be_there_too(served: Served, base_dir: Path, tmp_path: Path) -> None:
    """A word and then the end, which a server leaves out: taken for a stop only where the word is the stop string."""
    tokenizer = load_tokenizer(base_dir)
    (tap,) = tokenizer.encode("tap", add_special_tokens=False)
    ended = {"finish_reason": "stop", "stop_reason": None, "token_ids": [tap], "logprobs": {"token_logprobs": [-1]}}
    with relay(served.url, spoil_choices(lambda c: c.update(ended))) as url:
        there = engine(url, base_dir, tmp_path)
        assert there.sample(PROMPTS, replace(SAMPLING, stop=("tap",)), seed=5).finish == ["stop"] * 12
        with pytest.raises(GenerationError, match="leaves the end token out"):
            there.sample(PROMPTS, replace(SAMPLING, stop=("door",)), seed=5)


def test_samples_of_another_version_are_refused(served: Served, base_dir: Path, tmp_path: Path) -> None:
    """The server says that it used the weights of an earlier step."""

    def stale(path: str, status: int, answer: Any) -> tuple[int, Any]:
        if "choices" in answer:
            answer["model"] = "policy-0-older"
        return status, answer

    with relay(served.url, stale) as url:
        told = refusal(engine(url, base_dir, tmp_path))
    assert "answers prompt 0 with samples of policy-0-older, where policy-0-" in told


def test_an_adapter_that_is_taken_and_not_listed(served: Served, base_dir: Path, tmp_path: Path) -> None:
    def forgetful(path: str, status: int, answer: Any) -> tuple[int, Any]:
        if path == "/v1/models":
            answer["data"] = answer["data"][:1]
        return status, answer

    with relay(served.url, forgetful) as url:
        assert "does not list policy-0-" in refusal(engine(url, base_dir, tmp_path))


def test_what_a_server_need_not_offer(served: Served, base_dir: Path, tmp_path: Path) -> None:
    """No cache to reset, and an earlier adapter that is gone already, which vLLM answers with 500."""

    def plain(path: str, status: int, answer: Any) -> tuple[int, Any]:
        refused = {"/reset_prefix_cache": 404, "/v1/unload_lora_adapter": 500}
        return (refused[path], {}) if path in refused else (status, answer)

    waits: list[float] = []
    with relay(served.url, plain) as url:
        there = engine(url, base_dir, tmp_path, sleep=waits.append)
        moved(there)
        assert there.sample(PROMPTS, SAMPLING, seed=5).version.tolist() == [1] * 12
    assert not waits


def test_logprobs_of_another_temperature_are_computed_here(served: Served, base_dir: Path, tmp_path: Path) -> None:
    """As a server tells them that leaves the temperature out: all are off by a known amount."""

    def shifted(choice: Any) -> None:
        choice["logprobs"]["token_logprobs"] = [x - 0.25 for x in choice["logprobs"]["token_logprobs"]]

    expected = local(base_dir).sample(PROMPTS, SAMPLING, seed=5)
    with relay(served.url, spoil_choices(shifted)) as url:
        there = engine(url, base_dir, tmp_path)
        found = there.sample(PROMPTS, SAMPLING, seed=5)
    assert there.trusted is False
    assert found.completions == expected.completions
    assert_close(found.logprobs, expected.logprobs, atol=1e-5, rtol=0)
    assert_close((found.sampled_logprobs - expected.logprobs)[found.mask], torch.full((found.num_tokens,), -0.25))
    assert list(found.engine_mismatch.values()) == pytest.approx([0.25, 0.25], abs=1e-4)


def test_trust_ends_with_the_first_rollout_that_differs(served: Served, base_dir: Path, tmp_path: Path) -> None:
    wrong = threading.Event()

    def later(choice: Any) -> None:
        if wrong.is_set():
            choice["logprobs"]["token_logprobs"] = [x - 0.25 for x in choice["logprobs"]["token_logprobs"]]

    with relay(served.url, spoil_choices(later)) as url:
        there = engine(url, base_dir, tmp_path)
        many = [PROMPTS[k % 4] for k in range(40)]
        assert len(there.sample(many, SAMPLING, seed=5)) == 120
        assert there.trusted
        wrong.set()
        found = there.sample(many, SAMPLING, seed=5)
    assert there.trusted is False
    assert_close(found.logprobs, there.score("policy", found) * found.mask, atol=1e-5, rtol=0)


def test_distrust_outlasts_a_resume(served: Served, base_dir: Path, tmp_path: Path) -> None:
    """The server is right again when the run goes on; its logprobs, a little off, are still not taken."""
    there = engine(served.url, base_dir, tmp_path / "one")
    moved(there)
    assert there.trusted
    there.trusted = False
    (tmp_path / "saved").mkdir()
    there.save(tmp_path / "saved")
    again = engine(served.url, base_dir, tmp_path / "two")
    again.load(tmp_path / "saved")

    def off(choice: Any) -> None:
        choice["logprobs"]["token_logprobs"] = [x - 2e-5 for x in choice["logprobs"]["token_logprobs"]]

    expected = local(base_dir)
    expected.load(tmp_path / "saved")
    with relay(served.url, spoil_choices(off)) as url:
        again.remote.url = url
        found = again.sample(PROMPTS, SAMPLING, seed=5)
    assert again.trusted is False
    assert_close(found.logprobs, expected.sample(PROMPTS, SAMPLING, seed=5).logprobs, atol=5e-6, rtol=0)


def test_requests_under_way_are_bounded(served: Served, base_dir: Path, tmp_path: Path) -> None:
    crowd = Crowd()
    with relay(served.url, unspoiled, slow=[0.1] * 12, crowd=crowd) as url:
        there = engine(url, base_dir, tmp_path, concurrency=2)
        assert len(there.sample(PROMPTS * 3, SAMPLING, seed=5)) == 36
    assert (crowd.now, crowd.most) == (0, 2)


def test_the_base_must_be_the_server_s(served: Served, base_dir: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    sampler = RemoteSampler(served.url + "/v1/", load_tokenizer(base_dir), folder=tmp_path)
    sampler.refuse_other_base(str(base_dir))
    with pytest.raises(ConfigError, match=f"serves {base_dir}, and the policy's base is {tiny_model_dir}; start it"):
        sampler.refuse_other_base(str(tiny_model_dir))


def test_what_cannot_be_sampled_elsewhere(served: Served, base_dir: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(base_dir)
    sampler = RemoteSampler(served.url, tokenizer, folder=tmp_path)
    whole = RemoteEngine(policy_roles(base_dir), tokenizer, sampler)
    with pytest.raises(ConfigError, match="needs lora"):
        whole.sample(PROMPTS, SAMPLING, seed=5)
    with pytest.raises(ConfigError, match="leave sampler out"):
        engine(served.url, base_dir, tmp_path).sample(PROMPTS, SAMPLING, seed=5, choose=lambda logits, *_: logits)


def test_killed_and_started_again_it_goes_on(base_dir: Path, tmp_path: Path) -> None:
    """The new process knows the base alone; it is given the adapter that it lacks."""
    first = Served(base_dir)
    there, ours = engine(first.url, base_dir, tmp_path, retries=2), local(base_dir)
    moved(there)
    moved(ours)
    first.kill()
    told = refusal(there)
    assert told.startswith(f"sampler {first.url} does not answer, asked 3 times for prompt ")
    assert told.endswith("is it running?")
    second = Served(base_dir, first.port)
    try:
        assert second.url == first.url
        found, expected = (e.sample(PROMPTS, SAMPLING, seed=5) for e in (there, ours))
        assert found.completions == expected.completions
        assert found.version.tolist() == [1] * 12
        moved(there)
        moved(ours)
        found, expected = (e.sample(PROMPTS, SAMPLING, seed=6) for e in (there, ours))
        assert found.completions == expected.completions
    finally:
        second.kill()
