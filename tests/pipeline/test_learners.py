"""Every learner as a stage of a recipe on the tiny model: it runs, is cut off, goes on, and leaves what can be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.algorithms import start_up
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import ConfigError, ModelError, RunError
from tuneful.generation.nucleus import nucleus
from tuneful.generation.rollout import Scored
from tuneful.generation.sampling import Sampling
from tuneful.models.loading import load_language_model, load_tokenizer
from tuneful.pipeline import training
from tuneful.pipeline.answers import answer
from tuneful.pipeline.context import Silent
from tuneful.pipeline.export import export
from tuneful.pipeline.learner_inputs import ON_POLICY
from tuneful.pipeline.recipe import Recipe, load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Prompt

LORA = {"rank": 2}
OWN: dict[str, dict[str, Any]] = {
    "reinforce": {},
    "rloo": {"samples_per_prompt": 2},
    "grpo": {"samples_per_prompt": 2},
    "a2c": {},
    "ppo": {"epochs": 1},
    "nlpo": {"epochs": 1, "top_p": 0.5, "min_tokens": 4, "mask_every": 2},
    "trpo": {"value_epochs": 1, "lora": LORA},
    "raft": {"samples_per_prompt": 2},
    "dqn": {"completions_per_update": 4, "updates_per_step": 2, "lora": LORA},
}
BY_VALUE = ("dqn", "ilql")


class CutOff(Silent):
    """Stops a stage after its first step, as a person at the keyboard does."""

    def __init__(self, stage: str) -> None:
        self.at, self.now = stage, ""

    def stage(self, name: str, kind: str) -> None:
        self.now = name

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if self.now == self.at and done == 2:
            raise KeyboardInterrupt


def prompts_in(folder: Path) -> Path:
    path = folder / "prompts.jsonl"
    write_jsonl(path, ({"prompt": f"{one} {other}"} for one in WORDS for other in WORDS[:3]))
    return path


def recipe(folder: Path, *stages: str) -> Recipe:
    splits = "splits = { reward = 0.3, rl = 0.3, dev = 0.2, test = 0.2 }\n"
    (folder / "recipe.toml").write_text(splits + "".join(stages))
    return load_recipe(folder / "recipe.toml")


def tuned(kind: str, model: Path, prompts: Path, **more: Any) -> str:
    settings: dict[str, Any] = {
        "model": model,
        "prompts": prompts,
        "reward": "shorter",
        "num_steps": 3,
        "save_every": 1,
        "evaluate_every": 3,
        "evaluate_prompts": 4,
        "prompts_per_step": 4,
        "max_new_tokens": 6,
        "optimization": {"learning_rate": 0.01},
    }
    return stage_toml("tune", algorithm=kind, **settings | OWN.get(kind, {}) | more)


def weights_in(model: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.stem}.{name}": weight
        for file in model.glob("*.safetensors")
        for name, weight in load_file(file).items()
    }


@pytest.mark.parametrize("kind", ON_POLICY)
def test_a_run_that_is_cut_off_ends_where_it_would_have(
    kind: str, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_up, "NUM_ROLLOUTS", 16)
    prompts = prompts_in(tmp_path)
    judged = stage_toml(
        "compare",
        do="evaluate",
        before=tiny_model_dir,
        after="@tune",
        prompts=prompts,
        reward="shorter",
        num_samples=2,
        max_new_tokens=6,
        limit=6,
    )
    whole = recipe(tmp_path, tuned(kind, tiny_model_dir, prompts), judged)
    out, other = tmp_path / "run", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        run_recipe(whole, out, display=CutOff("tune"))
    run_recipe(whole, out)
    run_recipe(whole, other)
    rows = [
        [json.loads(line) for line in (f / "tune" / "metrics.jsonl").read_text().splitlines()] for f in (out, other)
    ]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in rows[0]] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in rows[1]
    ]
    assert [row["step"] for row in rows[0] if row["kind"] == "train"] == [1, 2, 3]
    resumed, straight = weights_in(out / "tune" / "model"), weights_in(other / "tune" / "model")
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    assert json.loads((out / "compare" / "report.json").read_text())["win_rate"]["n"] == 6


def test_a_policy_that_speaks_by_value_is_no_plain_model(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_up, "NUM_ROLLOUTS", 16)
    run_recipe(recipe(tmp_path, tuned("dqn", tiny_model_dir, prompts_in(tmp_path))), tmp_path / "run")
    model = tmp_path / "run" / "tune" / "model"
    assert {"guide.json", "guide.safetensors"} <= {file.name for file in model.iterdir()}
    with pytest.raises(ModelError, match="speaks by value"):
        load_language_model(model)
    with pytest.raises(ModelError, match="speaks by value"):
        export(model, tmp_path / "plain", merge=True)
    asked: dict[str, Any] = {"seed": 0, "on_progress": lambda *_: None, "note": lambda _: None}
    with pytest.raises(ConfigError, match="leave --top-p out"):
        answer(str(model), [Prompt("why")], Sampling(max_new_tokens=2), choose=nucleus(0.9), **asked)


@pytest.mark.parametrize("kind", ["ppo", "nlpo"])
def test_pretraining_rows_are_imitated_beside(
    kind: str, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_up, "NUM_ROLLOUTS", 16)
    rows = tmp_path / "rows.jsonl"
    write_jsonl(rows, ({"prompt": f"{word} house", "completion": "the house is quiet"} for word in WORDS))
    mixed = tuned(kind, tiny_model_dir, prompts_in(tmp_path), pretraining=rows, ptx_coef=1.0, ptx_rows=2)
    run_recipe(recipe(tmp_path, mixed), tmp_path / "run")
    lines = (tmp_path / "run" / "tune" / "metrics.jsonl").read_text().splitlines()
    lost = [row["ptx_loss"] for row in map(json.loads, lines) if row["kind"] == "train"]
    assert len(lost) == 3
    assert lost[-1] < lost[0]


@pytest.mark.parametrize("source", ["completions", "comparisons"])
def test_ilql_from_what_others_made(source: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    """Of answers of which the short ones score high it says shorter ones than the model does."""
    prompts = prompts_in(tmp_path)
    asked = [f"{one} {other}" for one in WORDS for other in WORDS[:3]]
    pairs, answers = tmp_path / "pairs.jsonl", tmp_path / "answers.jsonl"
    write_jsonl(pairs, ({"prompt": prompt, "chosen": "yes", "rejected": "no no no no"} for prompt in asked))
    texts = [{"text": "yes"}, {"text": "no no no no"}]
    write_jsonl(answers, ({"prompt": prompt, "completions": texts} for prompt in asked))
    given = {"completions": answers, "reward": "shorter"} if source == "completions" else {"comparisons": pairs}
    stages = [
        stage_toml(
            "ilql",
            algorithm="ilql",
            model=tiny_model_dir,
            completions_per_step=16,
            epochs=4,
            guide_scale=2.0,
            optimization={"learning_rate": 0.003},
            **given,
        ),
        stage_toml(
            "compare",
            do="evaluate",
            before=tiny_model_dir,
            after="@ilql",
            prompts=prompts,
            reward="shorter",
            num_samples=4,
            max_new_tokens=6,
        ),
    ]
    out = tmp_path / "run"
    run_recipe(recipe(tmp_path, *stages), out)
    report = json.loads((out / "compare" / "report.json").read_text())
    assert report["difference"]["length"]["interval"][1] < 0
    shutil.rmtree(out / "compare")
    metrics = [json.loads(line) for line in (out / "ilql" / "metrics.jsonl").read_text().splitlines()]
    assert {"q_loss", "value_loss", "cql_loss", "policy_loss", "state_value", "advantage"} <= metrics[0].keys()


def scored_for_ilql(stage: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Scored]:
    """What the stage's learner is given; it goes no further."""
    seen: list[Scored] = []

    def look(engine: Any, scored: list[Scored], config: Any) -> None:
        seen.extend(scored)
        raise RunError("enough")

    monkeypatch.setattr(training, "ILQL", look)
    with pytest.raises(RunError, match="enough"):
        run_recipe(recipe(folder, stage), folder / "run")
    return seen


