"""A store of judgments from the command line: made, judged, looked at, taken home, copied."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from tuneful.cli.main import app
from tuneful.data.formats import read_comparisons, read_demonstrations, read_unpaired
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import ConfigError, DataError, ModelError, StoreError
from tuneful.feedback.access import accept, holder_of, invite
from tuneful.feedback.assignment import claim
from tuneful.feedback.dataset_manifest import verify_dataset
from tuneful.feedback.decisions import decide, decisions
from tuneful.feedback.items import candidates
from tuneful.feedback.pages import asked_of
from tuneful.feedback.projects import add_rater, create_project, find_project, judgments
from tuneful.feedback.quality import latest
from tuneful.feedback.recording import record
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.tables import judgment, rater
from tuneful.records import Candidates, Completion, Judgment, JudgmentKind, Prompt

ANSWERS = [{"text": "Close the blinds."}, {"text": "So what?"}]


def tuneful(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the project "helpful" of three items, judged by two people who prefer the remedy."""
    rows = [{"prompt": f"My house is too hot, {n}.", "completions": ANSWERS} for n in range(3)]
    write_jsonl(tmp_path / "items.jsonl", rows)
    (tmp_path / "guide.md").write_text("Which helps **most**?")
    path = tmp_path / "judgments.db"
    options = ("--store", path, "--overlap", 2, "--instructions", tmp_path / "guide.md")
    told = tuneful("label", "create", "helpful", "--in", tmp_path / "items.jsonl", *options)
    assert '3 items in project "helpful"' in told
    opened = Store.open(path)
    project = find_project(opened, "helpful").id
    for _ in range(2):
        rater = add_rater(opened, project, now=0.0)
        while (given := claim(opened, project, rater, now=0.0)) is not None:
            said = Said(id=str(uuid.uuid4()), ranks=(1, 2), flags={}, values={}, criterion="helpful")
            submit(opened, given.id, rater, said, now=1.0)
    opened.close()
    return path


def test_status_consensus_and_export_read_the_store(store: Path, tmp_path: Path) -> None:
    (row,) = json.loads(tuneful("label", "status", "--store", store, "--json"))
    assert (row["name"], row["items"], row["done"], row["wanted"], row["have"]) == ("helpful", 3, 3, 6, 6)
    assert "3 of 3 items done" in tuneful("label", "status", "--store", store)
    found = json.loads(tuneful("label", "consensus", "--store", store, "--project", "helpful", "--json"))
    assert (found["pairs"], [rater["num_judgments"] for rater in found["raters"]]) == (3, [3, 3])
    tuneful("label", "export", "--store", store, "--project", "helpful", "--out", tmp_path / "pairs.jsonl")
    pairs = read_comparisons(tmp_path / "pairs.jsonl")
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("Close the blinds.", "So what?")] * 3


def judged_by(path: Path, kind: JudgmentKind, words: Mapping[str, Sequence[float]], *, answers: int) -> None:
    """A store with a project "told" of that kind: of every answer what each rater said of it."""
    opened = Store.open(path)
    project = create_project(opened, "told", kind, now=0.0)
    offered = [
        Candidates(Prompt(f"My house is too hot, {n}."), tuple(Completion(text, id=text) for text in texts))
        for n, texts in enumerate(zip(*[iter(words)] * answers, strict=True))
    ]
    said = [
        Judgment(
            id=f"{item.prompt.text} {rater}",
            item=item.prompt.text,
            prompt=item.prompt.id,
            completions=tuple(one.id for one in item.completions),
            rater=f"r{rater}",
            kind=kind,
            values={one.id if kind == "rating" else "preference": words[one.text][rater] for one in item.completions},
        )
        for item in offered
        for rater in range(len(words[item.completions[0].text]))
    ]
    record(opened, project, offered, said, now=0.0)
    opened.close()


def test_yes_and_no_come_to_labels(tmp_path: Path) -> None:
    """Four raters say the same of 30 answers, half of them good, and a fifth the contrary. Of one more two of the four
    disagree, and nothing tells them apart: change yes and no and the two raters, and it is the same."""
    words = {f"answer {n:02}": [n % 2] * 4 + [1 - n % 2] for n in range(30)} | {"last": [1, 0]}
    path = tmp_path / "judgments.db"
    judged_by(path, "binary", words, answers=1)
    options = ("--store", path, "--project", "told")
    told = tuneful("label", "consensus", *options)
    assert "by preference: 15 good, 15 bad, 1 as likely one as the other" in told
    (turned,) = [line for line in told.splitlines() if line.startswith("r4")]
    assert "inverted" in turned
    (found,) = json.loads(tuneful("label", "consensus", *options, "--json"))
    labels = {row["completion"]: row["label"] for row in found["labels"]}
    assert labels == {text: bool(said[0]) for text, said in words.items() if text != "last"} | {"last": None}
    told = tuneful("label", "export", *options, "--out", tmp_path / "out.jsonl")
    assert "30 good and bad answers in" in told
    assert "1 left out, as likely good as bad" in told
    answers = read_unpaired(tmp_path / "out.jsonl")
    assert {one.completion: one.label for one in answers} == {text: on for text, on in labels.items() if on is not None}
    assert {row["completion"]: row["p"] for row in found["labels"] if row["label"] is not None} == {
        one.completion: one.p for one in answers
    }


