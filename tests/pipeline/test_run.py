"""Whole pipelines on a tiny model: what each stage leaves behind, which split it reads, and continuing."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import signal
from collections.abc import Mapping
from itertools import count
from math import exp, sqrt
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical

from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.data.formats import read_candidates
from tuneful.data.jsonl import write_jsonl
from tuneful.data.splits import split_of
from tuneful.engines.local import LocalEngine
from tuneful.errors import ConfigError, RunError, TunefulError
from tuneful.pipeline import run as run_module
from tuneful.pipeline.context import Silent, World
from tuneful.pipeline.learner_inputs import DEV_MEASURES, SECOND_MEASURES
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import pipeline_report, run_recipe
from tuneful.records import Prompt
from tuneful.runs.manifest import tree_hash


def whole_recipe(model: Path, pairs: Path, demonstrations: Path, prompts: Path) -> str:
    """All algorithms, and last an evaluation."""
    normalised = {"normalise_prompts": prompts, "normalise_model": "@sft", "normalise_samples": 1024}
    steps = {"num_steps": 3, "prompts_per_step": 4, "epochs": 1, "evaluate_every": 2, "evaluate_prompts": 8}
    shown = {"model": "@sft", "comparisons": pairs}
    asked = {"prompts": pairs, "reward": "@reward", "max_new_tokens": 6}
    stages = [
        stage_toml("sft", algorithm="sft", model=model, demonstrations=demonstrations, demonstrations_per_step=8),
        stage_toml(
            "reward", algorithm="reward", prompts_per_step=8, test=pairs, max_new_tokens=6, **shown, **normalised
        ),
        stage_toml("ppo", algorithm="ppo", model="@sft", optimization={"learning_rate": 1e-3}, **asked, **steps),
        stage_toml("dpo", algorithm="dpo", pairs_per_step=8, lora={"rank": 2}, **shown),
        stage_toml("evaluate", do="evaluate", before="@sft", after="@ppo", num_samples=2, **asked),
    ]
    return "splits = { reward = 0.4, rl = 0.2, dev = 0.2, test = 0.2 }\n" + "".join(stages)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, tiny_model_dir) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    prompts = [f"{a} {b}" for a in WORDS for b in WORDS[:4]]
    pairs = [{"prompt": [{"role": "user", "content": p}], "chosen": "yes", "rejected": "no no no"} for p in prompts]
    for row in pairs:
        row |= {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_jsonl(folder / "sft.jsonl", ({"prompt": r["prompt"], "completion": "yes please"} for r in pairs))
    path = folder / "recipe.toml"
    write_jsonl(folder / "prompts.jsonl", ({"prompt": r["prompt"]} for r in pairs))
    files = (folder / f"{name}.jsonl" for name in ("pairs", "sft", "prompts"))
    path.write_text(whole_recipe(tiny_model_dir, *files))
    return path


@pytest.fixture(scope="module")
def out(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "run"
    run_recipe(load_recipe(recipe), folder)
    return folder


def read(path: Path):
    return json.loads(path.read_text())


def test_every_stage_leaves_a_run_directory(out):
    for stage in ("sft", "reward", "ppo", "dpo"):
        names = {p.name for p in (out / stage).iterdir()}
        assert {"run.json", "metrics.jsonl", "samples.jsonl", "model", "report.json", "report.html"} <= names
        assert read(out / stage / "run.json")["done"] is True


def test_what_trains_keeps_its_memory_plan_and_what_it_took(out):
    for stage in ("sft", "reward", "ppo", "dpo"):
        memory = read(out / stage / "run.json")["memory"]
        assert sum(memory["parts"].values()) == memory["planned"]
        assert memory["while"] in ("sampling", "scoring", "updating", "normalising")
        assert memory["resident"] > memory["parts"]["weights"]
    assert "memory" not in read(out / "evaluate" / "run.json")


def test_a_stage_that_failed_keeps_the_seconds_it_took(recipe, tmp_path, monkeypatch):
    """The clock moves 7 seconds from one look to the next, and every stage is looked at when it begins and ends."""
    clock = count(step=7.0)
    monkeypatch.setattr(run_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))

    def fails(*_):
        raise RunError("no more")

    monkeypatch.setattr(run_module, "run_stage", fails)
    for seconds in (7.0, 14.0):
        with pytest.raises(RunError, match="no more"):
            run_recipe(load_recipe(recipe), tmp_path / "run")
        assert read(tmp_path / "run" / "run.json")["seconds"] == {"sft": seconds}


def test_one_report_stands_above_the_stages(out):
    report = read(out / "report.json")
    assert {"seed", "seconds", "reward_model", "before", "after", "win_rate", "kl", "alarm"} <= report.keys()
    assert (out / "report.html").stat().st_size > 10_000


def test_counts_and_ends_stand_with_their_stage(out):
    """80 pairs; `sft` learns from the splits reward and rl, the rest of training from `reward` alone."""
    report = read(out / "report.json")
    assert not {"ended", "num_prompts", "num_comparisons", "num_demonstrations"} & report.keys()
    stages = report["stages"]
    assert list(stages) == ["sft", "reward", "ppo", "dpo", "evaluate"]
    assert stages["ppo"] == {"ended": "all 3 steps done", "alarm": None}
    splits = list(read(out / "ppo" / "run.json")["splits"].values())
    in_reward = splits.count("reward")
    assert stages["sft"]["num_demonstrations"] == in_reward + splits.count("rl")
    assert (stages["reward"]["num_comparisons"], stages["dpo"]["num_comparisons"]) == (in_reward, in_reward)
    assert stages["evaluate"] == {"num_prompts": splits.count("test"), "num_samples": 2 * splits.count("test")}
    steps = [len((out / s / "metrics.jsonl").read_text().splitlines()) for s in ("sft", "dpo")]
    assert [stages[s]["ended"] for s in ("sft", "dpo")] == [f"all {n} steps done" for n in steps]


def test_the_report_above_draws_the_curves_of_each_stage_apart(out):
    page = (out / "report.html").read_text()
    for title in ("SFT: Loss", "Reward: Loss", "DPO: Loss", "PPO: Reward", "PPO: KL"):
        assert f"<figcaption>{title}</figcaption>" in page
    assert "<figcaption>Loss</figcaption>" not in page


def test_an_alarm_is_not_silenced_by_a_later_stage(recipe, tmp_path):
    rang = {"step": 7, "kind": "alarm", "reason": "reward hacking"}
    for name, alarm in (("ppo", rang), ("dpo", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps({"alarm": alarm, "ended": name}))
    report = pipeline_report(load_recipe(recipe), tmp_path, {})
    assert report["alarm"] == rang
    assert report["stages"] == {"ppo": {"alarm": rang, "ended": "ppo"}, "dpo": {"alarm": None, "ended": "dpo"}}


def test_of_two_evaluations_each_keeps_what_it_found(recipe, tmp_path):
    """The first has a judge, the second has none: above stands the second, and no win rate of another comparison."""
    path = tmp_path / "recipe.toml"
    path.write_text(
        recipe.read_text() + '[[stage]]\nname = "again"\ndo = "evaluate"\nbefore = "@sft"\n'
        'after = "@dpo"\nprompts = "p.jsonl"\n'
    )
    first = {"before": {"length": 1}, "after": {"length": 2}, "win_rate": 0.7, "num_prompts": 3}
    second = {"before": {"length": 1}, "after": {"length": 4}, "num_prompts": 5}
    for name, found in (("evaluate", first), ("again", second), ("ppo", {"alarm": None, "ended": "ppo"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(found))
    report = pipeline_report(load_recipe(path), tmp_path, {})
    assert report["stages"] == {"ppo": {"alarm": None, "ended": "ppo"}, "evaluate": first, "again": second}
    assert {k: report.get(k) for k in ("before", "after", "win_rate")} == {
        "before": {"length": 1},
        "after": {"length": 4},
        "win_rate": None,
    }


def test_the_report_above_shows_the_answers_of_the_evaluation(out):
    rows = [json.loads(line) for line in (out / "evaluate" / "answers.jsonl").open()]
    for page in ((out / "report.html").read_text(), (out / "evaluate" / "report.html").read_text()):
        assert page.count("Answers side by side") == 1
        assert page.count('<article class="pair">') == 12
        assert rows[0]["after"][0] in page


def test_what_evaluations_on_dev_prompts_measure_can_be_a_threshold(out, recipe, tmp_path):
    """The names that a recipe may write are those that a run has."""

    def measured(folder: Path) -> set[str]:
        rows = map(json.loads, (folder / "ppo" / "metrics.jsonl").open())
        return set(next(row for row in rows if row["kind"] == "evaluation")) - {"step", "kind", "seconds"}

    assert measured(out) == set(DEV_MEASURES)
    run_recipe(load_recipe(recipe, ["ppo.second_reward=shorter", "ppo.num_steps=1"]), tmp_path / "run")
    assert measured(tmp_path / "run") == {*DEV_MEASURES, *SECOND_MEASURES}


def test_a_second_reward_is_measured_beside_the_first(recipe, tmp_path):
    """ "shorter" is minus the number of words, which is what "length" counts."""
    run_recipe(load_recipe(recipe, ["evaluate.second_reward=shorter", "evaluate.judge=second_reward"]), tmp_path / "r")
    report = json.loads((tmp_path / "r" / "evaluate" / "report.json").read_text())
    for side in ("before", "after"):
        assert report[side]["second_reward"]["mean"] == pytest.approx(-report[side]["length"]["mean"])
        assert report[side]["reward"]["mean"] != report[side]["second_reward"]["mean"]


def test_a_name_that_no_world_has_is_told_before_the_first_stage(recipe, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.read_text() + 'measures = ["toy:beauty"]\n')
    with pytest.raises(ConfigError) as error:
        run_recipe(load_recipe(path), tmp_path / "run", worlds={"toy": World(measures={"truth": lambda *_: 0.0})})
    assert str(error.value) == (
        f'{path}: stage evaluate: "toy:beauty": the toy world has no such measures; known: truth'
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            'evaluate.second_reward="shortr"',
            'stage evaluate: second_reward: reward "shortr": no such model directory or rule; did you mean "shorter"?',
        ),
        (
            'evaluate.reward="reward"',
            'stage evaluate: reward: reward "reward": no such model directory or rule; did you mean "@reward"?',
        ),
        (
            'evaluate.toxicity={rule="words", file="none.txt"}',
            "stage evaluate: toxicity: none.txt: cannot be read: No such file or directory; give a text file of words",
        ),
        (
            'ppo.reward="./none.py:score"',
            'stage ppo: reward: reward "./none.py:score": ./none.py cannot be loaded: FileNotFoundError',
        ),
        (
            'ppo.reward="tuneful.rewards.rules:shortr"',
            'stage ppo: reward: reward "tuneful.rewards.rules:shortr": tuneful.rewards.rules has no function "shortr"',
        ),
        ('ppo.reward="{model}"', "stage ppo: reward: {model}: a language model, not a reward model"),
        ('ppo.model="sft"', 'stage ppo: model: sft: no such model directory; did you mean "@sft"?'),
        ('ppo.second_reward="no/where/else"', "stage ppo: second_reward: no/where/else: no such model directory"),
        ('evaluate.before="./nowhere"', "stage evaluate: before: ./nowhere: no such model directory"),
        ('evaluate.prompts="none.jsonl"', 'stage evaluate: prompts: data "none.jsonl" not found; looked at none.jsonl'),
        ('held_out=["none.jsonl"]', 'held_out: data "none.jsonl" not found; looked at none.jsonl'),
    ],
)
def test_what_is_not_to_be_found_is_told_before_the_first_stage(recipe, tiny_model_dir, tmp_path, override, said):
    override, said = (text.replace("{model}", str(tiny_model_dir)) for text in (override, said))
    with pytest.raises(TunefulError) as error:
        run_recipe(load_recipe(recipe, [override]), tmp_path / "run")
    assert str(error.value).startswith(f"{recipe}: {said}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["reward", "rl", "dev", "test"])
def test_completions_can_be_of_any_split(recipe, tiny_model_dir, tmp_path, split):
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'[[stage]]\nname = "samples"\ndo = "generate"\nmodel = "{tiny_model_dir}"\n'
        f'prompts = "{recipe.parent}/pairs.jsonl"\nsplit = "{split}"\nlimit = 2\nmax_new_tokens = 2\n'
    )
    run_recipe(load_recipe(path), tmp_path / "run")
    items = read_candidates(tmp_path / "run" / "samples" / "completions.jsonl")
    assert [split_of(item.prompt) for item in items] == [split, split]


def test_a_warm_up_longer_than_the_run_is_shortened_and_told(tiny_model_dir, tmp_path):
    """DPO's default of 150 steps, where 20 pairs at one a step are 20 steps."""
    notes: list[str] = []
    display = Silent()
    display.note = notes.append  # type: ignore[method-assign]
    rows = [{"prompt": f"{word} now", "chosen": "yes", "rejected": "no"} for word in WORDS[:20]]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    settings = {"comparisons": tmp_path / "pairs.jsonl", "model": tiny_model_dir, "pairs_per_step": 1}
    text = "splits = { reward = 1.0, rl = 0.0, dev = 0.0, test = 0.0 }\n"
    (tmp_path / "recipe.toml").write_text(text + stage_toml("dpo", algorithm="dpo", **settings))
    run_recipe(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run", display=display)
    assert [note for note in notes if "learning rate" in note] == [
        "the learning rate rises over 2 steps, not over optimization.warmup_steps = 150: the run has 20"
    ]


def test_the_report_shows_the_newest_answers(out):
    samples = [json.loads(line) for line in (out / "ppo" / "samples.jsonl").read_text().splitlines()]
    page = (out / "ppo" / "report.html").read_text()
    assert {row["step"] for row in samples[-8:]} == {3}
    assert all(row["completion"] in page for row in samples[-8:] if row["completion"].replace(" ", "").isalpha())
    assert not any(row["completion"] in page for row in samples[:8] if len(row["completion"]) > 12)


def test_models_load_as_they_are(out):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(out / "ppo" / "model")
    AutoTokenizer.from_pretrained(out / "ppo" / "model")
    scorer = AutoModelForSequenceClassification.from_pretrained(out / "reward" / "model")
    assert scorer.config.num_labels == 1
    assert {"gain", "bias", "reads", "base"} <= read(out / "reward" / "model" / "reward.json").keys()
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(out / "sft" / "model"), out / "dpo" / "model")


