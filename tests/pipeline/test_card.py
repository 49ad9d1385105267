"""What a card says: each number is where its record has it, and what has no record is said to be not known."""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, metadata_load
from markdown_it import MarkdownIt
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tuneful.data.jsonl import write_jsonl
from tuneful.evaluation.report import number
from tuneful.feedback.judgments import read_judgments, write_judgments
from tuneful.pipeline.card import Subject, model_card
from tuneful.pipeline.export import export
from tuneful.pipeline.markdown import cell, code, place
from tuneful.pipeline.provenance import counts_of_groups
from tuneful.runs.lineage import Lineage, StageRecord, lineage
from tuneful.runs.manifest import file_hash

POLICY = Subject(name="out", form="merged", is_reward=False, base=None, num_weights=7, dtypes=["float32"], reward={})


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def exported(source: Path, tmp_path: Path, **options: Any) -> str:
    export(source, tmp_path / "out", **options)
    return (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def section(card: str, title: str) -> str:
    return card.split(f"## {title}\n")[1].partition("\n## ")[0].strip()


@pytest.fixture
def run(road: Path, tmp_path: Path) -> Path:
    """A copy that may be changed; the adapter on `sft` still finds it where it was."""
    return Path(shutil.copytree(road, tmp_path / "run"))


def rewrite(file: Path, **facts: Any) -> None:
    file.write_text(json.dumps(read(file) | facts))


def test_a_policys_card_leads_back_to_the_judgments(road: Path, tmp_path: Path) -> None:
    card = exported(road, tmp_path, merge=True)
    made = section(card, "How it was made").splitlines()
    names = [re.findall("`([a-z]+)`", line)[0] for line in made]
    assert names.index("labels") < names.index("consensus") < names.index("reward") < names.index("ppo")
    assert names[-1] == "ppo"
    assert len(set(names)) == len(names) == 6  # dpo and evaluate did not lead to it
    counts = [read(road / s / "run.json") for s in ("samples", "labels", "consensus")]
    assert f"{number(counts[0]['num_completions'])} completions of {counts[0]['num_prompts']} prompts" in card
    assert f"{number(counts[1]['num_judgments'])} judgments by `toy:raters`" in card
    assert f"{number(counts[2]['num_comparisons'])} comparisons" in card


def test_raters_are_counted(road: Path, tmp_path: Path) -> None:
    """Seven raters judge every prompt: five careful ones, and two that are no group of five."""
    judged = section(exported(road, tmp_path, merge=True), "Judgments")
    num_prompts = read(road / "samples" / "run.json")["num_prompts"]
    assert f"{number(7 * num_prompts)} judgments by 7 simulated raters; instructions `toy-1`" in judged
    assert f"Krippendorff's alpha: {number(read(road / 'consensus' / 'report.json')['agreement']['alpha'])}" in judged
    verdicts = [r["verdict"] for r in read(road / "consensus" / "report.json")["labelers"]]
    assert f"{verdicts.count('reliable')} reliable" in judged
    assert "1 inverted" in judged
    assert "hasty" not in judged and "careful" not in judged and "other groups` 7" in judged


def test_a_consensus_of_a_second_round_pools_judgments_and_groups(run: Path, tmp_path: Path) -> None:
    """The seven judge again, and three hasty ones join them: five careful, and with one at random five others."""
    new = {f"hasty-{n}": "hasty" for n in range(3)}
    for name in ("labels", "consensus", "dpo"):
        shutil.copytree(run / name, run / f"{name}_2")
    first = [json.loads(line) for line in (run / "labels" / "judgments.jsonl").open()]
    more = [row | {"rater": name} for name in new for row in first if row["rater"] == "hasty"]
    second = [row | {"id": f"{n}-2"} for n, row in enumerate([*first, *more])]
    write_jsonl(run / "labels_2" / "judgments.jsonl", second, force=True)
    (run / "labels_2" / "kinds.json").write_text(json.dumps(new))
    for name, inputs in (
        ("consensus_2", {"judgments": ["@labels", "@labels_2"], "completions": ["@samples", "@samples"]}),
        ("dpo_2", {"comparisons": "@consensus_2"}),
    ):
        recipe = read(run / name / "run.json")["recipe"]
        parents = [text.removeprefix("@") for text in inputs.get("judgments", ["@consensus_2"])]
        rewrite(run / name / "run.json", recipe=recipe | {"inputs": recipe["inputs"] | inputs}, parents=parents)
    card = exported(run / "dpo_2", tmp_path)
    judged = section(card, "Judgments")
    assert f"{number(len(first) + len(second))} judgments by 10 simulated raters" in judged
    assert "Groups of raters: `careful` 5, `other groups` 5." in judged
    assert "comparisons that the judgments of `labels`, `labels_2` agree on" in section(card, "How it was made")


@pytest.mark.parametrize(
    ("groups", "shown"),
    [
        ({"a": 7, "b": 5}, {"a": 7, "b": 5}),
        ({"a": 7, "b": 4, "c": 3}, {"a": 7, "other groups": 7}),
        ({"a": 7, "b": 6, "c": 3}, {"a": 7, "other groups": 9}),  # 3 alone would follow from the total
        ({"a": 7, "b": 1}, {"other groups": 8}),
        ({"a": 2, "b": 1}, {}),
        ({}, {}),
    ],
)
def test_no_group_below_five_is_told_or_can_be_worked_out(groups: dict[str, int], shown: dict[str, int]) -> None:
    assert counts_of_groups(name for name, count in groups.items() for _ in range(count)) == shown


def test_training_and_evaluation_are_those_of_the_records(road: Path, tmp_path: Path) -> None:
    card = exported(road, tmp_path, merge=True)
    training, evaluation = section(card, "Training"), section(card, "Evaluation")
    for told in ("`num_steps` 2", "`kl_coef` 0.050", "`lora.rank` 2", "`all 2 steps done`", "did not ring"):
        assert told in training
    rows = [json.loads(line) for line in (road / "ppo" / "metrics.jsonl").open()]
    spent = [row["kl"] for row in rows if row["kind"] == "evaluation"][-1]
    assert f"KL spent: {number(spent)} nats per completion on dev prompts after step 2" in training
    report = read(road / "evaluate" / "report.json")
    parsed = MarkdownIt("commonmark").enable("table").parse(card)
    found = [t.content for before, t in pairwise(parsed) if before.type in ("th_open", "td_open")]
    cells = [found[i : i + 4] for i in range(0, len(found), 4)]
    assert cells[0] == ["measure", "before", "after", "difference"]
    by_name = {row[0]: row[1:] for row in cells[1:]}
    assert by_name.keys() == {"`Length`", "`Reward`"}
    for name, key in (("`Length`", "length"), ("`Reward`", "reward")):
        for told, side in zip(by_name[name], ("before", "after", "difference"), strict=True):
            low, high = report[side][key]["interval"]
            assert told == f"{number(report[side][key]['mean'])} [{number(low)}, {number(high)}]"
    assert f"{report['num_prompts']} test prompts" in evaluation


def test_what_people_said_of_the_result_is_told(run: Path, tmp_path: Path) -> None:
    rate = {"mean": 0.8, "interval": [0.49, 0.943], "n": 10}
    people = {"win_rate": rate, "win_rate_by_consensus": None, "num_judgments": 30, "num_labelers": {"human": 3}}
    people |= {"agreement": {"reward": {"mean": 0.7, "interval": [0.4, 1.0], "n": 10}}}
    rewrite(run / "evaluate" / "report.json", people=people)
    card = exported(run / "ppo", tmp_path, merge=True)
    evaluation = section(card, "Evaluation")
    assert "Win rate by 30 judgments of 3 people, ties one half: 0.80 [0.49, 0.94]" in evaluation
    assert "by their consensus: not measured" in evaluation
    assert "`Reward` prefers what they prefer: 0.70 [0.40, 1.00]" in evaluation
    assert "No person judged" not in section(card, "Limits")


def test_limits_are_said(road: Path, tmp_path: Path) -> None:
    limits = section(exported(road, tmp_path, merge=True), "Limits")
    assert limits.splitlines() == [
        "- No person judged this model's answers.",
        "- No judgment that it came from is a person's: it shows what its raters prefer.",
        "- The reward in the table is what the model was tuned on; a higher one is no proof of better answers.",
    ]


def test_people_who_judged_the_result_are_seen(run: Path, road: Path, tmp_path: Path) -> None:
    """The answers of `dpo` were sampled, people judged them, and a consensus was reached."""
    for stage, inputs in (
        ("answers", {"model": "@dpo"}),
        ("verdict", {"completions": "@answers", "judgments": "@people"}),
    ):
        shutil.copytree(run / ("samples" if stage == "answers" else "consensus"), run / stage)
        recipe = read(run / stage / "run.json")["recipe"]
        rewrite(run / stage / "run.json", recipe=recipe | {"inputs": recipe["inputs"] | inputs})
    assert "No person judged" in exported(run / "dpo", tmp_path)
    (run / "people").mkdir()
    rows = [json.loads(line) | {"rater_kind": "human"} for line in (run / "labels" / "judgments.jsonl").open()]
    write_jsonl(run / "people" / "judgments.jsonl", rows)
    card = exported(run / "dpo", tmp_path, force=True)
    assert "No person judged" not in card
    assert "not measured" in section(card, "Evaluation").lower()


def test_a_reward_models_card(road: Path, tmp_path: Path) -> None:
    card = exported(road / "reward", tmp_path, merge=True)
    facts = read(road / "reward" / "model" / "reward.json")
    assert f"gain {number(facts['gain'], 4)}, bias {number(facts['bias'], 4)}" in card
    assert "The head has no bias term" in card
    assert "its stage measured no accuracy on held-out pairs" in card
    assert metadata_load(tmp_path / "out" / "README.md") == {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": ["tuneful", "reward-model", "reward"],
    }


def test_accuracy_stands_beside_what_length_gives(run: Path, tmp_path: Path) -> None:
    def measure(mean: float) -> dict[str, Any]:
        return {"mean": mean, "interval": [mean - 0.05, mean + 0.05], "n": 300}

    measured = {"heldout_accuracy": measure(0.71), "baselines": {"shorter_wins": measure(0.58)}}
    rewrite(run / "reward" / "report.json", reward_model=measured)
    told = section(exported(run / "reward", tmp_path), "Reward")
    assert "accuracy on held-out pairs 0.71 [0.66, 0.76], of 300 prompts" in told
    assert "`Shorter wins` on the same pairs: 0.58 [0.53, 0.63]" in told


def test_an_alarm_is_told(run: Path, tmp_path: Path) -> None:
    rewrite(run / "ppo" / "report.json", alarm={"step": 7, "kind": "alarm", "reason": "reward hacking, 2 running"})
    card = exported(run / "ppo", tmp_path, merge=True)
    assert "The alarm for reward hacking rang at step 7, `reward hacking, 2 running`" in card


def test_judgments_of_a_file_are_read_while_they_are_the_same(run: Path, tmp_path: Path) -> None:
    """As of people, brought in by a path: two of them, one of whom thought better of it."""
    file = tmp_path / "people.jsonl"
    first, second, *_ = read_judgments(run / "labels" / "judgments.jsonl")
    rows = [json.loads(line) for line in (run / "labels" / "judgments.jsonl").read_text().splitlines()[:2]]
    again = rows[0] | {"id": "again", "replaces": first.id}
    write_jsonl(file, [row | {"rater_kind": "human", "instructions": ""} for row in (*rows, again)])
    assert first.rater != second.rater
    recipe = read(run / "consensus" / "run.json")["recipe"]
    recipe["inputs"]["judgments"] = str(file)
    rewrite(run / "consensus" / "run.json", recipe=recipe, data={str(file): file_hash(file)})
    judged = section(exported(run / "dpo", tmp_path), "Judgments")
    assert "2 judgments by 2 people; their instructions are not known" in judged
    assert str(tmp_path) not in judged
    write_judgments(file, [first], force=True)
    judged = section(exported(run / "dpo", tmp_path, force=True), "Judgments")
    assert "no longer where they were: their number, raters and instructions are not known" in judged


def test_what_is_gone_is_said_and_nothing_is_made_up(run: Path, tmp_path: Path) -> None:
    for stage in ("labels", "samples", "evaluate"):
        shutil.rmtree(run / stage)
    (run / "ppo" / "metrics.jsonl").unlink()
    (run / "ppo" / "report.json").unlink()
    (run / "consensus" / "report.json").unlink()
    card = exported(run, tmp_path, merge=True)
    assert "- Not followed: `the folder of stage labels, which consensus built on, is gone`." in card
    assert "their number, raters and instructions are not known" in card
    assert "Krippendorff's alpha: not known" in card
    assert "Verdicts on the raters: not known" in card
    assert "How it ended: not known" in card
    assert "KL spent: not known" in card
    assert "alarm" not in card
    assert "Not measured: no stage of its run has evaluated this model." in card


def test_a_model_from_elsewhere(tiny_model_dir: Path, tmp_path: Path) -> None:
    card = exported(tiny_model_dir, tmp_path)
    assert section(card, "How it was made").startswith("Not known: no record of a run")
    assert "What it began from is not known." in card
    assert "## Training" not in card and "## Evaluation" not in card
    assert metadata_load(tmp_path / "out" / "README.md")["tags"] == ["tuneful"]


def test_the_licence_is_the_bases_own(tiny_model_dir: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_model_dir, tmp_path / "base"))
    model: Any = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules="all-linear")
    )
    model.save_pretrained(tmp_path / "adapter")
    for front, licence in (("license: apache-2.0", "apache-2.0"), ("license: [a, b]", None), ("a: b: c", None)):
        (base / "README.md").write_text(f"---\n{front}\n---\n\n# A base\n")
        exported(tmp_path / "adapter", tmp_path, force=True)
        card = ModelCard.load(tmp_path / "out" / "README.md")
        assert card.data.license == licence
        assert card.data.library_name == "peft"


