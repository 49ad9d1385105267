"""Where inputs come from: which fields name what, and what of it a run remembers."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from tuneful.data.jsonl import write_jsonl
from tuneful.data.splits import SHARES, Splits, split, split_of
from tuneful.demo.grammar import prompts
from tuneful.errors import ConfigError, DataError
from tuneful.pipeline import inputs, learner_inputs, marks
from tuneful.pipeline.context import Context, Silent, World
from tuneful.pipeline.recipe import ACTIONS, ALGORITHMS, load_recipe
from tuneful.pipeline.rows import training_demonstrations
from tuneful.pipeline.run import run_recipe
from tuneful.records import Demonstration, Prompt
from tuneful.runs.directory import RunDirectory
from tuneful.settings import build

INPUTS = [*(taken_in for taken_in, _ in ALGORITHMS.values()), *ACTIONS.values()]


def context(folder: Path, **worlds: World) -> Context:
    return Context(folder, 0, {"test": 1.0}, (), worlds, Silent(), judged=())


@pytest.mark.parametrize("cls", INPUTS)
def test_every_text_is_marked_with_what_it_names(cls: type) -> None:
    """What names a file or model and is not marked would be neither hashed nor looked for. A store changes while people
    go on; the stage keeps what it found there."""
    plain, marked = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    texts = {f.name for f in fields(cls) if plain[f.name] in (str, str | None, tuple[str, ...])}
    unmarked = {name for name in texts if "Annotated" not in str(marked[name])}
    assert unmarked <= {"judge", "sampler", "store", "project", "audience"}


def test_inputs_are_found_by_what_they_name() -> None:
    given = inputs.EvaluateInputs(before="a", after="@ppo", prompts="p.jsonl", measures=("w:one", "w:two"))
    assert marks.named(given, "models") == ["a", "@ppo"]
    assert marks.named(given, "data") == marks.named(given, "prompts") == ["p.jsonl"]
    assert marks.named(given, "measures") == ["w:one", "w:two"]
    assert marks.named(given, "rewards") == marks.named(given, "raters") == []


def test_origins_are_stages_and_the_hashes_of_files_and_models(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_bytes(b"rows")
    (tmp_path / "rules.py").write_bytes(b"code")
    for folder in ("base", "judge"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights").write_bytes(folder.encode())
    given = learner_inputs.PPOInputs(
        model=f"{tmp_path}/base",
        prompts=f"{tmp_path}/prompts.jsonl",
        reward=f"{tmp_path}/rules.py:brief",
        second_reward=f"{tmp_path}/judge",
        reference="@sft",
        value="model",
        value_from="someone/on-the-hub",
    )

    def digest(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    def tree(content: bytes) -> str:
        return digest(f"{digest(content)}  weights\n".encode())

    assert context(tmp_path).origins(given) == {
        "parents": ["sft"],
        "data": {f"{tmp_path}/prompts.jsonl": digest(b"rows"), f"{tmp_path}/rules.py": digest(b"code")},
        "models": {f"{tmp_path}/base": tree(b"base"), f"{tmp_path}/judge": tree(b"judge")},
    }


def test_what_tables_of_rewards_name_is_remembered_too(tmp_path: Path) -> None:
    for file in ("rules.py", "rude.txt"):
        (tmp_path / file).write_bytes(file.encode())
    for folder in ("hate", "member"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights").write_bytes(folder.encode())
    parts = [
        {"reward": "@reward"},
        {"reward": f"{tmp_path}/rules.py:brief", "weight": 0.1},
        {"reward": {"classifier": f"{tmp_path}/hate", "label": "nothate"}},
        {"reward": {"rule": "words", "file": f"{tmp_path}/rude.txt"}, "weight": -1},
        {"reward": {"ensemble": [f"{tmp_path}/member", "@second"]}},
        {"reward": {"judge": "http://localhost:8000/v1", "model": "@ppo", "instructions": "@everybody"}},
    ]
    written = {"model": "@sft", "prompts": "@made", "reward": parts}
    origins = context(tmp_path).origins(build(learner_inputs.PPOInputs, written, where="here"))
    assert origins["parents"] == ["made", "reward", "second", "sft"]
    assert origins["data"].keys() == {f"{tmp_path}/rules.py", f"{tmp_path}/rude.txt"}
    assert origins["models"].keys() == {f"{tmp_path}/hate", f"{tmp_path}/member"}


def test_a_rule_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shorter").write_text("a file of that name")
    monkeypatch.chdir(tmp_path)
    given = learner_inputs.PPOInputs(
        model="@sft", prompts="@made", reward="shorter", second_reward="package.module:function"
    )
    assert context(tmp_path).origins(given) == {"parents": ["made", "sft"], "data": {}, "models": {}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            inputs.GenerateInputs(model="toy:bse", prompts="toy:prompts"),
            '"toy:bse": the toy world has no such models; did you mean "base"?',
        ),
        (
            inputs.GenerateInputs(model="toy:base", prompts="toy:questions"),
            '"toy:questions": the toy world has no such prompts; known: prompts',
        ),
        (inputs.LabelInputs(completions="@a", raters="people"), 'raters = "people" are not known'),
        (
            inputs.EvaluateInputs(before="a", after="b", prompts="c", measures=("length",)),
            'measure "length" is not known',
        ),
    ],
)
def test_what_no_world_offers_is_refused(tmp_path: Path, given: Any, said: str) -> None:
    world = World(models={"base": lambda _: tmp_path}, prompts={"prompts": list})
    with pytest.raises(ConfigError) as error:
        context(tmp_path, toy=world).refuse_unknown(given)
    assert said in str(error.value)


def test_what_a_world_offers_is_not_made_before_its_stage(tmp_path: Path) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("made too early")

    world = World({"base": never}, {"prompts": never}, {"people": never}, {"beauty": never})
    offered = context(tmp_path, toy=world)
    offered.refuse_unknown(inputs.GenerateInputs(model="toy:base", prompts="toy:prompts"))
    offered.refuse_unknown(inputs.LabelInputs(completions="@a", raters="toy:people"))
    offered.refuse_unknown(
        inputs.EvaluateInputs(before="toy:base", after="@a", prompts="toy:prompts", measures=("toy:beauty",))
    )


def test_rows_are_read_by_the_splits_of_their_prompts(tmp_path: Path) -> None:
    """All shares are those of "rl", so no hash decides where a prompt belongs."""
    rows = [Demonstration(Prompt(text), "yes") for text in ("b", "a", "b")]
    all_rl = Context(tmp_path, 0, {"reward": 0.0, "rl": 1.0}, (), {}, Silent(), judged=())
    read = all_rl.rows(rows, "rows.jsonl", ("reward", "rl"), purpose="train", stage="sft")
    assert read == rows
    assert all_rl.rows(rows, "rows.jsonl", ("test",), purpose="report", stage="reward") == []
    with pytest.raises(DataError, match='stage "sft" may not read split "rl" for purpose "report"'):
        all_rl.rows(rows, "rows.jsonl", ("rl",), purpose="report", stage="sft")
    assert all_rl.provenance("sft") == {
        "splits": {Prompt("a").id: "rl", Prompt("b").id: "rl"},
        "reads": [{"source": "rows.jsonl", "split": "rl", "purpose": "train", "stage": "sft"}],
    }
    assert all_rl.provenance("reward") == all_rl.provenance("label") == {}


POST = "My landlord says that the heating will not be mended before the end of the month, and what can I do about it"


def test_near_copies_of_what_is_held_out_are_not_trained_on(tmp_path: Path) -> None:
    held, notes = tmp_path / "held.jsonl", list[str]()
    held.write_text(f'{{"prompt": "{POST}?"}}\n{{"prompt": "a"}}\n')
    texts = ["b", "A!", "a", POST.replace("My", "His"), POST.replace("landlord says", "landlord just said")[:60]]
    rows = [Demonstration(Prompt(text), "yes") for text in texts]
    given = Context(tmp_path, 0, {"rl": 1.0}, (str(held),), {}, Silent(), judged=())
    given.display.note = notes.append  # type: ignore[method-assign]
    assert given.rows(rows, "rows.jsonl", ("rl",), purpose="train", stage="sft") == [rows[0], rows[4]]
    left_out = {"rows.jsonl": {"held out": 1, "near copies": 2}}
    assert given.provenance("sft")["left_out"] == left_out
    assert given.provenance("sft")["splits"].keys() == {rows[0].prompt.id, rows[4].prompt.id}
    assert notes == [
        "rows.jsonl: 1 rows share their first turn with held-out prompts and are left out",
        "rows.jsonl: 2 rows are near copies of dev, test or held-out prompts and are left out",
    ]


def test_near_copies_within_a_file_stay_where_they_are_evaluated_on(tmp_path: Path) -> None:
    """Of copies that differ in a sign, so in their split, those in test stay and those to train on go."""
    shares = {"reward": 0.5, "test": 0.5}
    copies = [Prompt(f"Is it hot{sign * '!'}") for sign in range(40)]
    where = {prompt: split_of(prompt, shares) for prompt in copies}
    tested = [prompt for prompt in copies if where[prompt] == "test"]
    assert 0 < len(tested) < 40
    given = Context(tmp_path, 0, shares, (), {}, Silent(), judged=())
    other = Prompt("Bread is cold")
    assert split_of(other, shares) == "reward"
    rows = [*copies, other]
    assert given.rows(rows, "rows.jsonl", ("reward",), purpose="train", stage="sft") == [other]
    assert given.rows(rows, "rows.jsonl", ("test",), purpose="report", stage="test") == tested


def test_another_file_that_is_evaluated_on_counts(tmp_path: Path) -> None:
    """Its test split, that is; what is to train on there may be trained on here."""
    shares = {"reward": 0.5, "test": 0.5}
    copies = [Prompt(f"Is it hot{sign * '!'}") for sign in range(40)]
    trained = next(prompt for prompt in copies if split_of(prompt, shares) == "reward")
    for splits, left in (("test", []), ("reward", [trained])):
        file = tmp_path / f"{splits}.jsonl"
        judged = [prompt.content for prompt in copies if split_of(prompt, shares) == splits]
        file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in judged))
        given = Context(tmp_path, 0, shares, (), {}, Silent(), judged=("@stage", str(file)))
        assert given.rows([trained], "rows.jsonl", ("reward",), purpose="train", stage="sft") == left


def test_the_prompts_of_a_world_are_left_as_they_are(tmp_path: Path) -> None:
    """The demo's held-out prompts are combinations of parts that training knows; a run of words may well be shared."""
    offered = prompts(seed=0)
    demo = World(prompts={"prompts": lambda: offered})
    given = Context(tmp_path, 0, SHARES, (), {"demo": demo}, Silent(), judged=("demo:prompts",))
    splits = given.prompts("demo:prompts")
    assert splits.manifest() == Splits(offered).manifest()
    for name, purpose in {"reward": "train", "rl": "train", "dev": "stop", "test": "report"}.items():
        assert splits.read(name, purpose=purpose, stage="all") == split(offered)[name]  # type: ignore[arg-type]
    assert "left_out" not in given.provenance("all")
    comparisons = [Demonstration(prompt, "yes") for prompt in split(offered)["reward"]]
    assert given.rows(comparisons, "@consensus", ("reward",), purpose="train", stage="reward") == comparisons