def test_scores_of_the_reference_are_normalised(out):
    """Gain and bias come from 1024 completions, the check measures 256 others in standard errors of their own mean.

    Both means err, so what is measured has a standard deviation of sqrt(1 + 256 / 1024); three of these are allowed.
    The raw scores of this model are 4.3 away.
    """
    checks = {c["name"]: c for c in read(out / "ppo" / "run.json")["checks"]}
    (name,) = [n for n in checks if "mean reward of reference completions" in n]
    assert checks[name]["value"] < 3 * sqrt(1 + 256 / 1024)


READS = {
    "sft": {("demonstrations", "reward", "train"), ("demonstrations", "rl", "train")},
    "reward": {
        ("comparisons", "reward", "train"),
        ("prompts", "rl", "train"),
        ("comparisons", "test", "report"),
    },
    "ppo": {("comparisons", "rl", "train"), ("comparisons", "dev", "stop")},
    "dpo": {("comparisons", "reward", "train")},
    "evaluate": {("comparisons", "test", "report")},
}
"""Stage -> file, split and purpose of all it may read."""


@pytest.mark.parametrize("stage", READS)
def test_the_run_record_says_which_prompt_went_where_and_who_read_it(out, recipe, stage):
    files = {"pairs": "comparisons", "sft": "demonstrations", "prompts": "prompts"}
    record = read(out / stage / "run.json")
    assert {(files[Path(r["source"]).stem], r["split"], r["purpose"]) for r in record["reads"]} == READS[stage]
    assert {r["stage"] for r in record["reads"]} == {stage}
    shares = load_recipe(recipe).splits
    assert record["splits"] == {
        Prompt.user(text).id: split_of(Prompt.user(text), shares)
        for text in (f"{a} {b}" for a in WORDS for b in WORDS[:4])
    }