def test_ilql_is_taught_no_end_where_an_answer_was_cut(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [{"text": "yes", "finish": "length"}, {"text": "no", "finish": "stop"}]
    write_jsonl(tmp_path / "answers.jsonl", [{"prompt": word, "completions": answers} for word in WORDS])
    given = {"model": tiny_model_dir, "completions": tmp_path / "answers.jsonl", "reward": "shorter"}
    stage = stage_toml("ilql", algorithm="ilql", **given)
    seen = scored_for_ilql(stage, tmp_path, monkeypatch)
    end = load_tokenizer(tiny_model_dir).eos_token_id
    assert [len(one.completion) for one in seen[:2]] == [1, 2]
    assert [one.completion[-1] == end for one in seen[:2]] == [False, True]


def test_ilql_reads_an_answer_of_several_pairs_once(
    tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three answers ranked a > b > c, and a pair of p = .8 that weighs 9 in its file; each prompt weighs as much.

    a, b and c are preferred with probability 1, 1/2 and 0 and weigh 2/3 each, the pair's sides 1 each. So the mean is
    1/2, the variance (2 x 2/3 x .5^2 + 2 x .3^2) / 4 = .128333, the standard deviation .358236.
    """
    ranked, paired = "cold", "dog"  # both of the split that rewards are trained on
    rows = [{"prompt": ranked, "chosen": a, "rejected": b} for a, b in (("a", "b"), ("a", "c"), ("b", "c"))]
    pair = {"prompt": paired, "chosen": "yes", "rejected": "no", "p": 0.8, "weight": 9}
    write_jsonl(tmp_path / "pairs.jsonl", [*rows, pair])
    stage = stage_toml("ilql", algorithm="ilql", model=tiny_model_dir, comparisons=tmp_path / "pairs.jsonl")
    seen = scored_for_ilql(stage, tmp_path, monkeypatch)
    assert [one.score for one in seen] == pytest.approx([1.395728, 0, -1.395728, 0.837437, -0.837437], abs=1e-5)
    shares = [one.weight / seen[-1].weight for one in seen]
    assert shares == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("offline", [True, False])
def test_dqn_begins_with_completions(
    offline: bool, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the reward scores them, less the penalty of the one that was cut off; offline it has no others."""
    monkeypatch.setattr(start_up, "NUM_ROLLOUTS", 16)
    answers = [{"text": "yes", "finish": "length"}, {"text": "no no", "finish": "stop"}]
    write_jsonl(tmp_path / "answers.jsonl", [{"prompt": word, "completions": answers} for word in WORDS])
    more = {"offline": True, "prompts_per_step": 64} if offline else {}
    given = {"completions": tmp_path / "answers.jsonl", "missing_eos_penalty": 0.5, "save_every": 3, **more}
    run_recipe(recipe(tmp_path, tuned("dqn", tiny_model_dir, prompts_in(tmp_path), **given)), tmp_path / "run")
    [state] = (tmp_path / "run" / "tune").glob("**/learner.json")
    replay = [Scored(*one) for one in json.loads(state.read_text())["replay"]]
    rows = [json.loads(line) for line in (tmp_path / "run" / "tune" / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    assert [one.score for one in replay[:2]] == [-1.5, -2.0]
    assert ("kl" in steps[0], steps[-1]["replay"] == steps[0]["replay"]) == (not offline, offline)


def test_dqn_from_comparisons(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of answers of which the short ones are preferred it says shorter ones than the model does."""
    monkeypatch.setattr(start_up, "NUM_ROLLOUTS", 16)
    prompts, pairs = prompts_in(tmp_path), tmp_path / "pairs.jsonl"
    asked = [f"{one} {other}" for one in WORDS for other in WORDS[:3]]
    write_jsonl(pairs, ({"prompt": prompt, "chosen": "yes", "rejected": "no no no no"} for prompt in asked))
    given = {"comparisons": pairs, "offline": True, "prompts_per_step": 64, "num_steps": 20, "kl_coef": 0.1}
    rates = {"completions_per_update": 32, "polyak": 0.2, "optimization": {"learning_rate": 0.003}, "save_every": 0}
    judged = {"before": tiny_model_dir, "after": "@tune", "prompts": prompts, "reward": "shorter"}
    evaluate = stage_toml("compare", do="evaluate", **judged, num_samples=4, max_new_tokens=6)
    run_recipe(recipe(tmp_path, tuned("dqn", tiny_model_dir, prompts, **given, **rates), evaluate), tmp_path / "run")
    report = json.loads((tmp_path / "run" / "compare" / "report.json").read_text())
    assert report["difference"]["length"]["interval"][1] < 0


def test_dqn_takes_its_own_top_k(tmp_path: Path) -> None:
    asked = {"model": "m", "prompts": "p.jsonl", "reward": "shorter", "top_k": 9}
    assert recipe(tmp_path, stage_toml("tune", algorithm="dqn", **asked)).stages[0].config.top_k == 9


def test_ilql_cuts_long_prompts_on_the_left(tiny_model_dir: Path, tmp_path: Path) -> None:
    """An answer has two tokens; of 7 five are left, in which a prompt of six words keeps its end, so that another
    beginning changes nothing."""

    def first_step(prompt: str, max_tokens: int) -> float:
        folder = tmp_path / f"{prompt}-{max_tokens}"
        folder.mkdir()
        write_jsonl(folder / "pairs.jsonl", [{"prompt": prompt, "chosen": "yes", "rejected": "no"}] * 8)
        given = {"model": tiny_model_dir, "comparisons": folder / "pairs.jsonl", "max_tokens": max_tokens}
        run_recipe(recipe(folder, stage_toml("ilql", algorithm="ilql", **given)), folder / "run")
        row = json.loads((folder / "run" / "ilql" / "metrics.jsonl").read_text().splitlines()[0])
        return float(row["policy_loss"])

    whole, cut = (first_step("bread cold cook day dog door", longest) for longest in (100, 7))
    assert cut != whole
    assert first_step("tap tea cook day dog door", 7) == pytest.approx(cut)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"completions": "a.jsonl"}, "completions and reward go together"),
        ({"reward": "shorter"}, "give one of the two"),
        ({"completions": "a.jsonl", "reward": "shorter", "comparisons": "b.jsonl"}, "give one of the two"),
    ],
)
def test_ilql_needs_scores(settings: dict[str, str], match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        recipe(tmp_path, stage_toml("ilql", algorithm="ilql", model="m", **settings))


def test_of_answers_that_are_equally_good_the_curve_and_the_kept_ones_are_the_same(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    """A reward that finds all alike: what is measured of the best of all is what is measured of those that are kept."""
    (tmp_path / "alike.py").write_text(
        "import torch\n\n\ndef alike(prompts, completions):\n    return torch.zeros(len(completions))\n"
    )
    asked = {"model": tiny_model_dir, "prompts": prompts_in(tmp_path), "num_samples": 4, "max_new_tokens": 6}
    run_recipe(
        recipe(tmp_path, stage_toml("best", do="best_of_n", reward=f"{tmp_path}/alike.py:alike", **asked)),
        tmp_path / "run",
    )
    folder = tmp_path / "run" / "best"
    rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    kept = [len(row["completions"][0]["text"].split()) for row in rows]
    last = json.loads((folder / "report.json").read_text())["best_of_n"][-1]
    assert sum(kept) / len(kept) == pytest.approx(last["measures"]["length"]["mean"])


def test_best_of_n(tiny_model_dir: Path, tmp_path: Path) -> None:
    stage = stage_toml(
        "best",
        do="best_of_n",
        model=tiny_model_dir,
        prompts=prompts_in(tmp_path),
        reward="shorter",
        num_samples=6,
        max_new_tokens=6,
    )
    run_recipe(recipe(tmp_path, stage), tmp_path / "run")
    report = json.loads((tmp_path / "run" / "best" / "report.json").read_text())
    assert [point["n"] for point in report["best_of_n"]] == [1, 2, 4, 6]
    means = [point["measures"]["reward"]["mean"] for point in report["best_of_n"]]
    assert means == sorted(means)
    rows = [json.loads(line) for line in (tmp_path / "run" / "best" / "completions.jsonl").read_text().splitlines()]
    assert all(len(row["completions"]) == 1 for row in rows)
    kept = [-len(row["completions"][0]["text"].split()) for row in rows]
    assert sum(kept) / len(kept) == pytest.approx(-report["best_of_n"][-1]["measures"]["length"]["mean"])


@pytest.mark.parametrize("given", [{"preferences": "p.jsonl"}, {"rankings": "r.jsonl", "completions": "c.jsonl"}])
def test_pairs_alone_are_centered(given: dict[str, str], tmp_path: Path) -> None:
    asked = {"model": "m", "normalise_prompts": "p.jsonl", "normalise_model": "m", "center_coef": 0.01}
    assert recipe(tmp_path, stage_toml("judge", algorithm="reward", **asked, comparisons="c.jsonl")).stages
    with pytest.raises(ConfigError, match=r"stage judge: reward\.center_coef is of the two sides of pairs"):
        recipe(tmp_path, stage_toml("judge", algorithm="reward", **asked, **given))


def test_exploring_is_for_no_leash(tmp_path: Path) -> None:
    asked = {"model": "m", "prompts": "p.jsonl", "reward": "shorter", "leash": "none", "epsilon": 0.5}
    [stage] = recipe(tmp_path, stage_toml("tune", algorithm="dqn", **asked)).stages
    assert stage.config.epsilon == 0.5


@pytest.mark.parametrize(
    ("kind", "settings", "match"),
    [
        ("trpo", {}, "trpo needs lora"),
        ("trpo", {"lora": LORA, "base_dtype": "bfloat16"}, "gradients of gradients"),
        ("nlpo", {"sampler": "http://127.0.0.1:1", "lora": LORA}, "leave sampler out"),
        ("nlpo", {"lora": LORA, "shard": True}, "leave shard out"),
        ("dqn", {"sampler": "http://127.0.0.1:1", "lora": LORA}, "stage tune: sampler: dqn .* leave sampler out"),
        ("dqn", {"epsilon": 0.5}, r'stage tune: dqn\.epsilon is not for leash = "soft"'),
        ("dqn", {"epsilon_end": 0.5}, r"dqn\.epsilon_end is not for"),
        ("dqn", {"epsilon_share": 1.0}, r"dqn\.epsilon_share is not for"),
        ("dqn", {"offline": True}, "stage tune: offline: dqn samples nothing then; give completions or comparisons"),
        ("dqn", {"comparisons": "c.jsonl"}, "stage tune: comparisons: their p is no score .* set offline = true"),
        ("dqn", {"comparisons": "c.jsonl", "completions": "a.jsonl", "offline": True}, "leave one of the two out"),
        ("ppo", {"ptx_coef": 1.0}, r"stage tune: ppo\.ptx_coef and pretraining go together"),
        ("ppo", {"pretraining": "rows.jsonl"}, r"stage tune: ppo\.ptx_coef and pretraining go together"),
        ("nlpo", {"ptx_coef": 1.0}, r"stage tune: nlpo\.ptx_coef and pretraining go together"),
        ("rloo", {"baseline": "none"}, 'unknown setting "baseline"'),
        ("grpo", {"top_p": 0.9}, '"top_p" is no setting of grpo'),
        ("nlpo", {"top_k": 9}, '"top_k" is no setting of nlpo'),
        ("dqn", {"top_p": 0.9}, '"top_p" is no setting of dqn'),
        ("reinforce", {"value": "head"}, 'unknown setting "value"'),
    ],
)
def test_what_a_learner_cannot_do_is_said_before_it_starts(
    kind: str, settings: dict[str, Any], match: str, tmp_path: Path
) -> None:
    asked = {"model": "m", "prompts": "p.jsonl", "reward": "shorter"}
    with pytest.raises(ConfigError, match=match):
        recipe(tmp_path, stage_toml("tune", algorithm=kind, **asked, **settings))
