"""A recipe on a store: people's judgments and simulated ones together, as they are when the stage runs."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.pipeline.recipes import stage_toml
from tuneful.data.formats import read_candidates, read_comparisons
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import ConfigError, DataError
from tuneful.feedback.assignment import claim
from tuneful.feedback.decisions import decide
from tuneful.feedback.judgments import read_judgments
from tuneful.feedback.pages import guides
from tuneful.feedback.projects import add_rater, find_project, judgments, progress
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.pipeline.context import Labeling, World
from tuneful.pipeline.recipe import load_recipe
from tuneful.pipeline.run import run_recipe
from tuneful.records import Judgment


def first_is_best(items, raters_per_item, seed, round_number):
    """Every rater ranks the answers as they stand."""
    said = [
        Judgment(
            id=f"{item.prompt.id}-{n}",
            item=item.prompt.id,
            prompt=item.prompt.id,
            completions=tuple(c.id for c in item.completions),
            rater=f"rater-{n}",
            rater_kind="simulated",
            ranks=tuple(range(1, len(item.completions) + 1)),
            created_at=f"2026-11-20T10:00:0{n}.000+00:00",
        )
        for item in items
        for n in range(raters_per_item)
    ]
    return Labeling(said, {}, instructions="The *first* is best.")


def write(folder: Path, *stages: str) -> Path:
    (folder / "recipe.toml").write_text("\n".join(stages))
    return folder / "recipe.toml"


@pytest.fixture
def labeled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of a label stage: three items, two simulated raters, and what they said in its file."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"p{n}", "completions": [{"text": t, "id": f"{n}{t}"} for t in "abc"]} for n in range(3)]
    write_jsonl(tmp_path / "completions.jsonl", rows)
    given = {"completions": "completions.jsonl", "raters": "toy:raters", "raters_per_item": 2}
    recipe = write(tmp_path, stage_toml("labels", do="label", **given))
    run_recipe(load_recipe(recipe), tmp_path / "run", worlds={"toy": World(raters={"raters": first_is_best})})
    return tmp_path / "run" / "labels" / "judgments.db"


def test_what_a_label_stage_hands_on_is_what_its_store_holds(labeled: Path, tmp_path: Path) -> None:
    items = read_candidates(tmp_path / "completions.jsonl")
    found = read_judgments(labeled.with_name("judgments.jsonl"))
    said = first_is_best(items, 2, 0, 1).judgments
    assert sorted(one.id for one in found) == sorted(one.id for one in said)
    by_id = {one.id: one for one in found}
    assert all(by_id[one.id].ranks == one.ranks and by_id[one.id].completions == one.completions for one in said)
    store = Store.open(labeled)
    done = progress(store, find_project(store, "labels").id)
    assert (done.have, done.wanted) == (6, 9)  # a place for one person more
    assert [one.text for one in guides(store, find_project(store, "labels").id)] == ["The *first* is best."]
    store.close()


def test_a_person_s_word_and_the_others_reach_the_consensus(labeled: Path, tmp_path: Path) -> None:
    store = Store.open(labeled)
    project = find_project(store, "labels").id
    me = add_rater(store, project, now=0.0)
    while (given := claim(store, project, me, now=0.0)) is not None:
        submit(store, given.id, me, Said(id=str(uuid.uuid4()), ranks=(1, 2, 3), flags={}, values={}), now=1.0)
    store.close()
    collected = stage_toml("people", do="collect", store=str(labeled), project="labels", fewest=9)
    agreed = stage_toml("consensus", do="consensus", judgments="@people", completions="@people")
    run_recipe(load_recipe(write(tmp_path, collected, agreed)), tmp_path / "people")
    assert len(read_judgments(tmp_path / "people" / "people" / "judgments.jsonl")) == 9
    pairs = read_comparisons(tmp_path / "people" / "consensus" / "comparisons.jsonl")
    assert len(pairs) == 9
    assert all(pair.chosen < pair.rejected and pair.p > 0.5 for pair in pairs)


def test_what_a_lead_settled_stands_in_the_comparisons(labeled: Path, tmp_path: Path) -> None:
    store = Store.open(labeled)
    project = find_project(store, "labels").id
    settled = judgments(store, project)[0]
    decide(store, settled.item, by=settled.rater, ranks=(3, 2, 1), now=1.0)
    store.close()
    collected = stage_toml("people", do="collect", store=str(labeled), project="labels")
    agreed = stage_toml("consensus", do="consensus", judgments="@people", completions="@people")
    run_recipe(load_recipe(write(tmp_path, collected, agreed)), tmp_path / "people")
    pairs = read_comparisons(tmp_path / "people" / "consensus" / "comparisons.jsonl")
    assert len(pairs) == 9
    for pair in pairs:
        assert (pair.chosen > pair.rejected, pair.p == 1) == 2 * (pair.group == settled.item,)


def test_a_run_that_wants_more_judgments_stops_and_goes_on_later(labeled: Path, tmp_path: Path) -> None:
    def recipe(fewest: int) -> Path:
        given = {"store": str(labeled), "project": "labels", "fewest": fewest}
        return write(tmp_path, stage_toml("people", do="collect", **given))

    with pytest.raises(DataError, match="6 judgments, and fewest = 7; go on labeling"):
        run_recipe(load_recipe(recipe(7)), tmp_path / "more")
    run_recipe(load_recipe(recipe(6)), tmp_path / "enough")
    assert len(read_judgments(tmp_path / "enough" / "people" / "judgments.jsonl")) == 6


def test_a_password_does_not_get_into_a_recipe(tmp_path: Path) -> None:
    given = {"store": "postgresql://me:secret@host/db", "project": "labels"}
    with pytest.raises(ConfigError, match="PGPASSWORD"):
        load_recipe(write(tmp_path, stage_toml("people", do="collect", **given)))