def test_a_run_keeps_apart_what_any_of_its_stages_evaluates_on(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run itself, with a stage that only reads what it would learn from."""
    shares = {"rl": 0.5, "test": 0.5}
    copies = {split_of(Prompt(text), shares): text for text in (POST + sign * "!" for sign in range(20))}
    shown = [{"prompt": copies["rl"], "completion": "yes"}, {"prompt": "b", "completion": "yes"}]
    write_jsonl(tmp_path / "shown.jsonl", shown)
    write_jsonl(tmp_path / "asked.jsonl", [{"prompt": copies["test"]}])
    assert split_of(Prompt("b"), shares) == "rl"
    (tmp_path / "recipe.toml").write_text(
        f"""
[splits]
rl = 0.5
test = 0.5
[[stage]]
name = "sft"
algorithm = "sft"
model = "{tiny_model_dir}"
demonstrations = "{tmp_path}/shown.jsonl"
[[stage]]
name = "evaluate"
do = "evaluate"
before = "{tiny_model_dir}"
after = "@sft"
prompts = "{tmp_path}/asked.jsonl"
"""
    )

    def only_reads(context: Context, stage: Any, record: RunDirectory) -> None:
        if stage.kind == "sft":
            training_demonstrations(context, stage.inputs.demonstrations, stage=stage.name)
        record.finish(**context.provenance(stage.name))

    monkeypatch.setattr("tuneful.pipeline.run.run_stage", only_reads)
    loaded = load_recipe(tmp_path / "recipe.toml")
    assert Context.of(loaded, tmp_path, {}, Silent()).judged == (f"{tmp_path}/asked.jsonl",)
    run_recipe(loaded, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "sft" / "run.json").read_text())
    assert record["left_out"] == {f"{tmp_path}/shown.jsonl": {"near copies": 1}}


def test_data_of_the_hub_are_fetched_and_hashed_before_their_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEFUL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    hub = types.ModuleType("datasets")
    hub.load_dataset = lambda *_, **__: [{"prompt": "a", "at": datetime(2024, 1, 2, tzinfo=UTC)}]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", hub)
    given = inputs.GenerateInputs(model="none", prompts="someone/prompts")
    [(name, digest)] = context(tmp_path).origins(given)["data"].items()
    assert name == "someone/prompts"
    assert digest == hashlib.sha256(b'{"prompt": "a", "at": "2024-01-02T00:00:00+00:00"}\n').hexdigest()


def test_what_is_held_out_is_test_and_nothing_else(tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text('{"prompt": "a"}\n')
    rows = [Demonstration(Prompt(text), "yes") for text in ("a", "b")]
    given = Context(tmp_path, 0, {"rl": 1.0}, (str(held),), {}, Silent(), judged=())
    assert given.rows(rows, "rows.jsonl", ("rl",), purpose="train", stage="sft") == rows[1:]
    assert given.rows(rows[:1], str(held), ("test",), purpose="report", stage="reward") == rows[:1]
    assert given.prompts(str(held)).read("test", purpose="report", stage="evaluate") == [Prompt("a")]
    assert given.provenance("sft")["splits"] == {Prompt("b").id: "rl"}
    assert given.provenance("reward")["splits"] == given.provenance("evaluate")["splits"] == {Prompt("a").id: "test"}