def test_reports_are_on_prompts_no_stage_has_used(out):
    """What a training stage reads is used, but for the comparisons that a reward model is reported on."""
    used = set()
    for stage in ("sft", "reward", "ppo", "dpo"):
        record = read(out / stage / "run.json")
        reports = [r for r in record["reads"] if r["purpose"] == "report" and Path(r["source"]).stem == "pairs"]
        learned_from = {r["split"] for r in record["reads"] if r not in reports}
        of_stage = {prompt for prompt, split in record["splits"].items() if split in learned_from}
        assert of_stage
        used |= of_stage
    rows = map(json.loads, (out / "evaluate" / "answers.jsonl").open())
    tested = {Prompt.from_json(row["prompt"]).id for row in rows}
    assert tested
    assert not tested & used


def test_the_run_record_leads_back_to_what_it_came_from(out, tiny_model_dir):
    assert read(out / "ppo" / "run.json")["parents"] == ["reward", "sft"]
    data = read(out / "reward" / "run.json")["data"]
    assert {Path(file).name for file in data} == {"pairs.jsonl", "prompts.jsonl"}
    assert data == {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in data}
    assert read(out / "sft" / "run.json")["models"] == {str(tiny_model_dir): tree_hash(tiny_model_dir)}
    assert read(out / "reward" / "run.json")["models"] == {}


