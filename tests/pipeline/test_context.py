"""Where inputs come from: which fields name what, and what of it a run remembers."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from tuneful.errors import ConfigError, DataError
from tuneful.pipeline import inputs
from tuneful.pipeline.context import Context, Silent, World
from tuneful.pipeline.recipe import ACTIONS, ALGORITHMS
from tuneful.records import Demonstration, Prompt
from tuneful.settings import build

INPUTS = [*(taken_in for taken_in, _ in ALGORITHMS.values()), *ACTIONS.values()]


def context(folder: Path, **worlds: World) -> Context:
    return Context(folder, 0, {"test": 1.0}, (), worlds, Silent())


@pytest.mark.parametrize("cls", INPUTS)
def test_every_text_is_marked_with_what_it_names(cls: type) -> None:
    """What names a file or model and is not marked would be neither hashed nor looked for."""
    plain, marked = get_type_hints(cls), get_type_hints(cls, include_extras=True)
    texts = {f.name for f in fields(cls) if plain[f.name] in (str, str | None, tuple[str, ...])}
    assert {name for name in texts if "Annotated" not in str(marked[name])} <= {"judge"}


def test_inputs_are_found_by_what_they_name() -> None:
    given = inputs.EvaluateInputs(before="a", after="@ppo", prompts="p.jsonl", measures=("w:one", "w:two"))
    assert inputs.named(given, "models") == ["a", "@ppo"]
    assert inputs.named(given, "data") == inputs.named(given, "prompts") == ["p.jsonl"]
    assert inputs.named(given, "measures") == ["w:one", "w:two"]
    assert inputs.named(given, "rewards") == inputs.named(given, "raters") == []


def test_origins_are_stages_and_the_hashes_of_files_and_models(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_bytes(b"rows")
    (tmp_path / "rules.py").write_bytes(b"code")
    for folder in ("base", "judge"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights").write_bytes(folder.encode())
    given = inputs.PPOInputs(
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
    origins = context(tmp_path).origins(build(inputs.PPOInputs, written, where="here"))
    assert origins["parents"] == ["made", "reward", "second", "sft"]
    assert origins["data"].keys() == {f"{tmp_path}/rules.py", f"{tmp_path}/rude.txt"}
    assert origins["models"].keys() == {f"{tmp_path}/hate", f"{tmp_path}/member"}


def test_a_rule_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shorter").write_text("a file of that name")
    monkeypatch.chdir(tmp_path)
    given = inputs.PPOInputs(model="@sft", prompts="@made", reward="shorter", second_reward="package.module:function")
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
    all_rl = Context(tmp_path, 0, {"reward": 0.0, "rl": 1.0}, (), {}, Silent())
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


def test_what_is_held_out_is_test_and_nothing_else(tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text('{"prompt": "a"}\n')
    rows = [Demonstration(Prompt(text), "yes") for text in ("a", "b")]
    given = Context(tmp_path, 0, {"rl": 1.0}, (str(held),), {}, Silent())
    assert given.rows(rows, "rows.jsonl", ("rl",), purpose="train", stage="sft") == rows[1:]
    assert given.rows(rows[:1], str(held), ("test",), purpose="report", stage="reward") == rows[:1]
    assert given.prompts(str(held)).read("test", purpose="report", stage="evaluate") == [Prompt("a")]
    assert given.provenance("sft")["splits"] == {Prompt("b").id: "rl"}
    assert given.provenance("reward")["splits"] == given.provenance("evaluate")["splits"] == {Prompt("a").id: "test"}