def test_ratings_come_to_pairs(tmp_path: Path) -> None:
    path = tmp_path / "judgments.db"
    judged_by(path, "rating", {"good 1": [6, 7], "bad 1": [2, 6], "good 2": [5, 5], "bad 2": [1, 2]}, answers=2)
    options = ("--store", path, "--project", "told")
    assert tuneful("label", "consensus", *options).endswith("2 pairs, Krippendorff's alpha 1.000\n")
    tuneful("label", "export", *options, "--out", tmp_path / "pairs.jsonl")
    pairs = read_comparisons(tmp_path / "pairs.jsonl")
    assert sorted((pair.chosen, pair.rejected) for pair in pairs) == [("good 1", "bad 1"), ("good 2", "bad 2")]
    assert all(0.5 < pair.p < 1 for pair in pairs)


def test_of_several_criteria_one_is_taken_and_the_others_are_told(store: Path, tmp_path: Path) -> None:
    opened = Store.open(store)
    first = judgments(opened, find_project(opened, "helpful").id)[0].id
    opened.write(lambda c: c.execute(update(judgment).where(judgment.c.id == first).values(criterion="honest")))
    where = ("--store", store, "--project", "helpful")
    assert 'left out: 1 by "honest"; --criterion takes others' in tuneful("label", "consensus", *where)
    assert "1 pairs" in tuneful("label", "consensus", *where, "--criterion", "honest")
    told = tuneful("label", "export", *where, "--out", tmp_path / "pairs.jsonl")
    assert "3 comparisons" in told
    assert '5 judgments are by "helpful"; left out: 1 by "honest"' in told
    tuneful("label", "export", *where, "--dataset", tmp_path / "data")
    file = ("--judgments", tmp_path / "data" / "judgments.jsonl")
    with pytest.raises(DataError, match=r"several criteria \(helpful, honest\); choose one, as --criterion helpful"):
        tuneful("label", "consensus", *file)
    assert "3 pairs" in tuneful("label", "consensus", *file, "--criterion", "helpful")
    with pytest.raises(ConfigError, match="goes with --out"):
        tuneful("label", "export", *where, "--dataset", tmp_path / "more", "--criterion", "honest")


def test_a_model_has_nothing_to_do_or_is_refused_before_anything_is_asked_of_it(store: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "one.jsonl", [{"prompt": "Hot.", "completions": ANSWERS[:1]}])
    tuneful("label", "create", "toxic", "--kind", "binary", "--in", tmp_path / "one.jsonl", "--store", store)
    judge = ("--store", store, "--judge", "http://127.0.0.1:9/v1", "--model", "qwen")  # where nobody answers
    with pytest.raises(StoreError, match='project "toxic": asks for a 0/1 judgment'):
        tuneful("label", "ai", "--project", "toxic", *judge)
    create_project(Store.open(store), "empty", now=0.0)
    assert "nothing is left to judge" in tuneful("label", "ai", "--project", "empty", *judge)


def test_quality_is_printed_and_kept_for_the_page(store: Path) -> None:
    opened = Store.open(store)
    project = find_project(opened, "helpful").id
    named = update(rater).values(name="Ida \x1b[31mred")
    opened.write(lambda connection: connection.execute(named))
    told = tuneful("label", "quality", "--store", store, "--project", "helpful")
    assert "6 judgments of 2 people" in told
    assert 'Agreement on "helpful": Krippendorff\'s alpha 1.00' in told
    assert "Ida" in told
    assert "\x1b" not in told
    found = json.loads(tuneful("label", "quality", "--store", store, "--project", "helpful", "--json"))
    assert (found["judgments"], found["people"], [card["judgments"] for card in found["cards"]]) == (6, 2, [3, 3])
    kept = latest(opened, project)
    assert kept is not None and kept.judgments == 6
    opened.close()
    with pytest.raises(DataError, match="fewer than 5"):
        tuneful("label", "quality", "--store", store, "--project", "helpful", "--group", "nurse")


