"""Rounds: what a recipe written once means when it runs several times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.pipeline.recipes import WORDS, stage_toml
from tuneful.data.formats import read_candidates, read_comparisons
from tuneful.data.jsonl import write_jsonl
from tuneful.demo.grammar import prompts
from tuneful.demo.labelers import simulate
from tuneful.errors import ConfigError
from tuneful.pipeline import provenance
from tuneful.pipeline.context import Labeling, World
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Candidates, Completion, Judgment
from tuneful.runs.lineage import lineage
from tuneful.runs.logs import read_log

RECIPE = """
rounds = {rounds}

[[stage]]
name = "sft"
algorithm = "sft"
once = true
model = "somewhere"
demonstrations = "demonstrations.jsonl"

[[stage]]
name = "samples"
do = "generate"
model = "@sft"
prompts = "prompts.jsonl"
again = {{ model = "@ppo", offset = 100 }}

[[stage]]
name = "labels"
do = "label"
completions = "@samples"
raters = "demo:labelers"

[[stage]]
name = "consensus"
do = "consensus"
judgments = "@labels"
completions = "@samples"

[[stage]]
name = "reward"
algorithm = "reward"
model = "@sft"
comparisons = "@consensus"
normalise_prompts = "prompts.jsonl"
normalise_model = "@sft"