def test_one_base_for_all_roles_learns_what_separate_models_learn(recipe, tmp_path):
    """Same seed and adapters: scores, KL and loss of every step agree to rounding."""
    adapters = ["reward.lora={rank = 2}", "ppo.lora={rank = 2}", "ppo.optimization.learning_rate=0.01"]
    steps = {}
    for shared in ("true", "false"):
        folder = tmp_path / shared
        run_recipe(load_recipe(recipe, [*adapters, f"ppo.share_base={shared}"]), folder)
        rows = [json.loads(line) for line in (folder / "ppo" / "metrics.jsonl").read_text().splitlines()]
        steps[shared] = [row for row in rows if row["kind"] == "train"]
    assert len(steps["true"]) == 3
    for one, other in zip(steps["true"], steps["false"], strict=True):
        for name in ("reward", "kl", "policy_loss", "value_loss"):
            assert one[name] == pytest.approx(other[name], abs=1e-4), name


def test_a_full_disk_is_told_before_models_answer(out, recipe, tmp_path, monkeypatch):
    """No file may grow beyond 9 kB, which a report does."""
    monkeypatch.setattr(LocalEngine, "sample", lambda *_, **__: pytest.fail("answers would be lost"))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, limits[1]))
    try:
        with pytest.raises(RunError, match=r"evaluate.*: cannot be written: File too large; free space"):
            evaluate_alone(recipe, out, tmp_path, "limit = 4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list((tmp_path / "run" / "evaluate").glob(".room*"))


def test_the_report_is_measured_with_intervals(out):
    report = read(out / "evaluate" / "report.json")
    for side in ("before", "after", "difference"):
        assert {"mean", "interval", "n"} <= report[side]["reward"].keys()
    assert 0 <= report["win_rate"]["mean"] <= 1
    assert report["kl"]["estimator"] == "exact"


def test_toxicity_is_not_measured_unless_a_measure_says_so(out, recipe, tmp_path):
    report = read(out / "evaluate" / "report.json")
    assert (report["before"]["toxicity"], report["after"]["toxicity"]) == (None, None)
    assert "toxicity" not in report["difference"]
    for page in (out / "report.html", out / "evaluate" / "report.html"):
        assert "Toxicity: not measured." in page.read_text()
    evaluate_alone(recipe, out, tmp_path, 'measures = ["toy:toxicity"]')
    report = read(tmp_path / "run" / "evaluate" / "report.json")
    assert report["before"]["toxicity"]["mean"] == report["after"]["toxicity"]["mean"] == 0.25


@pytest.mark.parametrize("temperature", [0, 0.5, 1, 2])
def test_perplexity_and_entropy_are_the_models_own_at_any_temperature(out, recipe, tmp_path, monkeypatch, temperature):
    """Against the logits of transformers, completion by completion, without padding or cache."""
    from transformers import AutoModelForCausalLM

    sampled = []
    sample = LocalEngine.sample
    monkeypatch.setattr(LocalEngine, "sample", lambda *a, **k: (sampled.append(sample(*a, **k)), sampled[-1])[1])
    evaluate_alone(recipe, out, tmp_path, f"temperature = {temperature}")
    report = read(tmp_path / "run" / "evaluate" / "report.json")
    models = [AutoModelForCausalLM.from_pretrained(out / stage / "model") for stage in ("sft", "ppo")]
    for side, rollout, model in zip(("before", "after"), sampled, models, strict=True):
        surprise, entropy = [], []
        for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True):
            with torch.no_grad():
                logits = [
                    m(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
                    for m in (models[0], model)
                ]
            surprise += F.cross_entropy(logits[0], torch.tensor(completion), reduction="none").tolist()
            entropy += Categorical(logits=logits[1]).entropy().tolist()
        assert report[side]["perplexity"] == pytest.approx(exp(mean(surprise)), rel=1e-4)
        assert report[side]["entropy"]["mean"] == pytest.approx(mean(entropy), rel=1e-4)
        assert report[side]["entropy"]["n"] == len({int(g) for g in rollout.group})


def evaluate_alone(recipe: Path, out: Path, folder: Path, setting: str) -> None:
    """A run of the stage `evaluate` only, with one more setting."""
    head, _, stage = recipe.read_text().rpartition("[[stage]]")
    shares = head[: head.index("[[stage]]")]
    text = shares + "[[stage]]" + stage + setting + "\n"
    for name in ("sft", "ppo", "reward"):
        text = text.replace(f'"@{name}"', f'"{out}/{name}/model"')
    (folder / "recipe.toml").write_text(text)
    toy = World(measures={"toxicity": lambda *_: 0.25})
    run_recipe(load_recipe(folder / "recipe.toml"), folder / "run", worlds={"toy": toy})


def test_running_again_changes_nothing(out, recipe):
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.suffix == ".safetensors"}
    run_recipe(load_recipe(recipe), out)
    assert {p: p.stat().st_mtime_ns for p in before} == before