def stage(kind: str, inputs: dict[str, Any], **facts: Any) -> StageRecord:
    return StageRecord(Path("nowhere") / kind, {"recipe": {"kind": kind, "inputs": inputs}, **facts}, {})


def front(*stages: StageRecord, **changes: Any) -> dict[str, Any]:
    import yaml

    (_, matter, _) = model_card(POLICY, Lineage(list(stages))).split("---\n", 2)
    parsed: dict[str, Any] = yaml.safe_load(matter)
    return parsed


def test_the_hub_is_told_of_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base and data sets by their hub ids; nothing that is a file or folder here, and no stage."""
    monkeypatch.setattr("tuneful.pipeline.provenance.siblings", lambda stage: iter(()))
    sft = stage("sft", {"model": "meta-llama/Llama-3.2-1B", "demonstrations": "HuggingFaceH4/no_robots/train"})
    dpo = stage("dpo", {"model": "@sft", "comparisons": "hh-harmless/train"}, data={"hh-harmless/train": "abc"})
    assert front(sft, dpo)["base_model"] == "meta-llama/Llama-3.2-1B"
    assert front(sft, dpo)["datasets"] == ["Anthropic/hh-rlhf", "HuggingFaceH4/no_robots"]
    assert front(sft, dpo)["tags"] == ["tuneful", "dpo"]
    kto = stage("kto", {"model": "@sft", "preferences": "hh-harmless/train"}, data={"hh-harmless/train": "abc"})
    assert front(sft, kto)["datasets"] == ["Anthropic/hh-rlhf", "HuggingFaceH4/no_robots"]
    told = model_card(POLICY, Lineage([kto]))
    assert "KTO on `sft` with" in told and "judged answers of `hh-harmless/train`" in told
    assert "Who judged or wrote `hh-harmless/train`, which `kto` learned from, is not known." in told
    here = stage("sft", {"model": "models/mine", "demonstrations": "data/mine"})
    read = {"data": {"data/mine": "abc"}, "models": {"models/mine": "def"}}
    known = stage("sft", {"model": "models/mine", "demonstrations": "data/mine"}, **read)
    assert front(here)["base_model"] == "models/mine"  # no folder was recorded, so it was fetched
    assert "base_model" not in front(known) and "datasets" not in front(known)
    for world in ("demo:base", "./mine", "/models/mine", "~/mine"):
        assert "base_model" not in front(stage("sft", {"model": world, "demonstrations": "demo:prompts"}))


HOSTILE = '`</a><script>alert(1)</script> | # h\n---\nlicense: mine\n"\\ \u202e${x} ``` [l](http://x) <!--'


def test_hostile_names_break_neither_page_nor_front_matter(run: Path, tmp_path: Path) -> None:
    """Strangers' words in every place that a card reads them from."""
    rows = [json.loads(line) | {"instructions": HOSTILE} for line in (run / "labels" / "judgments.jsonl").open()]
    write_jsonl(run / "labels" / "judgments.jsonl", rows, force=True)
    (run / "labels" / "kinds.json").write_text(json.dumps({str(n): HOSTILE for n in range(6)}))
    report = read(run / "evaluate" / "report.json")
    for side in ("before", "after", "difference"):
        report[side] |= {HOSTILE: report[side]["length"]}
    report["people"] = {"num_judgments": 1, "num_labelers": {HOSTILE: 1}, "agreement": {HOSTILE: None}}
    rewrite(run / "evaluate" / "report.json", **report)
    rewrite(run / "ppo" / "report.json", ended=HOSTILE, alarm={"step": 1, "reason": HOSTILE})
    recipe = read(run / "ppo" / "run.json")["recipe"]
    recipe["inputs"] |= {"reward": HOSTILE}
    rewrite(run / "ppo" / "run.json", recipe=recipe, environment={"tuneful": HOSTILE})
    card = exported(run / "ppo", tmp_path, merge=True)
    assert card.count("alert(1)") > 5
    parsed = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    inline = [child for token in parsed for child in token.children or ()]
    assert {child.type for child in inline} <= {"text", "code_inline", "softbreak"}
    assert [t.content.strip() for t in parsed if t.type == "html_block"] == ["<!-- Written by tuneful export. -->"]
    assert "alert(1)" not in "".join(child.content for child in inline if child.type == "text")
    titles = [parsed[i + 1].content for i, token in enumerate(parsed) if token.type == "heading_open"]
    assert len(titles) == 8
    rows_ = [t for t in parsed if t.type == "tr_open"]
    assert len([t for t in parsed if t.type in ("td_open", "th_open")]) == 4 * len(rows_)
    assert metadata_load(tmp_path / "out" / "README.md").keys() == {"library_name", "pipeline_tag", "tags"}


