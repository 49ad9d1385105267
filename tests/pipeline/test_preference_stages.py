"""The stages `orpo`, `simpo` and `kto` beside `dpo`: what they read, leave, say and go on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.data.jsonl import write_jsonl
from tuneful.data.splits import split_of
from tuneful.errors import ConfigError, DataError
from tuneful.evaluation.report import label
from tuneful.feedback.dataset import write_dataset
from tuneful.pipeline.context import Silent
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Candidates, Completion, Judgment, Prompt

STAGES = ("orpo", "simpo", "kto", "thumbs")
SPLITS = "splits = { reward = 0.6, rl = 0.2, dev = 0.1, test = 0.1 }\n"
FEW: dict[str, Any] = {"optimization": {"learning_rate": 0.01}, "save_every": 1}


class Watching(Silent):
    """Keeps the notes; cuts the run off in the stage `stop` before its second step is saved."""

    def __init__(self, stop: str = "") -> None:
        self.notes: list[str] = []
        self.stop, self.now = stop, ""

    def stage(self, name: str, kind: str) -> None:
        self.now = name

    def step(self, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if self.now == self.stop and metrics and done == 2:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """Pairs, a quarter of them less sure, and thumbs, four up to one down."""
    folder = tmp_path_factory.mktemp("preferences")
    prompts = [f"{a} {b}" for a in WORDS for b in WORDS[:2]]
    pairs = (
        {"prompt": p, "chosen": "yes please", "rejected": "no", "p": 0.7 if k % 4 == 0 else 1.0}
        for k, p in enumerate(prompts)
    )
    write_jsonl(folder / "pairs.jsonl", pairs)
    labels = [k % 5 != 0 for k in range(len(prompts))]
    said = ["yes please" if good else "no" for good in labels]
    thumbs = ({"prompt": p, "completion": c, "label": g} for p, c, g in zip(prompts, said, labels, strict=True))
    write_jsonl(folder / "thumbs.jsonl", thumbs)
    on_pairs = {"model": tiny_model_dir, "comparisons": folder / "pairs.jsonl", "pairs_per_step": 8, **FEW}
    on_answers = {"model": tiny_model_dir, "answers_per_step": 8, **FEW}
    stages = [
        stage_toml("orpo", algorithm="orpo", **on_pairs),
        stage_toml("simpo", algorithm="simpo", lora={"rank": 2}, **on_pairs),
        stage_toml("kto", algorithm="kto", lora={"rank": 2}, preferences=folder / "pairs.jsonl", **on_answers),
        stage_toml("thumbs", algorithm="kto", preferences=folder / "thumbs.jsonl", **on_answers),
    ]
    (folder / "recipe.toml").write_text(SPLITS + "".join(stages))
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def ran(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of a run that was cut off in its last stage and went on, and all notes."""
    out = tmp_path_factory.mktemp("out") / "run"
    first, second = Watching(stop="thumbs"), Watching()
    with pytest.raises(KeyboardInterrupt):
        run_recipe(load_recipe(recipe), out, display=first)
    assert (out / "thumbs" / "checkpoints" / "step-00000001").exists()
    run_recipe(load_recipe(recipe), out, display=second)
    return out, first.notes + second.notes


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def train_rows(out: Path, stage: str) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (out / stage / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "train"]


def in_reward(recipe: Path, file: str) -> int:
    rows = [json.loads(line) for line in (recipe.parent / file).read_text().splitlines()]
    shares = load_recipe(recipe).splits
    return sum(split_of(Prompt(row["prompt"]), shares) == "reward" for row in rows)