[[stage]]
name = "ppo"
algorithm = "ppo"
model = "@sft"
prompts = "prompts.jsonl"
reward = "@reward"
again = {{ model = "@ppo", reference = "@sft", start = "tuned", kl_coef = 0.2 }}
"""


def recipe(tmp_path: Path, text: str, rounds: int = 2, overrides: tuple[str, ...] = ()):
    path = tmp_path / "recipe.toml"
    path.write_text(text.format(rounds=rounds))
    return load_recipe(path, overrides)


def test_three_rounds(tmp_path):
    loaded = recipe(tmp_path, RECIPE, rounds=3)
    assert [(s.name, s.round) for s in loaded.stages] == [
        ("sft", 1), ("samples", 1), ("labels", 1), ("consensus", 1), ("reward", 1), ("ppo", 1),
        ("samples_2", 2), ("labels_2", 2), ("consensus_2", 2), ("reward_2", 2), ("ppo_2", 2),
        ("samples_3", 3), ("labels_3", 3), ("consensus_3", 3), ("reward_3", 3), ("ppo_3", 3),
    ]  # fmt: skip
    of = {s.name: s.inputs for s in loaded.stages}
    # Round 1 as it stands.
    assert (of["samples"].model, of["samples"].offset) == ("@sft", 0)
    assert (of["consensus"].judgments, of["consensus"].completions) == ("@labels", "@samples")
    assert (of["ppo"].model, of["ppo"].reference, of["ppo"].start) == ("@sft", None, "reference")
    # Later rounds: the policy of the round before answers and goes on; the reference stays.
    assert (of["samples_2"].model, of["samples_3"].model) == ("@ppo", "@ppo_2")
    assert (of["ppo_2"].model, of["ppo_2"].reference, of["ppo_2"].reward) == ("@ppo", "@sft", "@reward_2")
    assert (of["ppo_3"].model, of["ppo_3"].reference, of["ppo_3"].reward) == ("@ppo_2", "@sft", "@reward_3")
    assert of["ppo_3"].start == "tuned"
    # The reward starts from the same model and learns from the consensus of all labels so far.
    assert (of["reward_3"].model, of["reward_3"].comparisons) == ("@sft", "@consensus_3")
    assert of["consensus_2"].judgments == ("@labels", "@labels_2")
    assert of["consensus_3"].judgments == ("@labels", "@labels_2", "@labels_3")
    assert of["consensus_3"].completions == ("@samples", "@samples_2", "@samples_3")


def test_settings_and_seeds_of_a_round(tmp_path):
    first, second = (s.config for s in recipe(tmp_path, RECIPE).stages if s.kind == "ppo")
    assert (first.kl_coef, second.kl_coef) == (0.05, 0.2)
    assert first.seed == 0
    assert second.seed != first.seed  # else the second round would draw the first one's numbers again


def test_overrides_reach_all_rounds_or_the_later_ones(tmp_path):
    loaded = recipe(tmp_path, RECIPE, overrides=("ppo.clip=0.1", "ppo.again.kl_coef=0.4", "samples.limit=7"))
    first, second = (s.config for s in loaded.stages if s.kind == "ppo")
    assert (first.clip, second.clip, first.kl_coef, second.kl_coef) == (0.1, 0.1, 0.05, 0.4)
    assert [s.inputs.limit for s in loaded.stages if s.kind == "generate"] == [7, 7]


def test_one_round_leaves_again_out(tmp_path):
    once = recipe(tmp_path, RECIPE, rounds=2, overrides=("rounds=1",))
    assert [s.name for s in once.stages] == ["sft", "samples", "labels", "consensus", "reward", "ppo"]


def test_again_needs_rounds(tmp_path):
    """They may be 1: then `again` waits for them to be raised."""
    text = RECIPE.replace("once = true", "").replace("rounds = {rounds}", "")
    with pytest.raises(ConfigError, match=r'recipe.toml: stage samples: "again" says nothing without rounds; write'):
        recipe(tmp_path, text)
    assert len(recipe(tmp_path, text, overrides=("rounds=1",)).stages) == 6


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kl_coef = 0.2", "kl_coeff = 0.2", 'stage ppo_2: unknown setting "kl_coeff"; did you mean "kl_coef"?'),
        ('start = "tuned"', 'name = "other"', 'stage ppo: again cannot change "name"'),
        ("once = true", "once = 1", "stage sft: once = 1: write true"),
        ("once = true", 'once = true\nagain = {{ model = "@ppo" }}', "stage sft: once = true leaves no later round"),
        (RECIPE, RECIPE + '[[stage]]\nname = "ppo_2"\ndo = "label"\ncompletions = "x"\nraters = "y"', 'called "ppo_2"'),
        ("rounds = {rounds}", "", 'stage sft: "once" says nothing without rounds; write rounds = 2 above the stages'),
        ("rounds = {rounds}", "rounds = 0", "rounds must be at least 1, got 0"),
        ('completions = "@samples"\nraters', 'completions = "@ppo"\nraters', 'completions = "@ppo" names no earlier'),
        ('again = {{ model = "@ppo", offset', 'again = {{ model = "@labels", offset', "needs a model"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(tmp_path, old, new, said):
    assert old in RECIPE
    with pytest.raises(ConfigError) as error:
        recipe(tmp_path, RECIPE.replace(old, new, 1))
    assert said in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'recipe.toml'}: ")


def test_a_mistake_of_a_later_round_is_named_before_that_round_is_asked_for(tmp_path):
    with pytest.raises(ConfigError, match='unknown setting "kl_coeff"'):
        recipe(tmp_path, RECIPE.replace("kl_coef = 0.2", "kl_coeff = 0.2"), rounds=1)


def test_nothing_left_for_a_later_round(tmp_path):
    alone = RECIPE[: RECIPE.index('[[stage]]\nname = "samples"')]
    with pytest.raises(ConfigError, match="rounds = 2, but every stage says once = true"):
        recipe(tmp_path, alone)


def test_labelers_stay_who_they_are_and_judge_anew():
    asked = prompts(seed=0)[:20]
    items = [Candidates(p, tuple(Completion(t, id=f"{i}-{t}") for t in "ab")) for i, p in enumerate(asked)]
    first, again, later = (simulate(items, seed=3, round_number=r) for r in (1, 1, 2))
    assert first == again
    assert first.kinds == later.kinds
    assert not {j.id for j in first.judgments} & {j.id for j in later.judgments}
    assert max(j.created_at for j in first.judgments) < min(j.created_at for j in later.judgments)


def two_rounds(model, prompts):
    """The policy of round 1 answers in round 2 and is tuned further."""
    asked = {"prompts": prompts, "limit": 12, "num_samples": 3, "max_new_tokens": 5}
    normalised = {"normalise_prompts": prompts, "normalise_model": model, "normalise_samples": 512}
    steps = {"num_steps": 2, "prompts_per_step": 8, "epochs": 1, "evaluate_prompts": 4}
    tuned = {"model": model, "max_new_tokens": 5, "optimization": {"learning_rate": 1e-2}}
    again = {"model": "@ppo", "reference": model, "start": "tuned"}
    stages = [
        stage_toml("samples", do="generate", model=model, again={"model": "@ppo", "offset": 12}, **asked),
        stage_toml("labels", do="label", completions="@samples", raters="toy:people", raters_per_item=2),
        stage_toml("consensus", do="consensus", judgments="@labels", completions="@samples"),
        stage_toml("reward", algorithm="reward", comparisons="@consensus", prompts_per_step=6, **normalised, **tuned),
        stage_toml("ppo", algorithm="ppo", prompts=prompts, reward="@reward", again=again, **steps, **tuned),
    ]
    return "rounds = 2\nsplits = { reward = 0.5, rl = 0.3, dev = 0.2, test = 0.0 }\n" + "".join(stages)


def people(items, raters_per_item, seed, round_number):
    """Two people who like short answers; an id says which round it is of."""
    judgments = [
        Judgment(
            id=f"{round_number}-{rater}-{number}",
            item=item.prompt.id,
            prompt=item.prompt.id,
            completions=tuple(c.id for c in item.completions),
            rater=rater,
            ranks=tuple(1 + sorted(len(c.text) for c in item.completions).index(len(c.text)) for c in item.completions),
        )
        for number, item in enumerate(items)
        for rater in ("ann", "ben")[:raters_per_item]
    ]
    return Labeling(judgments)


@pytest.fixture(scope="module")
def out(tmp_path_factory, tiny_model_dir):
    """A finished run of two rounds."""
    folder = tmp_path_factory.mktemp("rounds")
    asked = [[{"role": "user", "content": f"{a} {b}"}] for a in WORDS for b in WORDS[:6]]
    write_jsonl(folder / "prompts.jsonl", ({"prompt": prompt} for prompt in asked))
    (folder / "recipe.toml").write_text(two_rounds(tiny_model_dir, folder / "prompts.jsonl"))
    out = folder / "out"
    run_recipe(load_recipe(folder / "recipe.toml"), out, worlds={"toy": World(raters={"people": people})})
    return out


def test_a_second_round_on_a_tiny_model(out):
    first, second = (read_candidates(out / name / "completions.jsonl") for name in ("samples", "samples_2"))
    assert len(first) == len(second) == 12
    assert not {item.prompt.id for item in first} & {item.prompt.id for item in second}
    assert {c.model for item in second for c in item.completions} == {"@ppo"}

    facts = {name: json.loads((out / name / "run.json").read_text()) for name in ("consensus_2", "reward_2", "ppo_2")}
    assert facts["consensus_2"]["parents"] == ["labels", "labels_2", "samples", "samples_2"]
    both = {c.prompt.id for c in read_comparisons(out / "consensus_2" / "comparisons.jsonl")}
    assert both == {item.prompt.id for item in [*first, *second]}
    assert json.loads((out / "reward_2" / "report.json").read_text())["num_prompts"] == len(both)

    # The second policy starts from the first one, so away from the reference, which is the model before everything.
    kl = next(c for c in facts["ppo_2"]["checks"] if c["name"].startswith("KL(policy, reference)"))
    assert kl["value"] > 1e-3
    (start, *_) = [r for r in read_log(out / "ppo_2" / "metrics.jsonl") if r["kind"] == "evaluation"]
    assert start["kl"] > 1e-3


def test_a_card_follows_the_judgments_of_all_rounds(out):
    """Two people judge each of the 12 prompts of a round; only the first policy's answers are ever asked for."""
    first, second = (lineage(out / name / "model") for name in ("ppo", "ppo_2"))
    told = [line for line in provenance.judgments(second) if "judgments by" in line]
    assert [line.partition(" judgments")[0] for line in told] == [
        "- `consensus` was reached on 24",
        "- `consensus_2` was reached on 48",
    ]
    assert all("by 2 people" in line for line in told)
    [made] = [line for line in provenance.stages(second) if "`consensus_2`:" in line]
    assert made.endswith("comparisons that the judgments of `labels`, `labels_2` agree on.")
    unjudged = "- No person judged this model's answers."
    assert unjudged not in provenance.limits(first)
    assert unjudged in provenance.limits(second)


def test_people_of_an_earlier_round_have_not_judged_the_answers_of_a_later_one(out, tmp_path):
    run = shutil.copytree(out, tmp_path / "run")
    rows = [json.loads(line) | {"rater_kind": "ai"} for line in (run / "labels_2" / "judgments.jsonl").open()]
    write_jsonl(run / "labels_2" / "judgments.jsonl", rows, force=True)
    assert provenance.limits(lineage(run / "ppo" / "model"))[0] == "- No person judged this model's answers."