@pytest.mark.parametrize("text", ["a", "``", "`a", "a`", "", "\n", "a\n\nb", "x" * 900, "a | b", "\\|"])
def test_any_text_is_one_code_span(text: str) -> None:
    [paragraph, inline, _] = MarkdownIt("commonmark").parse(f"- x\n\n{code(text)}")[-3:]
    assert paragraph.type == "paragraph_open"
    [span] = inline.children or []
    assert span.type == "code_inline"
    assert span.content == (" ".join(text.split())[:200] or "?")
    assert "\n" not in cell(text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("@sft", "`sft`"),
        ("demo:base", "`demo:base`"),
        ("meta-llama/Llama-3.2-1B", "`meta-llama/Llama-3.2-1B`"),
        ("/home/ada/secret/llama", "`llama`"),
        ("../runs/ppo/model", "`ppo/model`"),
        ("./my_reward.py:score", "`my_reward.py:score`"),
    ],
)
def test_paths_of_a_machine_stay_on_it(name: str, shown: str) -> None:
    assert place(name) == shown


def test_no_path_of_this_machine_is_in_a_card(road: Path, tmp_path: Path) -> None:
    for source, options in ((road, {"merge": True}), (road / "dpo", {}), (road / "reward", {})):
        card = exported(source, tmp_path, force=True, **options)
        assert "/tmp" not in card
        assert str(road.parent) not in card
    assert lineage(road / "dpo" / "model").lost == []