@pytest.mark.parametrize("stage", STAGES)
def test_it_leaves_a_model_and_a_report(stage: str, ran: tuple[Path, list[str]]) -> None:
    out, _ = ran
    assert {"model", "report.html", "report.json", "run.json"} <= {path.name for path in (out / stage).iterdir()}
    memory = read(out / stage / "run.json")["memory"]
    assert sum(memory["parts"].values()) == memory["planned"]
    losses = [row["loss"] for row in train_rows(out, stage)]
    assert len(losses) > 2
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("stage", STAGES)
def test_it_reads_the_reward_split_and_counts(stage: str, recipe: Path, ran: tuple[Path, list[str]]) -> None:
    """Near copies aside, of which these two words have none; a pair is two answers."""
    out, _ = ran
    record, report = read(out / stage / "run.json"), read(out / stage / "report.json")
    assert [(r["split"], r["purpose"]) for r in record["reads"]] == [("reward", "train")]
    if stage == "thumbs":
        assert report["num_answers"] == in_reward(recipe, "thumbs.jsonl")
    elif stage == "kto":
        assert report["num_answers"] == 2 * in_reward(recipe, "pairs.jsonl")
    else:
        assert report["num_comparisons"] == in_reward(recipe, "pairs.jsonl")


def test_each_starts_where_its_mathematics_says(ran: tuple[Path, list[str]]) -> None:
    out, _ = ran
    assert train_rows(out, "kto")[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert train_rows(out, "thumbs")[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    first = train_rows(out, "orpo")[0]
    assert first["loss"] == pytest.approx(first["nll"] + 0.1 * first["odds_ratio_loss"], rel=1e-5)
    assert first["nll"] > 1  # of an untrained model
    for stage in ("orpo", "simpo"):
        assert {"accuracy", "margin", "chosen_logprob", "rejected_logprob"} <= train_rows(out, stage)[0].keys()


def test_a_cut_off_run_goes_on_as_if_it_had_not_been(recipe: Path, ran: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Bitwise: the order of answers, and so which are mismatched, follows from the step."""
    out, _ = ran
    run_recipe(load_recipe(recipe), tmp_path / "whole")
    for stage in ("kto", "thumbs"):
        [ours] = (out / stage / "model").glob("*.safetensors")
        [theirs] = (tmp_path / "whole" / stage / "model").glob("*.safetensors")
        found, whole = load_file(ours), load_file(theirs)
        assert found.keys() == whole.keys()
        assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_unlike_numbers_of_good_and_bad_answers_are_told(recipe: Path, ran: tuple[Path, list[str]]) -> None:
    """Of the thumbs alone, since each pair has one of either; weights of 1 / ratio to 1.5 / ratio would mend it."""
    _, notes = ran
    rows = [json.loads(line) for line in (recipe.parent / "thumbs.jsonl").read_text().splitlines()]
    shares = load_recipe(recipe).splits
    labels = [row["label"] for row in rows if split_of(Prompt(row["prompt"]), shares) == "reward"]
    ratio = sum(labels) / (len(labels) - sum(labels))
    advised = f"1 to 1.5 is advised; desirable_weight = {1 / ratio:.3g} to {1.5 / ratio:.3g} would be"
    [told] = {note for note in notes if "good answers" in note}
    assert told.startswith("warning: desirable_weight x good answers / (undesirable_weight x bad answers) is ")
    assert told.endswith(f" is {ratio:.3g}, and {advised}")


def run_on(rows: list[dict[str, Any]], model: Path, folder: Path) -> list[str]:
    """The notes of KTO on these rows."""
    write_jsonl(folder / "rows.jsonl", rows)
    stage = stage_toml("kto", algorithm="kto", model=model, preferences=folder / "rows.jsonl", answers_per_step=8)
    (folder / "recipe.toml").write_text(f"splits = {{ reward = 1.0 }}\n{stage}")
    display = Watching()
    run_recipe(load_recipe(folder / "recipe.toml"), folder / "run", display=display)
    return display.notes


def test_thumbs_of_a_store_are_learned_with_what_their_voters_said(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Two voters say yes of four answers and no of four: p of the latter is one less p of the former.

    By these probabilities good answers pull 4 p + 4 (1 - p) = 4, and bad ones as much, so that there is nothing to say.
    """
    asked = [Candidates(Prompt(f"{word} now"), (Completion("yes", id=word),)) for word in WORDS[:8]]
    said = [
        Judgment(
            id=f"{rater}-{k}",
            item=item.completions[0].id,
            prompt=item.prompt.id,
            completions=(item.completions[0].id,),
            rater=rater,
            kind="binary",
            values={"preference": float(k < 4)},
        )
        for k, item in enumerate(asked)
        for rater in ("ann", "ben")
    ]
    write_dataset(tmp_path / "thumbs", said, asked, name="Thumbs", shares={"reward": 1.0})
    [file] = (tmp_path / "thumbs").glob("unpaired-reward*")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    likely = sorted(row["p"] for row in rows)
    assert 0 < likely[0] < 0.1
    assert likely == pytest.approx([likely[0]] * 4 + [1 - likely[0]] * 4)
    notes = run_on(rows, tiny_model_dir, tmp_path)
    assert not [note for note in notes if "good answers" in note]
    assert read(tmp_path / "run" / "kto" / "report.json")["num_answers"] == 8
    [row] = train_rows(tmp_path / "run", "kto")
    assert {"desirable_logprob", "undesirable_logprob", "margin"} <= row.keys()  # each answer is a little of both


def test_answers_all_good_are_told(tiny_model_dir: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{word} now", "completion": "yes", "label": True} for word in WORDS[:8]]
    [told] = [note for note in run_on(rows, tiny_model_dir, tmp_path) if "good answers" in note]
    assert told.endswith("is inf, and 1 to 1.5 is advised; there are no bad answers")


def test_what_is_no_preference_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds demonstrations; expected"):
        run_on([{"prompt": "hot tea", "completion": "yes"}], tiny_model_dir, tmp_path)


def test_comparisons_of_a_consensus_are_taken_by_all(tmp_path: Path) -> None:
    stages = [
        stage_toml("agreed", do="consensus", judgments="j.jsonl", completions="c.jsonl"),
        stage_toml("orpo", algorithm="orpo", model="m", comparisons="@agreed"),
        stage_toml("simpo", algorithm="simpo", model="@orpo", comparisons="@agreed"),
        stage_toml("kto", algorithm="kto", model="@simpo", preferences="@agreed"),
    ]
    (tmp_path / "recipe.toml").write_text("".join(stages))
    assert [stage.kind for stage in load_recipe(tmp_path / "recipe.toml").stages] == [
        "consensus",
        "orpo",
        "simpo",
        "kto",
    ]
    (tmp_path / "recipe.toml").write_text(
        "".join([*stages, stage_toml("b", algorithm="kto", model="m", preferences="@kto")])
    )
    with pytest.raises(ConfigError, match='stage b: preferences = "@kto": that stage makes a model'):
        load_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    ("stage", "settings", "said"),
    [
        ("dpo", {"loss": "robust"}, 'stage a: dpo.loss = "robust" needs label_noise'),
        ("dpo", {"loss": "ipo", "label_noise": 0.1}, 'dpo.label_noise is not for loss = "ipo"'),
        ("dpo", {"loss": "kto"}, "\"loss\" = 'kto'"),
        ("orpo", {"beta": 0.1}, 'unknown setting "beta"'),
        ("simpo", {"margin": 0.1}, 'unknown setting "margin"'),
        ("kto", {"answers_per_step": 1}, "kto.answers_per_step must be at least 2"),
        ("kto", {"comparisons": "b"}, 'unknown setting "comparisons"'),
    ],
)
def test_wrong_settings_are_named(stage: str, settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    given = {"preferences": "a.jsonl"} if stage == "kto" else {"comparisons": "a.jsonl"}
    text = stage_toml("a", algorithm=stage, model="m", **given, **settings)
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_recipe(tmp_path / "recipe.toml")
    assert said in str(error.value)


def test_reports_spell_the_learners_as_their_papers_do() -> None:
    assert [label(stage) for stage in ("orpo", "simpo", "kto", "nll")] == ["ORPO", "SimPO", "KTO", "NLL"]