class StopsInReward(Silent):
    """A person who presses Ctrl-C in the first step of the stage `reward`, when `sft` is done."""

    def stage(self, name: str, kind: str) -> None:
        self.now = name

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if self.now == "reward":
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["sft.jsonl", "pairs.jsonl", "model", "held.jsonl"])
def test_a_run_does_not_go_on_with_a_changed_file(recipe, tiny_model_dir, tmp_path, name):
    """The demonstrations and the model were read by a stage that is done, the comparisons by one that is not; what is
    held out decides what any stage reads.
    """
    for file in ("sft.jsonl", "pairs.jsonl", "prompts.jsonl"):
        shutil.copy(recipe.parent / file, tmp_path)
    write_jsonl(tmp_path / "held.jsonl", [{"prompt": "bread bread"}])
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    text = recipe.read_text().replace(str(tiny_model_dir), f"{tmp_path}/model")
    text = f'held_out = ["{tmp_path}/held.jsonl"]\n' + text.replace(str(recipe.parent), str(tmp_path))
    (tmp_path / "recipe.toml").write_text(text)

    def run(*, force: bool = False) -> None:
        run_recipe(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run", display=StopsInReward(), force=force)

    with pytest.raises(KeyboardInterrupt):
        run()
    changed = tmp_path / name / "config.json" if name == "model" else tmp_path / name
    before = changed.read_text()
    changed.write_text(before + "\n")
    with pytest.raises(RunError) as error:
        run()
    stage = {"pairs.jsonl": "run/reward", "held.jsonl": "run"}.get(name, "run/sft")
    assert str(error.value) == (
        f"{tmp_path / name}: changed since the run in {tmp_path / stage} began; "
        "restore it, or use --force to begin anew"
    )
    changed.write_text(before)
    with pytest.raises(KeyboardInterrupt):
        run()
    changed.write_text(before + "\n")
    with pytest.raises(KeyboardInterrupt):
        run(force=True)


def test_a_finished_run_tells_what_has_changed_and_keeps_its_result(tiny_model_dir, tmp_path):
    class Notes(Silent):
        notes: ClassVar[list[str]] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    write_jsonl(tmp_path / "prompts.jsonl", ({"prompt": f"{a} {b}"} for a in WORDS[:4] for b in WORDS[:4]))
    (tmp_path / "mine.py").write_text("def score(prompts, completions): return [1.0] * len(completions)\n")
    settings = {"reward": f"{tmp_path}/mine.py:score", "prompts": tmp_path / "prompts.jsonl", "max_new_tokens": 2}
    text = f'held_out = ["{tmp_path}/prompts.jsonl"]\n'
    text += stage_toml("evaluate", do="evaluate", before=tiny_model_dir, after=tiny_model_dir, **settings)
    (tmp_path / "recipe.toml").write_text(text)

    def run() -> bytes:
        run_recipe(load_recipe(tmp_path / "recipe.toml"), tmp_path / "run", display=Notes())
        return (tmp_path / "run" / "evaluate" / "report.json").read_bytes()

    first = run()
    assert run() == first
    assert not [note for note in Notes.notes if "changed" in note]
    (tmp_path / "mine.py").write_text("def score(prompts, completions): return [2.0] * len(completions)\n")
    assert run() == first
    assert Notes.notes[-1] == (
        f"evaluate: {tmp_path}/mine.py: changed since the run in {tmp_path}/run/evaluate began; this is the earlier "
        "result, use --force to begin anew"
    )


def test_a_run_goes_on_without_what_only_a_stage_that_is_done_has_read(recipe, tmp_path):
    shutil.copy(recipe.parent / "sft.jsonl", tmp_path)
    loaded = load_recipe(recipe, [f"sft.demonstrations={tmp_path}/sft.jsonl"])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_recipe(loaded, tmp_path / "run", display=StopsInReward())
        (tmp_path / "sft.jsonl").unlink(missing_ok=True)
    with pytest.raises(TunefulError, match=r"stage sft: demonstrations: data .*sft\.jsonl\" not found"):
        run_recipe(loaded, tmp_path / "run", display=StopsInReward(), force=True)


def test_another_recipe_is_refused_with_the_difference(out, recipe):
    with pytest.raises(RunError, match=r"kl_coef = 0\.05 there, 0\.5 here"):
        run_recipe(load_recipe(recipe, ["ppo.kl_coef=0.5"]), out)


def test_the_same_recipe_makes_the_same_numbers(out, recipe, tmp_path):
    run_recipe(load_recipe(recipe), tmp_path / "again")
    for stage in ("reward", "ppo"):
        rows = [
            [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.open()]
            for path in (out / stage / "metrics.jsonl", tmp_path / "again" / stage / "metrics.jsonl")
        ]
        assert rows[0] == rows[1]
