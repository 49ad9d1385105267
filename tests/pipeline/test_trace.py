"""One answer token by token: what its numbers are, from the run's own next step and from transformers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from tests.pipeline.recipes import WORDS
from tests.pipeline.test_learners import LORA, OWN, prompts_in, recipe, tuned
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import ConfigError, RunError
from tuneful.models.loading import load_language_model, load_tokenizer
from tuneful.pipeline.run import run_recipe
from tuneful.pipeline.trace import Trace, trace

TRACED = [kind for kind in OWN if kind != "dqn"]


def run_of(kind: str, model: Path, folder: Path, **more: object) -> Path:
    run_recipe(recipe(folder, tuned(kind, model, prompts_in(folder), **more)), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def ppo(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of("ppo", tiny_model_dir, tmp_path_factory.mktemp("ppo"), kl_coef=0.5)


def logged(run: Path, step: int) -> dict[str, float]:
    rows = (json.loads(line) for line in (run / "tune" / "metrics.jsonl").read_text().splitlines())
    return next(row for row in rows if row["kind"] == "train" and row["step"] == step)


@pytest.mark.parametrize("kind", TRACED)
def test_every_learner_that_has_advantages(kind: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    run = run_of(kind, tiny_model_dir, tmp_path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = trace(run, sample=1)
    assert (found.stage, found.algorithm, found.step) == ("tune", kind, 3)
    spoken = re.sub(r"<\w+>", "", "".join(one.token for one in found.tokens))  # a text leaves special tokens out
    assert spoken.replace(" ", "") == found.completion.replace(" ", "")
    assert all(0 < one.probability <= 1 and one.kl >= 0 for one in found.tokens)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_server_that_the_run_samples_from_is_left_alone(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Nothing answers there, and nothing is asked."""
    run = run_of("ppo", tiny_model_dir, tmp_path, lora=LORA)
    here = trace(run)
    manifest = json.loads((run / "run.json").read_text())
    manifest["recipe"]["stages"][0]["sampler"] = "http://127.0.0.1:9"
    (run / "run.json").write_text(json.dumps(manifest))
    assert trace(run) == here


def test_rewards_are_the_score_and_the_leash(ppo: Path) -> None:
    found = trace(ppo)
    leash = [-found.kl_coef * math.log(one.probability / one.reference) for one in found.tokens]
    rewards = [one.reward for one in found.tokens]
    assert rewards[:-1] == pytest.approx(leash[:-1], abs=1e-5)
    assert rewards[-1] == pytest.approx(leash[-1] + found.score, abs=1e-5)


def test_probabilities_are_those_of_the_model(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Of a policy that has not moved, held against transformers."""
    run = run_of("ppo", tiny_model_dir, tmp_path, optimization={"learning_rate": 1e-12})
    found = trace(run)
    model, tokenizer = load_language_model(str(tiny_model_dir)), load_tokenizer(str(tiny_model_dir))
    prompt = tokenizer(found.prompt, add_special_tokens=False).input_ids
    ids = [tokenizer.convert_tokens_to_ids(one.token) for one in found.tokens]
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    logprobs = logits.log_softmax(-1)
    of_ids = logprobs.gather(-1, torch.tensor(ids)[:, None])[:, 0].exp()
    assert [one.probability for one in found.tokens] == pytest.approx(of_ids.tolist(), abs=1e-5)
    assert [one.reference for one in found.tokens] == pytest.approx(of_ids.tolist(), abs=1e-5)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    assert [one.entropy for one in found.tokens] == pytest.approx(entropy.tolist(), abs=1e-4)
    assert [one.kl for one in found.tokens] == pytest.approx([0.0] * len(ids), abs=1e-6)
    assert [one.ratio for one in found.tokens] == pytest.approx([1.0] * len(ids), abs=1e-6)


def test_the_step_is_the_one_that_the_run_took(ppo: Path) -> None:
    """The newest checkpoint before the end is of the second step of three; the third is taken again."""
    answers = [trace(ppo, sample=k) for k in range(4)]
    assert {one.step for one in answers} == {3}
    assert sum(one.score for one in answers) / 4 == pytest.approx(logged(ppo, 3)["reward"], abs=1e-5)
    tokens = [one for answer in answers for one in answer.tokens]
    k1 = sum(math.log(one.probability / one.reference) for one in tokens) / 4
    assert k1 == pytest.approx(logged(ppo, 3)["kl"], abs=1e-5)
    values = sum(one.value or 0.0 for one in tokens) / len(tokens)
    assert values == pytest.approx(logged(ppo, 3)["value"], abs=1e-5)


def test_a_ratio_beyond_the_clip_is_told_on_the_side_of_its_advantage(tiny_model_dir: Path, tmp_path: Path) -> None:
    run = run_of("ppo", tiny_model_dir, tmp_path, epochs=4, clip=0.01, optimization={"learning_rate": 0.05})
    tokens = [one for k in range(4) for one in trace(run, sample=k).tokens]
    for one in tokens:
        beyond = one.ratio > 1.01 if one.advantage > 0 else one.ratio < 0.99
        assert one.clipped == beyond
    assert any(one.clipped for one in tokens)


def test_of_rloo_the_ratio_and_advantage_are_of_the_whole_completion(tiny_model_dir: Path, tmp_path: Path) -> None:
    run = run_of("rloo", tiny_model_dir, tmp_path)
    first, second = trace(run, sample=0), trace(run, sample=1)
    for one in (first, second):
        assert len({token.ratio for token in one.tokens}) == 1
        assert len({token.advantage for token in one.tokens}) == 1
        assert one.tokens[0].value is None

    def returned(one: Trace) -> float:
        return sum(token.reward for token in one.tokens)

    assert first.tokens[0].advantage == pytest.approx(returned(first) - returned(second), abs=1e-5)


def test_the_folder_of_the_stage_serves_too(ppo: Path) -> None:
    assert trace(ppo / "tune") == trace(ppo)


def test_what_cannot_be_traced(ppo: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        trace(tmp_path)
    with pytest.raises(ConfigError, match="--sample 9: a step of tune has the answers 0 to 3"):
        trace(ppo, sample=9)
    with pytest.raises(
        ConfigError, match='no stage called "tun" that learns from its own answers; did you mean "tune"'
    ):
        trace(ppo, stage="tun")
    unsaved = run_of("reinforce", tiny_model_dir, tmp_path, save_every=0)
    with pytest.raises(RunError, match="holds no checkpoint; run it with save_every above 0"):
        trace(unsaved)


def test_the_end_of_a_run_alone_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Three steps, saved every tenth and in the end: the learning rate is 0 from there on."""
    run = run_of("reinforce", tiny_model_dir, tmp_path, save_every=10)
    assert [path.name for path in (run / "tune" / "checkpoints").iterdir()] == ["step-00000003"]
    with pytest.raises(RunError, match=r"its one checkpoint is of the last step.*save_every below num_steps"):
        trace(run)


def test_dqn_knows_no_advantages(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dqn knows no advantages"):
        trace(run_of("dqn", tiny_model_dir, tmp_path))


def test_prompts_that_have_changed_are_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    run = run_of("reinforce", tiny_model_dir, tmp_path)
    write_jsonl(tmp_path / "prompts.jsonl", ({"prompt": f"{one} tea"} for one in WORDS), force=True)
    with pytest.raises(RunError, match=r"prompts.jsonl: changed since the run in .* began; restore it"):
        trace(run)