def test_a_dataset_takes_its_form_from_the_command(store: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    where = ("label", "export", "--store", store, "--project", "helpful")
    tuneful(*where, "--dataset", tmp_path / "data", "--parquet", "--margins", "--flagged-as-rejected")
    tables = [pq.read_table(file) for file in sorted((tmp_path / "data").glob("preferences-*.parquet"))]
    assert tables and all("margin" in table.column_names for table in tables)
    assert not list((tmp_path / "data").glob("preferences-*.jsonl"))
    settings = json.loads((tmp_path / "data" / "manifest.json").read_text())["settings"]
    assert (settings["container"], settings["margins"], settings["flagged_as_rejected"]) == ("parquet", True, True)
    for flag in ("--parquet", "--margins", "--flagged-as-rejected"):
        with pytest.raises(ConfigError, match=f"{flag} goes with --dataset"):
            tuneful(*where, "--out", tmp_path / "pairs.jsonl", flag)


def test_a_dataset_verifies_and_is_the_same_when_written_again(store: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        tuneful("label", "export", "--store", store, "--project", "helpful", "--dataset", tmp_path / name)
    assert verify_dataset(tmp_path / "one") == []
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert {"README.md", "manifest.json", "judgments.jsonl", "completions.jsonl"} <= set(files)
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_import_takes_a_file_of_ours_and_one_of_trl_s(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    folder = tmp_path / "data"
    tuneful("label", "export", "--store", store, "--project", "helpful", "--dataset", folder)
    options = ("--project", "helpful", "--store", other)
    mine = ("label", "import", folder / "judgments.jsonl", "--in", folder / "completions.jsonl", *options)
    assert "6 new judgments of 3 new items" in tuneful(*mine)
    assert "0 new judgments of 0 new items" in tuneful(*mine)
    rows = [{"prompt": "hot", "chosen": "Open a window.", "rejected": "No."}]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    told = tuneful("label", "import", tmp_path / "pairs.jsonl", "--project", "pairs", "--store", other)
    assert '1 new judgments of 1 new items in project "pairs"' in told


def test_decisions_come_back_beside_the_judgments(store: Path, tmp_path: Path) -> None:
    """Two decisions of one item, the later of which stands, and one of another; of the third item none."""
    opened = Store.open(store)
    helpful = find_project(opened, "helpful").id
    lead = add_rater(opened, helpful, role="lead", now=0.0)
    first, second = list(dict.fromkeys(said.item for said in judgments(opened, helpful)))[:2]
    one = decide(opened, first, by=lead, ranks=(1, 1), now=5.0)
    decide(opened, first, by=lead, ranks=(2, 1), why="So what indeed.", replaces=one, now=6.0)
    decide(opened, second, by=lead, ranks=(1, 2), now=7.0)
    made = decisions(opened, helpful)
    opened.close()
    folder, other = tmp_path / "data", tmp_path / "other.db"
    tuneful("label", "export", "--store", store, "--project", "helpful", "--dataset", folder)
    command = ("label", "import", folder / "judgments.jsonl", "--in", folder / "completions.jsonl", "--project", "back")
    told = tuneful(*command, "--store", other)
    assert '6 new judgments of 3 new items and 3 new decisions in project "back"' in told
    opened = Store.open(other)
    assert decisions(opened, find_project(opened, "back").id) == made
    opened.close()
    for place, name in ((store, "helpful"), (other, "back")):
        tuneful("label", "export", "--store", place, "--project", name, "--out", tmp_path / f"{name}.jsonl")
    pairs = [read_comparisons(tmp_path / f"{name}.jsonl") for name in ("helpful", "back")]
    assert pairs[0] == pairs[1]
    assert sorted((pair.chosen, pair.p == 1) for pair in pairs[1]) == [
        *(("Close the blinds.", False), ("Close the blinds.", True), ("So what?", True))
    ]
    assert "0 new judgments of 0 new items and 0 new decisions" in tuneful(*command, "--store", other)
    assert "decisions recorded" in tuneful("label", "trail", "--store", other)
    assert "all as they were written" in tuneful("label", "trail", "--store", other, "--check")


def test_a_decision_that_no_judgment_comes_with_is_told(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    tuneful("label", "export", "--store", store, "--project", "helpful", "--dataset", folder)
    stray = {"id": "d1", "item": "elsewhere", "prompt": "p", "completions": ["a", "b"], "criterion": "helpful"}
    write_jsonl(folder / "decisions.jsonl", [stray | {"rater": "ada", "ranks": [1, 2]}])
    command = ("label", "import", folder / "judgments.jsonl", "--in", folder / "completions.jsonl", "--project", "back")
    taken = CliRunner().invoke(app, [*map(str, command), "--store", str(tmp_path / "other.db")])
    assert 'decision "d1": left out: no judgment of its item comes with it' in taken.stderr
    assert "and 0 new decisions" in taken.stdout


def test_an_import_that_is_refused_makes_no_project(store: Path, tmp_path: Path) -> None:
    """Without the texts, which the line asks for; and with two judgments that revise each other."""
    folder = tmp_path / "data"
    tuneful("label", "export", "--store", store, "--project", "helpful", "--dataset", folder)
    before = tuneful("label", "status", "--store", store, "--json")
    command = ("label", "import", folder / "judgments.jsonl", "--project", "back")
    with pytest.raises(DataError, match=r"judgments\.jsonl: .* give these by --in completions\.jsonl"):
        tuneful(*command, "--store", tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    rows = [json.loads(line) for line in (folder / "judgments.jsonl").read_text().splitlines()]
    rows[0]["replaces"] = next(row["id"] for row in rows[1:] if row["item"] == rows[0]["item"])
    next(row for row in rows if row["id"] == rows[0]["replaces"])["replaces"] = rows[0]["id"]
    write_jsonl(folder / "judgments.jsonl", rows, force=True)
    with pytest.raises(StoreError, match="revise each other"):
        tuneful(*command, "--in", folder / "completions.jsonl", "--store", store)
    assert tuneful("label", "status", "--store", store, "--json") == before
    assert "project made" not in tuneful("label", "trail", "--store", store, "--last", 1)


BROKEN = ['{"prompt": "hot", "chosen": "Fan."', '{"prompt": "hot", "chosen": "Fan.", "rejected": "Fan."}']
"""Cut off, and no comparison."""


def test_broken_rows_are_named_by_line_and_refused_or_left_out_as_asked(store: Path, tmp_path: Path) -> None:
    whole = [{"prompt": f"hot {n}", "chosen": "Open a window.", "rejected": "No."} for n in range(2)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join([json.dumps(whole[0]), *BROKEN, json.dumps(whole[1])]))
    before = tuneful("label", "status", "--store", store, "--json")
    command = ("label", "import", file, "--project", "pairs", "--store")
    refused = CliRunner().invoke(app, [*map(str, command), str(store)])
    assert isinstance(refused.exception, DataError)
    mend = "mend them, or take the rest with --skip-broken"
    assert str(refused.exception) == f"{file}: 2 broken parts, so nothing was taken; {mend}"
    assert [line.split(": ")[0] for line in refused.stderr.splitlines()] == [f"{file}:2", f"{file}:3"]
    assert tuneful("label", "status", "--store", store, "--json") == before
    with pytest.raises(DataError, match="nothing was taken"):
        tuneful(*command, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    taken = CliRunner().invoke(app, [*map(str, command), str(store), "--skip-broken"])
    assert '2 new judgments of 2 new items in project "pairs"' in taken.stdout
    assert [line.split(": ")[0] for line in taken.stderr.splitlines()] == [f"{file}:2", f"{file}:3"]
    rows = json.loads(tuneful("label", "status", "--store", store, "--json"))
    assert [(row["name"], row["have"]) for row in rows] == [("helpful", 6), ("pairs", 2)]


def test_every_fault_of_a_file_of_items_is_told_and_the_rest_can_be_taken(store: Path, tmp_path: Path) -> None:
    """One answer where two are compared, no JSON, an id that came before, and no answers."""
    good = {"prompt": "hot", "completions": [{"text": "Fan.", "id": "a"}, {"text": "No.", "id": "b"}]}
    again = {"prompt": "cold", "completions": [{"text": "Coat.", "id": "a"}, {"text": "No.", "id": "c"}]}
    rows = [good, {"prompt": "p", "completions": ["a"]}, "cut", again, {"prompt": "q", "completions": []}]
    file = tmp_path / "items.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    before = tuneful("label", "status", "--store", store, "--json")
    command = ("label", "create", "other", "--in", file, "--store")
    refused = CliRunner().invoke(app, [*map(str, command), str(store)])
    assert isinstance(refused.exception, DataError)
    assert str(refused.exception).startswith(f"{file}: 4 broken parts, so nothing was taken; ")
    two, three, four, five = refused.stderr.splitlines()
    assert two == f"{file}:2: prompt 'p': has 1 completion; a ranking is of 2 to 9 completions"
    assert three.startswith(f"{file}:3: not valid")
    assert four.startswith(f'{file}:4: field "completions": "a" stands on line 1 already')
    assert five.startswith(f"{file}:5: ")
    assert tuneful("label", "status", "--store", store, "--json") == before
    with pytest.raises(DataError, match="nothing was taken"):
        tuneful(*command, tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    taken = CliRunner().invoke(app, [*map(str, command), str(store), "--skip-broken"])
    assert '1 items in project "other"' in taken.stdout
    assert [line.split(": ")[0] for line in taken.stderr.splitlines()] == [f"{file}:{n}" for n in (2, 3, 4, 5)]


def test_of_very_many_faults_a_hundred_are_told(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "items.jsonl", [{"prompt": f"p{n}", "completions": ["a"]} for n in range(103)])
    command = ("label", "create", "a", "--in", tmp_path / "items.jsonl", "--store", tmp_path / "a.db")
    *told, more = CliRunner().invoke(app, [*map(str, command)]).stderr.splitlines()
    assert [line.split(": ")[0] for line in told] == [f"{tmp_path / 'items.jsonl'}:{n}" for n in range(1, 101)]
    assert more == "and 3 more"


def test_a_file_without_a_whole_item_makes_no_project(store: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "short.jsonl", [{"prompt": "hot", "completions": ANSWERS[:1]}])
    before = tuneful("label", "status", "--store", store, "--json")
    command = ("label", "create", "other", "--in", tmp_path / "short.jsonl", "--store", store, "--skip-broken")
    refused = CliRunner().invoke(app, [*map(str, command)])
    assert str(refused.exception) == f"{tmp_path / 'short.jsonl'}: holds no item that is whole"
    assert "short.jsonl:1: prompt 'hot': has 1 completion" in refused.stderr
    assert tuneful("label", "status", "--store", store, "--json") == before


@pytest.mark.parametrize("kind", ["ranking", "comparison", "binary", "rating"])
@pytest.mark.parametrize("rest", [{}, {"completions": []}])
def test_prompts_alone_are_refused_where_answers_are_judged(kind: str, rest: dict[str, Any], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "bare.jsonl", [{"prompt": "hot", **rest}])
    command = ("label", "create", "d", "--kind", kind, "--in", tmp_path / "bare.jsonl", "--store", tmp_path / "d.db")
    refused = CliRunner().invoke(app, [*map(str, command)])
    assert isinstance(refused.exception, DataError)
    told = "at least one completion" if rest else "prompts alone are for demonstrations"
    assert told in f"{refused.stderr}{refused.exception}"


@pytest.mark.parametrize("name", ["bare.jsonl", "bare.txt"])
def test_demonstrations_of_prompts_alone_are_written_taken_home_and_brought_back(name: str, tmp_path: Path) -> None:
    bare, path = tmp_path / name, tmp_path / "d.db"
    if name.endswith("txt"):
        bare.write_text("hot\ncold\n")
    else:
        write_jsonl(bare, [{"prompt": "hot"}, {"prompt": "cold", "completions": []}])
    options = ("--kind", "demonstration", "--overlap", 1, "--store", path)
    assert '2 items in project "d"' in tuneful("label", "create", "d", "--in", bare, *options)
    opened = Store.open(path)
    project = find_project(opened, "d").id
    bo = add_rater(opened, project, now=0.0)
    while (given := claim(opened, project, bo, now=0.0)) is not None:
        said = Said(id=str(uuid.uuid4()), text="Written.", flags={}, values={})
        submit(opened, given.id, bo, said, now=1.0)
    opened.close()
    folder = tmp_path / "data"
    tuneful("label", "export", "--store", path, "--project", "d", "--dataset", folder)
    shown = [one for file in folder.glob("demonstrations-*") for one in read_demonstrations(file)]
    assert sorted((one.prompt.text, one.completion) for one in shown) == [("cold", "Written."), ("hot", "Written.")]
    back = ("label", "import", folder / "judgments.jsonl", "--in", folder / "completions.jsonl", "--project", "d")
    assert "2 new judgments of 2 new items" in tuneful(*back, "--store", tmp_path / "back.db")


def test_prompts_without_models_are_told_where_they_go(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--prompts po\.jsonl: goes with --from-models; .* given by --in"):
        tuneful("label", "create", "d", "--prompts", "po.jsonl", "--store", tmp_path / "d.db")


def test_gold_tokens_invitations_and_forgetting(store: Path, tmp_path: Path) -> None:
    row = {"prompt": "My room is too hot.", "completions": ANSWERS, "ranks": [1, 2], "why": "A remedy."}
    write_jsonl(tmp_path / "gold.jsonl", [row])
    options = ("--project", "helpful", "--store", store)
    assert "1 known items" in tuneful("label", "gold", *options, "--in", tmp_path / "gold.jsonl", "--quiz", 1)
    with pytest.raises(StoreError, match="a quiz of 2 items, and 1"):
        tuneful("label", "gold", *options, "--quiz", 2)
    link = tuneful("label", "invite", "http://here", *options).strip()
    opened = Store.open(store)
    secret = link.removeprefix("http://here/invitation/")
    bo = accept(opened, secret, login="bo", password="correct horse", name="Bo", now=time.time())
    token = tuneful("label", "token", "bo", "--scope", "label", "--store", store).strip()
    who = holder_of(opened, token, now=time.time())
    assert who is not None
    assert (who.rater, who.scopes) == (bo, {"label"})
    given = claim(opened, find_project(opened, "helpful").id, bo, now=time.time())
    assert given is not None
    assert given.quiz
    tuneful("label", "forget", "bo", "--store", store)
    assert holder_of(opened, token, now=time.time()) is None
    opened.close()


def test_a_token_that_is_dead_and_an_invitation_to_nowhere_are_refused(store: Path) -> None:
    opened = Store.open(store)
    link = invite(opened, project_id=find_project(opened, "helpful").id, role="labeler", now=time.time())
    accept(opened, link, login="bo", password="correct horse", name="Bo", now=time.time())
    opened.close()
    for days in (0, -1, "nan", "inf"):
        with pytest.raises(StoreError, match="give a number of days above 0"):
            tuneful("label", "token", "bo", "--scope", "label", "--days", days, "--store", store)
    assert tuneful("label", "token", "bo", "--scope", "label", "--days", 0.5, "--store", store)
    for url in ("notaurl", "http://", "ftp://here", "http://here?a=b"):
        with pytest.raises(ConfigError, match="URL"):
            tuneful("label", "invite", url, "--project", "helpful", "--store", store)


def test_results_are_of_the_store_that_commands_make(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store == tmp_path / "judgments.db"
    assert "3 pairs" in tuneful("label", "consensus", "--project", "helpful")
    assert "3 comparisons" in tuneful("label", "export", "--project", "helpful", "--out", tmp_path / "pairs.jsonl")
    assert "version 1" in tuneful("label", "export", "--project", "helpful", "--dataset", tmp_path / "data")
    file = tmp_path / "data" / "judgments.jsonl"
    for wrong in (("--judgments", file, "--store", store), ("--judgments", file, "--project", "helpful"), ()):
        with pytest.raises(ConfigError, match="either --judgments FILE, or the --project of a store"):
            tuneful("label", "consensus", *wrong)


def test_known_items_are_added_with_their_quiz_or_not_at_all(store: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"G{n}", "completions": ANSWERS, "ranks": [1, 2]} for n in range(1, 4)]
    write_jsonl(tmp_path / "gold.jsonl", rows)
    before = tuneful("label", "trail", "--store", store)
    command = ("label", "gold", "--project", "helpful", "--store", store, "--in", tmp_path / "gold.jsonl", "--quiz")
    with pytest.raises(StoreError, match="a quiz of 5 items, and 3 have a known answer"):
        tuneful(*command, 5)
    assert tuneful("label", "trail", "--store", store) == before
    assert '3 known items added to "helpful"; a quiz of 3' in tuneful(*command, 3)
    assert '0 known items added to "helpful" (3 were there already); a quiz of 2' in tuneful(*command, 2)
    assert "a quiz of 2, to get 90% right" in tuneful(*command[:6], "--pass-share", 0.9)
    assert "a quiz of 2, to get 90% right" in tuneful(*command[:-1])  # what is not named stays


def test_every_fault_of_a_file_of_known_items_is_told(store: Path, tmp_path: Path) -> None:
    good = {"prompt": "G", "completions": ANSWERS, "ranks": [1, 2]}
    file = tmp_path / "gold.jsonl"
    wrong = [good | {"ranks": [1]}, good | {"ranks": ["x", 2]}, good | {"ranks": None}, good | {"values": [1]}]
    write_jsonl(file, [good, *wrong, good | {"prompt": "a\0"}, good | {"completions": ANSWERS[:1]}])
    refused = CliRunner().invoke(
        app, ["label", "gold", "--project", "helpful", "--store", str(store), "--in", str(file)]
    )
    assert str(refused.exception) == f"{file}: 6 broken parts, so nothing was taken; mend them"
    told = refused.stderr.splitlines()
    assert [line.split(": ")[0] for line in told] == [f"{file}:{n}" for n in range(2, 8)]
    for said, line in zip(
        ("1 ranks for 2", '"ranks"', "is missing", '"values"', "NUL", "1 completion"), told, strict=True
    ):
        assert said in line


def test_known_items_of_demonstrations_are_refused(store: Path, tmp_path: Path) -> None:
    tuneful("label", "create", "written", "--kind", "demonstration", "--in", tmp_path / "items.jsonl", "--store", store)
    write_jsonl(tmp_path / "gold.jsonl", [{"prompt": "G", "completions": ANSWERS, "ranks": [1, 2]}])
    options = ("--project", "written", "--store", store)
    for asked in (("--in", tmp_path / "gold.jsonl"), ("--gold-every", 3)):
        with pytest.raises(StoreError, match="not for a demonstration"):
            tuneful("label", "gold", *options, *asked)


def test_the_same_export_goes_into_another_project_of_its_store(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    tuneful("label", "export", "--store", store, "--project", "helpful", "--dataset", folder)
    command = ("label", "import", folder / "judgments.jsonl", "--in", folder / "completions.jsonl", "--store", store)
    assert '6 new judgments of 3 new items in project "copy"' in tuneful(*command, "--project", "copy")
    assert '0 new judgments of 0 new items in project "copy"' in tuneful(*command, "--project", "copy")


def test_unpaired_preferences_of_a_dataset_come_back_as_yes_or_no(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    tuneful("label", "export", "--store", store, "--project", "helpful", "--dataset", folder)
    rows = [row for file in sorted(folder.glob("unpaired-*")) for row in file.read_text().splitlines()]
    (tmp_path / "kto.jsonl").write_text("\n".join(rows))
    command = ("label", "import", tmp_path / "kto.jsonl", "--project", "kto", "--store", store)
    taken = CliRunner().invoke(app, [*map(str, command)])
    assert f'{len(rows)} new judgments of {len(rows)} new items in project "kto"' in taken.stdout
    assert "p, num_labels" in taken.stderr
    opened = Store.open(store)
    said = judgments(opened, find_project(opened, "kto").id)
    texts = {
        one.id: one.text for given in candidates(opened, find_project(opened, "kto").id) for one in given.completions
    }
    assert {(texts[one.completions[0]], one.values["preference"]) for one in said} == {
        *(("Close the blinds.", 1.0), ("So what?", 0.0))
    }
    opened.close()


def test_backup_and_restore(store: Path, tmp_path: Path) -> None:
    assert "6 judgments" in tuneful("label", "backup", "--store", store, "--out", tmp_path / "copy.db")
    assert "6 judgments" in tuneful("label", "restore", "--in", tmp_path / "copy.db", "--store", tmp_path / "new.db")
    assert tuneful("label", "status", "--store", tmp_path / "new.db", "--json") == tuneful(
        "label", "status", "--store", store, "--json"
    )


def test_the_trail_is_told_and_checked(store: Path, tmp_path: Path) -> None:
    options = ("label", "trail", "--store", store)
    told = [event["what"] for event in json.loads(tuneful(*options, "--json"))]
    assert told[:3] == ["project made", "instructions published", "items added"]
    assert "project made" in tuneful(*options, "--project", "helpful")
    assert "role given" in tuneful(*options, "--last", 1)
    assert "project made" not in tuneful(*options, "--last", 1)
    tuneful("label", "export", "--store", store, "--project", "helpful", "--dataset", tmp_path / "data")
    found = json.loads(tuneful(*options, "--check", "--json"))
    assert found["broken"] is None
    assert f"{found['count']} events" in tuneful(*options, "--check", "--dataset", tmp_path / "data")
    with pytest.raises(DataError, match="names a trail"):
        tuneful(*options, "--dataset", tmp_path)
    with sqlite3.connect(store) as other:
        other.execute("UPDATE event SET what = 'nothing' WHERE number = 2")
    with pytest.raises(StoreError, match="event 2 of the trail"):
        tuneful(*options, "--check")


def test_a_trail_that_is_not_the_dataset_s_is_told(store: Path, tmp_path: Path) -> None:
    tuneful("label", "export", "--store", store, "--project", "helpful", "--dataset", tmp_path / "data")
    (tmp_path / "more.jsonl").write_text(json.dumps({"prompt": "hot", "completions": ANSWERS}))
    tuneful("label", "create", "helpful", "--in", tmp_path / "more.jsonl", "--store", tmp_path / "other.db")
    with pytest.raises(StoreError, match="another trail"):
        tuneful("label", "trail", "--store", tmp_path / "other.db", "--dataset", tmp_path / "data")


def test_decisions_reach_what_is_exported(store: Path, tmp_path: Path) -> None:
    """Both people prefer the remedy; of the first item the lead does not."""
    opened = Store.open(store)
    project = find_project(opened, "helpful").id
    item = judgments(opened, project)[0].item
    decide(opened, item, by=add_rater(opened, project, role="lead", now=0.0), ranks=(2, 1), now=2.0)
    opened.close()
    options = ("label", "export", "--store", store, "--project", "helpful")
    tuneful(*options, "--out", tmp_path / "pairs.jsonl")
    found = {pair.group: (pair.chosen, pair.p) for pair in read_comparisons(tmp_path / "pairs.jsonl")}
    assert found.pop(item) == ("So what?", 1.0)
    assert all(chosen == "Close the blinds." and p < 1 for chosen, p in found.values())
    assert "version 1" in tuneful(*options, "--dataset", tmp_path / "data")
    again = ("--judgments", tmp_path / "data" / "judgments.jsonl", "--in", tmp_path / "data" / "completions.jsonl")
    tuneful("label", "export", *again, "--out", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "pairs.jsonl").read_bytes()


def test_mistakes_are_named(store: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r'"helpfull": unknown.*"helpful"'):
        tuneful("label", "consensus", "--store", store, "--project", "helpfull")
    with pytest.raises(ConfigError, match="the --project of a store"):
        tuneful("label", "consensus", "--store", store)
    with pytest.raises(StoreError, match="choose another"):
        tuneful("label", "create", "helpful", "--in", tmp_path / "items.jsonl", "--store", store)


def test_models_fill_a_project_and_win_rates_tell_which_is_preferred(tmp_path: Path, tiny_model_dir: Path) -> None:
    """The one labeler prefers the answers of the second model, whatever they are."""
    (tmp_path / "other").symlink_to(tiny_model_dir)
    (tmp_path / "prompts.txt").write_text("hot house\ncold tea\nred door\n")
    models = (tiny_model_dir, tmp_path / "other")
    options = ("--store", tmp_path / "tuned.db", "--prompts", tmp_path / "prompts.txt", "--max-new-tokens", 6)
    told = tuneful("label", "create", "tuned", "--from-models", *models, *options, "--samples", 2, "--overlap", 1)
    assert '6 items in project "tuned"' in told
    opened = Store.open(tmp_path / "tuned.db")
    project = find_project(opened, "tuned")
    assert project.kind == "comparison"
    assert "have not compared" in tuneful("label", "winrate", "--project", "tuned", "--store", tmp_path / "tuned.db")
    made_by = {c.id: c.model for one in candidates(opened, project.id) for c in one.completions}
    rater = add_rater(opened, project.id, now=0.0)
    while (given := claim(opened, project.id, rater, now=0.0)) is not None:
        _, completions = asked_of(opened, given.id, rater)
        ranks = tuple(1 if made_by[one] == str(models[1]) else 2 for one in completions)
        submit(opened, given.id, rater, Said(id=str(uuid.uuid4()), ranks=ranks, flags={}, values={}), now=1.0)
    opened.close()
    command = ("label", "winrate", "--project", "tuned", "--store", tmp_path / "tuned.db")
    (found,) = json.loads(tuneful(*command, "--json"))
    assert (found["first"], found["second"]) == tuple(sorted(map(str, models)))
    preferred_first = found["first"] == str(models[1])
    assert (found["wins"], found["ties"], found["losses"]) == ((6, 0, 0) if preferred_first else (0, 0, 6))
    assert (found["prompts"], found["rate"]["value"]) == (3, float(preferred_first))
    assert "over 3 prompts" in tuneful(*command)


def test_a_wrong_model_makes_no_project(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("hot house\n")
    options = ("--store", tmp_path / "tuned.db", "--prompts", tmp_path / "prompts.txt", "--samples", 2)
    with pytest.raises(ModelError, match="nowhere"):
        tuneful("label", "create", "tuned", "--from-models", tmp_path / "nowhere", *options)
    assert not (tmp_path / "tuned.db").exists()


def test_create_takes_completions_or_models(store: Path, tmp_path: Path) -> None:
    for wrong in (
        (),
        ("--in", tmp_path / "items.jsonl", "--prompts", tmp_path / "items.jsonl"),
        ("--from-models", "a"),
        ("--in", tmp_path / "items.jsonl", "--from-models", "a"),
        ("b", "--in", tmp_path / "items.jsonl"),
    ):
        with pytest.raises(ConfigError):
            tuneful("label", "create", "again", *wrong, "--store", store)


def test_web_opens_the_pages_and_names_the_first_admin_s_link(store: Path) -> None:
    command = [sys.executable, "-m", "tuneful", "web", "--store", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[-1]
            link = next(word for word in process.stdout.readline().split() if word.startswith("http"))
            assert link.startswith(f"{url}/invitation/")
            assert httpx2.get(link).status_code == 200
            assert httpx2.get(f"{url}/login").status_code == 200
        finally:
            process.terminate()


def test_an_overlap_grows_where_people_disagree(tmp_path: Path) -> None:
    rows = [{"prompt": f"My house is too hot, {n}.", "completions": ANSWERS} for n in range(5)]
    write_jsonl(tmp_path / "items.jsonl", rows)
    path = tmp_path / "judgments.db"
    options = ("--store", path, "--overlap", 2, "--most-overlap", 4, "--sure", 0.8)
    tuneful("label", "create", "helpful", "--in", tmp_path / "items.jsonl", *options)
    assert "0 of 10 judgments (up to 20)" in tuneful("label", "status", "--store", path)
    opened = Store.open(path)
    project = find_project(opened, "helpful").id
    for ranks in ((1, 2), (2, 1)):
        rater = add_rater(opened, project, now=0.0)
        for number in range(5):
            given = claim(opened, project, rater, now=0.0)
            assert given is not None
            said = Said(id=str(uuid.uuid4()), ranks=(1, 2) if number else ranks, flags={}, values={})
            submit(opened, given.id, rater, said, now=1.0)
    opened.close()
    told = tuneful("label", "adapt", "--store", path, "--project", "helpful")
    assert told.startswith("adapt: begins, attempt 1")  # on standard error, with what keeps it waiting
    assert told.splitlines()[-1].startswith("10 judgments: 1 of 5 items are unsure, 1 are asked of one more now")
    assert "10 of 11 judgments (up to 20)" in tuneful("label", "status", "--store", path)
    told = tuneful("label", "adapt", "--store", path, "--project", "helpful", "--most-overlap", 0)
    assert "is fixed from now on" in told


def test_a_most_overlap_below_the_overlap_is_refused_and_makes_no_store(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "items.jsonl", [{"prompt": "hot", "completions": ANSWERS}])
    path = tmp_path / "judgments.db"
    command = ("label", "create", "helpful", "--in", tmp_path / "items.jsonl", "--store", path, "--most-overlap", 3)
    with pytest.raises(ConfigError, match="more than --overlap 3"):
        tuneful(*command)
    assert not path.exists()
