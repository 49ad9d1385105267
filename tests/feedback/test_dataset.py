"""A folder made of judgments: what stands in it, who can read it, and that the same input gives the same bytes."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tuneful.feedback.dataset as dataset_module
from tests.feedback.hostile import HOSTILE
from tuneful import __version__
from tuneful.data.formats import (
    detect,
    read_candidates,
    read_comparisons,
    read_demonstrations,
    read_unpaired,
)
from tuneful.data.splits import split_of
from tuneful.errors import ConfigError, DataError
from tuneful.feedback.consensus import consensus
from tuneful.feedback.dataset import FORMATS, write_dataset
from tuneful.feedback.dataset_manifest import Manifest, verify_dataset
from tuneful.feedback.export import to_comparisons
from tuneful.feedback.imports import import_judgments
from tuneful.feedback.judgments import read_judgments
from tuneful.feedback.settling import Decision, read_decisions
from tuneful.records import (
    Candidates,
    Comparison,
    Completion,
    Demonstration,
    Judgment,
    Message,
    Prompt,
    UnpairedPreference,
)

SHARES = {"reward": 0.5, "test": 0.5}
GUIDE = "Prefer what helps.\n\n```\nnot this fence\n```"


def household(num_prompts: int = 12, *, ask: Callable[[str], Prompt] = Prompt.user) -> list[Candidates]:
    return [
        Candidates(
            ask(f"My house is too hot, {n} times."),
            tuple(Completion(f"{text} {n}", id=f"{n}-{k}") for k, text in enumerate(["Depends.", "Blinds.", "No."])),
        )
        for n in range(num_prompts)
    ]


def rankings(offered: list[Candidates], **known: Any) -> list[Judgment]:
    """Four raters: three agree that the second answer is best, one has it the other way around."""
    said = {"ann": (2, 1, 3), "ben": (2, 1, 3), "cleo": (3, 1, 2), "dan": (1, 3, 2)}
    return [
        Judgment(
            id=f"{item.completions[0].id}-{rater}",
            item=f"item-{item.completions[0].id}",
            prompt=item.prompt.id,
            completions=tuple(one.id for one in item.completions),
            rater=rater,
            ranks=ranks,
            instructions="v1",
            created_at=f"2026-01-0{n + 1}T00:00:00+00:00",
            **known,
        )
        for item in offered
        for n, (rater, ranks) in enumerate(said.items())
    ]


def write(folder: Path, judged: list[Judgment], offered: list[Candidates], **known: Any) -> Manifest:
    settings = {"name": "House", "shares": SHARES, "instructions": {"v1": GUIDE}} | known
    return write_dataset(folder, judged, offered, **settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    paths = sorted(folder.glob(f"{kind}-*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


def comparisons_of(folder: Path, kind: str) -> list[Comparison]:
    return [pair for path in sorted(folder.glob(f"{kind}-*")) for pair in read_comparisons(path)]


def test_pairs_are_those_of_the_consensus(tmp_path: Path) -> None:
    """From ranking to consensus to pairs to a file and back: nothing is lost on the way, and nothing rounded."""
    offered = household()
    judged = rankings(offered)
    write(tmp_path / "d", judged, offered)
    texts = {one.id: (item.prompt, one.text) for item in offered for one in item.completions}
    expected = to_comparisons(consensus(judged), texts)
    assert len(expected) == 36
    read = comparisons_of(tmp_path / "d", "preferences") + comparisons_of(tmp_path / "d", "ties")
    assert sorted(read, key=repr) == sorted(expected, key=repr)


def test_prompts_are_split_and_pairs_never_are(tmp_path: Path) -> None:
    offered = household()
    manifest = write(tmp_path / "d", rankings(offered), offered)
    kinds = ("preferences", "ties", "unpaired", "trees")
    seen = set()
    for kind in kinds:
        for path in (tmp_path / "d").glob(f"{kind}-*"):
            split = path.stem.removeprefix(f"{kind}-")
            for prompt in {pair.prompt for pair in read_comparisons(path, on_skip=lambda _: None)}:
                assert split_of(prompt, SHARES) == split
                seen.add((kind, split))
    assert {split for kind, split in seen if kind == "preferences"} == {"reward", "test"}
    by_hand = {split: sum(split_of(item.prompt, SHARES) == split for item in offered) for split in SHARES}
    assert manifest.counts["prompts"] == by_hand


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, container: str) -> None:
    if container == "parquet":
        pytest.importorskip("pyarrow")
    offered = household()
    judged = rankings(offered)
    write(tmp_path / "one", judged, offered, container=container)
    shuffled = list(judged), list(offered)
    for rows in shuffled:
        random.Random(5).shuffle(rows)
    write(tmp_path / "two", *shuffled, container=container)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    write(tmp_path / "two", *shuffled, container=container, force=True)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_columns_tell_of_the_labels(tmp_path: Path) -> None:
    """Of a pair three raters order one way and one the other: 3/4. Of one that two order either way: 1/2."""
    offered = household()
    write(tmp_path / "d", rankings(offered), offered)
    rows = rows_of(tmp_path / "d", "preferences") + rows_of(tmp_path / "d", "ties")
    told = {
        (row["chosen"][0]["content"], row["rejected"][0]["content"]): row for row in rows if row["group"] == "item-0-0"
    }
    best_worst = told["Blinds. 0", "No. 0"]
    assert best_worst["num_labels"] == 4
    assert best_worst["agreement"] == 0.75
    assert best_worst["criterion"] == "preference"
    assert best_worst["instructions"] == ["v1"]
    assert best_worst["rater_kinds"] == ["human"]
    assert best_worst["weight"] == pytest.approx(1 / 3)
    assert "margin" not in best_worst
    assert {tuple(row) for row in rows} == {tuple(best_worst)}  # every row has every column


def decided(item: Candidates, ranks: tuple[int, ...], **more: Any) -> Decision:
    known = {"id": f"d-{item.completions[0].id}", "item": f"item-{item.completions[0].id}", "prompt": item.prompt.id}
    names = tuple(one.id for one in item.completions)
    return Decision(
        **{**known, "completions": names, "criterion": "preference", "rater": "lead", "ranks": ranks} | more
    )


def test_a_decided_item_stands_as_it_was_decided(tmp_path: Path) -> None:
    """The raters have "Blinds." first; the lead puts "No." first and the others level behind it."""
    offered = household()
    manifest = write(tmp_path / "d", rankings(offered), offered, decisions=[decided(offered[0], (2, 2, 1))])
    pairs = [row for kind in ("preferences", "ties") for row in rows_of(tmp_path / "d", kind)]
    told = {
        (row["chosen"][0]["content"], row["rejected"][0]["content"]): row for row in pairs if row["group"] == "item-0-0"
    }
    assert {texts: row["p"] for texts, row in told.items()} == {
        ("No. 0", "Depends. 0"): 1.0,
        ("No. 0", "Blinds. 0"): 1.0,
        ("Depends. 0", "Blinds. 0"): 0.5,
    }
    assert told["No. 0", "Blinds. 0"]["agreement"] == 0.25  # what raters said is told as it was
    assert [row["group"] for row in pairs if row["decided"]] == 3 * ["item-0-0"]
    singles = {row["completion"][0]["content"]: row for row in rows_of(tmp_path / "d", "unpaired")}
    assert (singles["No. 0"]["label"], singles["No. 0"]["p"], singles["No. 0"]["decided"]) == (True, 1.0, True)
    assert not singles["Blinds. 1"]["decided"]
    (tree,) = [row for row in rows_of(tmp_path / "d", "trees") if ", 0 times" in row["prompt"]["text"]]
    assert tree["prompt"]["replies"][0]["text"] == "No. 0"
    assert manifest.counts["decided"] == 1
    assert "settled 1 item" in card_of(tmp_path / "d")
    assert read_decisions(tmp_path / "d" / "decisions.jsonl") == [decided(offered[0], (2, 2, 1))]
    assert verify_dataset(tmp_path / "d") == []


def test_without_decisions_nothing_is_said_of_them(tmp_path: Path) -> None:
    offered = household()
    write(tmp_path / "d", rankings(offered), offered)
    assert not (tmp_path / "d" / "decisions.jsonl").exists()
    assert "The project's lead settled" not in card_of(tmp_path / "d")


def test_an_audience_speaks_for_itself(tmp_path: Path) -> None:
    offered = household()
    made = [decided(offered[0], (2, 2, 1))]
    manifest = write(tmp_path / "d", rankings(offered), offered, decisions=made, audience="nurses")
    assert manifest.counts["decided"] == 0
    assert not any(row["decided"] for row in rows_of(tmp_path / "d", "preferences"))


def test_yes_or_no_is_as_decided(tmp_path: Path) -> None:
    offered = [replace(one, completions=one.completions[:1]) for one in household(2)]
    said = [
        replace(one, kind="binary", ranks=(), completions=one.completions[:1], values={"preference": 1})
        for one in rankings(offered)
    ]
    made = [decided(offered[0], (), values={"preference": 0})]
    write(tmp_path / "d", said, offered, decisions=made)
    rows = {row["completion"][0]["content"]: row for row in rows_of(tmp_path / "d", "unpaired")}
    assert {text: (row["label"], row["p"], row["decided"]) for text, row in rows.items()} == {
        "Depends. 0": (False, 0, True),
        "Depends. 1": (True, pytest.approx(1, abs=0.01), False),
    }


def test_a_decision_settles_its_own_criterion_alone(tmp_path: Path) -> None:
    """The lead says no by "preference", which nobody was asked; four say yes by "honest"."""
    offered = [replace(one, completions=one.completions[:1]) for one in household(1)]
    said = [
        replace(one, kind="binary", ranks=(), completions=one.completions[:1], criterion="honest", values={"honest": 1})
        for one in rankings(offered)
    ]
    write(tmp_path / "yes", said, offered, decisions=[decided(offered[0], (), values={"preference": 0})])
    (row,) = rows_of(tmp_path / "yes", "unpaired")
    assert (row["criterion"], row["label"], row["decided"]) == ("honest", True, False)
    assert row["p"] == pytest.approx(1, abs=0.01)
    offered = household(1)
    said = [replace(one, criterion="honest") for one in rankings(offered)]
    write(tmp_path / "order", said, offered, decisions=[decided(offered[0], (2, 2, 1))])
    assert not any(row["decided"] for row in rows_of(tmp_path / "order", "unpaired"))


def test_an_item_that_was_only_flagged_can_be_decided(tmp_path: Path) -> None:
    offered = household(2)
    said = rankings(offered)
    flags = {offered[0].completions[2].id: ("unsafe",)}
    said[:4] = [replace(one, ranks=(None, None, None), flags=flags) for one in said[:4]]
    write(tmp_path / "d", said, offered, decisions=[decided(offered[0], (2, 1, 3))])
    rows = [row for kind in ("preferences", "flagged") for row in rows_of(tmp_path / "d", kind)]
    mine = {
        (row["chosen"][0]["content"], row["num_labels"], row["agreement"]) for row in rows if row["group"] == "item-0-0"
    }
    assert mine == {("Blinds. 0", 0, None), ("Depends. 0", 0, None)}


def test_ties_have_a_file_of_their_own(tmp_path: Path) -> None:
    offered = household(1)
    judged = [replace(one, ranks=(1, 1, 2)) for one in rankings(offered)]
    write(tmp_path / "d", judged, offered)
    assert all(0.45 <= row["p"] <= 0.55 for row in rows_of(tmp_path / "d", "ties"))
    assert all(row["p"] > 0.55 for row in rows_of(tmp_path / "d", "preferences"))
    [tie] = rows_of(tmp_path / "d", "ties")
    assert {tie["chosen"][0]["content"], tie["rejected"][0]["content"]} == {"Depends. 0", "Blinds. 0"}
    assert tie["agreement"] == 0.5


def test_criteria_are_told_apart(tmp_path: Path) -> None:
    offered = household(3)
    honest = [
        replace(one, id=f"h-{one.id}", criterion="honest", ranks=tuple(4 - rank for rank in one.ranks if rank))
        for one in rankings(offered)
    ]
    manifest = write(tmp_path / "d", rankings(offered) + honest, offered)
    assert list(manifest.agreement) == ["honest", "preference"]
    groups = {(row["criterion"], row["group"]) for row in rows_of(tmp_path / "d", "preferences")}
    assert ("preference", "item-0-0") in groups
    assert ("honest", "item-0-0/honest") in groups


def flagged(offered: list[Candidates], completion: str, flag: str, *raters: str) -> list[Judgment]:
    return [
        replace(one, flags={completion: (flag,)}) if one.rater in raters and completion in one.completions else one
        for one in rankings(offered)
    ]


@pytest.mark.parametrize("raters", [("ann",), ("ann", "ben"), ("ann", "ben", "cleo")])
def test_what_half_of_the_raters_flagged_is_trained_on_by_nobody(tmp_path: Path, raters: tuple[str, ...]) -> None:
    offered = household(3)
    write(tmp_path / "d", flagged(offered, "0-2", "unsafe", *raters), offered)
    rows = rows_of(tmp_path / "d", "flagged")
    kept = rows_of(tmp_path / "d", "preferences") + rows_of(tmp_path / "d", "ties")
    sides = {answer for row in kept for answer in (row["chosen"][0]["content"], row["rejected"][0]["content"])}
    if len(raters) == 1:
        assert not rows
        assert "No. 0" in sides
        return
    assert len(rows) == 2
    assert {tuple(row["chosen_flags"] + row["rejected_flags"]) for row in rows} == {("unsafe",)}
    assert "No. 0" not in sides
    assert "No. 0" not in {row["completion"][0]["content"] for row in rows_of(tmp_path / "d", "unpaired")}
    assert not any("No. 0" in path.read_text() for path in (tmp_path / "d").glob("trees-*"))


@pytest.mark.parametrize(("flag", "is_kept"), [("gibberish", True), ("unsafe", False)])
def test_gibberish_may_be_rejected_when_asked(tmp_path: Path, flag: str, is_kept: bool) -> None:
    offered = household(3)
    judged = [  # the last answer is the worst to everybody, so it is never the chosen side
        replace(one, ranks=(2, 1, 3), flags={one.completions[2]: (flag,)}) for one in rankings(offered)
    ]
    write(tmp_path / "no", judged, offered)
    assert {row["rejected"][0]["content"][:3] for row in rows_of(tmp_path / "no", "flagged")} == {"No."}
    assert len(rows_of(tmp_path / "no", "flagged")) == 6
    write(tmp_path / "yes", judged, offered, flagged_as_rejected=True)
    assert len(rows_of(tmp_path / "yes", "flagged")) == (0 if is_kept else 6)
    rejected = {row["rejected"][0]["content"] for row in rows_of(tmp_path / "yes", "preferences")}
    assert ("No. 0" in rejected) is is_kept


def test_gibberish_is_never_the_chosen_side(tmp_path: Path) -> None:
    offered = household(3)
    judged = [replace(one, ranks=(2, 1, 3), flags={one.completions[1]: ("gibberish",)}) for one in rankings(offered)]
    write(tmp_path / "d", judged, offered, flagged_as_rejected=True)
    assert len(rows_of(tmp_path / "d", "flagged")) == 6
    assert {row["chosen"][0]["content"][:7] for row in rows_of(tmp_path / "d", "preferences")} == {"Depends"}


def test_margins_are_written_when_asked(tmp_path: Path) -> None:
    """Not else: TRL's reward loss and ours subtract one wherever it stands, and p says the same already."""
    offered = household(3)
    judged = rankings(offered)
    write(tmp_path / "d", judged, offered, margins=True)
    found = consensus(judged)
    first = found.pairs[0]
    expected = found.slope * (found.scores[first.first][0] - found.scores[first.second][0])
    texts = {one.id: one.text for item in offered for one in item.completions}
    rows = rows_of(tmp_path / "d", "preferences") + rows_of(tmp_path / "d", "ties")
    [row] = [
        row
        for row in rows
        if (row["chosen"][0]["content"], row["rejected"][0]["content"]) == (texts[first.first], texts[first.second])
    ]
    assert row["margin"] == expected >= 0


def binary(rater: str, completion: str, prompt: Prompt, value: float, **known: Any) -> Judgment:
    return Judgment(
        id=f"{rater}-{completion}",
        item=completion,
        prompt=prompt.id,
        completions=(completion,),
        rater=rater,
        kind="binary",
        values={"preference": value},
        **known,
    )


def test_single_answers_by_the_consensus_of_raters(tmp_path: Path) -> None:
    """Two raters say yes of 34 answers, no of 34, and disagree on 16 each way: good with 16/17, bad with 16/17, and
    even (worked by hand in test_dawid_skene). By majority the first would have (2 + 1) / (2 + 2)."""
    ask = Prompt.user("Is it hot?")
    kinds = {"yes": (34, (1, 1)), "no": (34, (0, 0)), "one": (16, (1, 0)), "other": (16, (0, 1))}
    words = {f"{kind} {n}": said for kind, (count, said) in kinds.items() for n in range(count)}
    offered = [Candidates(ask, tuple(Completion(text, id=text) for text in words))]
    judged = [binary(f"r{n}", text, ask, value) for text, said in words.items() for n, value in enumerate(said)]
    manifest = write(tmp_path / "d", judged, offered)
    rows = {row["completion"][0]["content"]: row for row in rows_of(tmp_path / "d", "unpaired")}
    assert set(rows) == {text for text in words if text.startswith(("yes", "no"))}
    assert {rows[text]["label"] for text in rows if text.startswith("yes")} == {True}
    assert {rows[text]["label"] for text in rows if text.startswith("no")} == {False}
    assert rows["yes 0"]["p"] == pytest.approx(16 / 17, abs=1e-3)
    assert rows["no 0"]["p"] == pytest.approx(1 / 17, abs=1e-3)
    assert {(row["source"], row["num_labels"]) for row in rows.values()} == {("binary", 2)}
    assert manifest.left_out == {"unpaired: as good as bad": 32}
    [path] = (tmp_path / "d").glob("unpaired-*")
    assert UnpairedPreference(ask, "yes 0", label=True, p=rows["yes 0"]["p"]) in read_unpaired(path)


def test_an_answer_that_is_neither_yes_nor_no_is_left_out_and_told(tmp_path: Path) -> None:
    ask = Prompt.user("Is it hot?")
    offered = [Candidates(ask, (Completion("yes", id="a"), Completion("so", id="b")))]
    manifest = write(tmp_path / "d", [binary("ann", "a", ask, 1), binary("ann", "b", ask, 0.7)], offered)
    assert [row["completion"][0]["content"] for row in rows_of(tmp_path / "d", "unpaired")] == ["yes"]
    assert manifest.left_out == {"unpaired: an answer that is neither 0 nor 1": 1}


def test_ratings_are_the_order_that_they_imply(tmp_path: Path) -> None:
    """The same files of ratings 1 to 7 as of the rankings that they are written from, judgments apart; a decision of
    ratings as one of ranks."""
    offered = household(6)
    ranked = rankings(offered)
    rated = [
        replace(
            one, kind="rating", ranks=(), values=dict(zip(one.completions, (7 - 2 * r for r in one.ranks), strict=True))
        )
        for one in ranked
    ]
    names = [one.id for one in offered[0].completions]
    points = decided(offered[0], (), values=dict(zip(names, (1, 1, 6), strict=True)))
    write(tmp_path / "ranked", ranked, offered, decisions=[decided(offered[0], (2, 2, 1))])
    write(tmp_path / "rated", rated, offered, decisions=[points])
    for kind in ("preferences", "ties", "unpaired", "trees"):
        assert rows_of(tmp_path / "rated", kind) == rows_of(tmp_path / "ranked", kind)
    settled = [row for row in rows_of(tmp_path / "rated", "preferences") if row["decided"]]
    assert {(row["chosen"][0]["content"], row["p"]) for row in settled} == {("No. 0", 1)}


def test_ratings_of_single_answers_order_nothing(tmp_path: Path) -> None:
    offered = [replace(one, completions=one.completions[:1]) for one in household(2)]
    rated = [
        replace(one, kind="rating", ranks=(), values={one.completions[0]: 5.0})
        for one in (replace(said, completions=said.completions[:1]) for said in rankings(offered))
    ]
    manifest = write(tmp_path / "d", rated, offered)
    assert {file.name for file in manifest.files} == {"judgments.jsonl", "judgments.csv", "completions.jsonl"}


def test_single_answers_from_pairs(tmp_path: Path) -> None:
    offered = household(6)
    judged = [replace(one, ranks=(2, 1, 3)) for one in rankings(offered)]
    write(tmp_path / "d", judged, offered)
    rows = rows_of(tmp_path / "d", "unpaired")
    labels = {row["completion"][0]["content"]: (row["label"], row["source"]) for row in rows}
    assert labels["Blinds. 0"] == (True, "pairs")
    assert labels["No. 0"] == (False, "pairs")
    assert "Depends. 0" not in labels  # in the middle


def test_demonstrations_are_what_raters_wrote(tmp_path: Path) -> None:
    offered = household(2)
    written = [
        Judgment(
            id=f"d{n}",
            item=f"item-{n}-0",
            prompt=item.prompt.id,
            completions=(item.completions[0].id,),
            rater="ann",
            kind="demonstration",
            text=text,
        )
        for n, (item, text) in enumerate(zip(offered, ["Close the blinds at noon.", "  "], strict=True))
    ]
    manifest = write(tmp_path / "d", rankings(offered) + written, offered)
    [path] = (tmp_path / "d").glob("demonstrations-*")
    assert read_demonstrations(path) == [Demonstration(offered[0].prompt, "Close the blinds at noon.")]
    assert manifest.left_out["demonstrations: empty"] == 1


def test_transcripts_are_read_as_they_were_written(tmp_path: Path) -> None:
    talk = Prompt((Message("user", "Hot."), Message("assistant", "Since when?"), Message("user", "Noon.")))
    system = Prompt((Message("system", "Be brief."), Message("user", "Hot.")))
    tricky = Prompt.user("Say this:\n\nAssistant: yes")
    plain = Prompt("My house is hot.")
    offered = [
        Candidates(ask, (Completion("Blinds.", id=f"{n}a"), Completion("No.", id=f"{n}b")))
        for n, ask in enumerate([talk, system, tricky, plain])
    ]
    judged = [
        Judgment(id=f"{n}-{rater}", item=f"i{n}", prompt=item.prompt.id, completions=(f"{n}a", f"{n}b"), rater=rater,
                 ranks=(1, 2))
        for n, item in enumerate(offered)
        for rater in ("ann", "ben")
    ]  # fmt: skip
    manifest = write(tmp_path / "d", judged, offered)
    assert manifest.left_out["transcripts: cannot be told from their turns"] == 2
    assert manifest.left_out["trees: turns that a tree has no place for"] == 1
    read = comparisons_of(tmp_path / "d", "transcripts")
    assert {pair.prompt for pair in read} == {talk, Prompt.user("My house is hot.")}
    assert {(pair.chosen, pair.rejected) for pair in read} == {("Blinds.", "No.")}
    trees = comparisons_of(tmp_path / "d", "trees")
    assert {pair.prompt for pair in trees} == {talk, tricky, Prompt.user("My house is hot.")}


def test_trees_rank_from_the_best_score_down(tmp_path: Path) -> None:
    offered = household(4)
    judged = [replace(one, ranks=(2, 1, 3)) for one in rankings(offered)]
    write(tmp_path / "d", judged, offered)
    paths = sorted((tmp_path / "d").glob("trees-*"))
    assert all(detect(path) == "trees" for path in paths)
    pairs = {(pair.chosen, pair.rejected) for path in paths for pair in read_comparisons(path)}
    wanted = {(better, worse) for better, worse in [("Blinds.", "Depends."), ("Blinds.", "No."), ("Depends.", "No.")]}
    assert pairs == {(f"{better} {n}", f"{worse} {n}") for better, worse in wanted for n in range(4)}
    found = [judgment for path in paths for judgment in import_judgments(path).judgments]
    assert len(found) == 4
    assert {one.id for path in paths for item in read_candidates(path) for one in item.completions} == {
        one.id for item in offered for one in item.completions
    }


def test_raw_judgments_hold_every_revision(tmp_path: Path) -> None:
    offered = household(2)
    judged = rankings(offered)
    revised = replace(judged[0], id="again", ranks=(3, 2, 1), replaces=judged[0].id, note="misread")
    manifest = write(tmp_path / "d", [*judged, revised], offered)
    assert {one.id for one in read_judgments(tmp_path / "d" / "judgments.jsonl")} == {
        one.id for one in [*judged, revised]
    }
    assert manifest.counts["judgments"] == 9
    assert manifest.counts["latest"] == 8
    read = import_judgments(
        tmp_path / "d" / "judgments.jsonl", candidates=read_candidates(tmp_path / "d" / "completions.jsonl")
    )
    assert set(read.candidates) == set(offered)
    table = list(csv.DictReader((tmp_path / "d" / "judgments.csv").open(encoding="utf-8", newline="")))
    assert judged[0].id not in {row["id"] for row in table}
    [row] = [row for row in table if row["id"] == "again"]
    assert (row["ranks"], row["replaces"], row["seconds"]) == ("[3, 2, 1]", judged[0].id, "")
    assert row["note"] == "misread"
    assert {one.note for one in read.judgments if one.id == "again"} == {"misread"}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("＝1", "'＝1"),
        ("a=1", "a=1"),
        ("'=1", "'=1"),
        ('a "quoted", one\nand a line', 'a "quoted", one\nand a line'),
    ],
)
def test_a_cell_is_no_formula(tmp_path: Path, text: str, cell: str) -> None:
    offered = household(1)
    judged = [*rankings(offered), Judgment(
        id="d", item="item-0-0", prompt=offered[0].prompt.id, completions=("0-0",), rater="ann", kind="demonstration",
        text=text, criterion=text,
    )]  # fmt: skip
    write(tmp_path / "d", judged, offered)
    content = (tmp_path / "d" / "judgments.csv").open(encoding="utf-8", newline="")
    [row] = [row for row in csv.DictReader(content) if row["id"] == "d"]
    assert (row["text"], row["criterion"]) == (cell, cell)


# Who reads it


def load(folder: Path, config: str, cache: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets.load_dataset(str(folder), config, cache_dir=str(cache))


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
@pytest.mark.parametrize("ask", [Prompt, Prompt.user], ids=["text", "messages"])
def test_datasets_read_every_table(tmp_path: Path, container: str, ask: Callable[[str], Prompt]) -> None:
    """With the rows as they are, though some columns of some splits hold nothing that shows their type."""
    pytest.importorskip("datasets")
    offered = household(ask=ask)
    judged = flagged(offered, "0-2", "unsafe", "ann", "ben")
    late = {item.prompt.id for item in offered if split_of(item.prompt, SHARES) == "test"}
    judged = [replace(one, instructions="v1" if one.prompt in late else "") for one in judged]
    judged += [
        Judgment(id=f"d{n}", item=f"item-{n}-0", prompt=offered[n].prompt.id, completions=(f"{n}-0",), rater="ann",
                 kind="demonstration", text=f"Written {n}.", instructions="v1" if offered[n].prompt.id in late else "")
        for n in range(6)
    ]  # fmt: skip
    write(tmp_path / "j", judged, offered)
    if container == "parquet":
        write(tmp_path / "p", judged, offered, container="parquet")
    folder = tmp_path / ("p" if container == "parquet" else "j")
    for kind in ("preferences", "flagged", "unpaired", "demonstrations", "transcripts"):
        loaded = load(folder, kind, tmp_path / "cache")
        for split, table in loaded.items():
            path = tmp_path / "j" / f"{kind}-{split}.jsonl"
            assert list(table) == [json.loads(line) for line in path.read_text().splitlines()]
        assert {f"{kind}-{split}.{container}" for split in loaded} == {p.name for p in folder.glob(f"{kind}-*")}


def test_datasets_take_the_pairs_where_no_kind_is_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    offered = household()
    write(tmp_path / "d", rankings(offered), offered)
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"reward", "test"}
    assert {"prompt", "chosen", "rejected"} <= set(loaded["reward"].column_names)


def test_trl_takes_the_rows(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl.data_utils", reason="the reader is TRL")
    offered = household()
    write(tmp_path / "d", rankings(offered), offered)
    pairs = load(tmp_path / "d", "preferences", tmp_path / "cache")["reward"]
    assert trl.is_conversational(pairs[0])
    assert trl.maybe_extract_prompt(pairs[0])["prompt"] == pairs[0]["prompt"]
    halves = trl.unpair_preference_dataset(pairs.select_columns(["prompt", "chosen", "rejected"]))
    assert len(halves) == 2 * len(pairs)
    single = load(tmp_path / "d", "unpaired", tmp_path / "cache")["reward"]
    assert trl.is_conversational(single[0])
    assert {type(label) for label in single["label"]} == {bool}


def test_prompts_of_both_shapes_stand_in_files_of_their_own(tmp_path: Path) -> None:
    talks, texts = household(8), household(8, ask=Prompt)
    texts = [
        Candidates(item.prompt, tuple(replace(one, id=f"t{one.id}") for one in item.completions)) for item in texts
    ]
    judged = [*rankings(talks), *rankings(texts)]
    write(tmp_path / "d", judged, [*talks, *texts])
    assert {pair.prompt for pair in comparisons_of(tmp_path / "d", "preferences-text")} <= {t.prompt for t in texts}
    pytest.importorskip("datasets")
    for kind, shape in (("preferences", list), ("preferences-text", str)):
        for table in load(tmp_path / "d", kind, tmp_path / "cache").values():
            assert {type(prompt) for prompt in table["prompt"]} == {shape}


def test_an_answer_may_be_empty(tmp_path: Path) -> None:
    ask = Prompt("Say nothing.")
    offered = [Candidates(ask, (Completion("", id="a"), Completion("Nothing.", id="b")))]
    judged = [
        Judgment(id=rater, item="i", prompt=ask.id, completions=("a", "b"), rater=rater, ranks=(1, 2))
        for rater in ("ann", "ben")
    ]
    write(tmp_path / "d", judged, offered)
    [pair] = comparisons_of(tmp_path / "d", "preferences")
    assert (pair.prompt, pair.chosen, pair.rejected) == (ask, "", "Nothing.")
    [path] = (tmp_path / "d").glob("unpaired-*")
    assert [one.label for one in read_unpaired(path) if (one.prompt, one.completion) == (ask, "")] == [True]
    [item] = read_candidates(tmp_path / "d" / "completions.jsonl")
    assert [one.text for one in item.completions] == ["", "Nothing."]


IN_A_FILE = [*HOSTILE, "---\nlicense: mit\n---", '{"p": 1} \\ "']


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_hostile_text_survives_unchanged(tmp_path: Path, container: str) -> None:
    if container == "parquet":
        pytest.importorskip("pyarrow")
    offered = [
        Candidates(Prompt.user(f"{n} {text}"), (Completion(text, id=f"{n}a"), Completion(f"{text}!", id=f"{n}b")))
        for n, text in enumerate(IN_A_FILE)
    ]
    judged = [
        Judgment(id=f"{n}-{rater}", item=f"i{n}", prompt=item.prompt.id, completions=(f"{n}a", f"{n}b"), rater=rater,
                 ranks=(1, 2), criterion=IN_A_FILE[0])
        for n, item in enumerate(offered)
        for rater in ("ann", "ben")
    ]  # fmt: skip
    write(tmp_path / "d", judged, offered, container=container, name=IN_A_FILE[1], instructions={"v1": IN_A_FILE[3]})
    read = comparisons_of(tmp_path / "d", "preferences")
    assert {(pair.prompt, pair.chosen, pair.rejected) for pair in read} == {
        (item.prompt, item.completions[0].text, item.completions[1].text) for item in offered
    }
    assert {one.text for item in read_candidates(tmp_path / "d" / "completions.jsonl") for one in item.completions} == {
        one.text for item in offered for one in item.completions
    }
    assert set(read_judgments(tmp_path / "d" / "judgments.jsonl")[0].completions) == {"0a", "0b"}
    assert verify_dataset(tmp_path / "d") == []
    if container == "jsonl":
        pytest.importorskip("datasets")
    tables = load(tmp_path / "d", "preferences", tmp_path / "cache").values()
    assert {row["chosen"][0]["content"] for table in tables for row in table} == set(IN_A_FILE)


# Card and manifest


def test_the_manifest_tells_of_every_file(tmp_path: Path) -> None:
    offered = household()
    judged = rankings(offered)
    manifest = write(tmp_path / "d", judged, offered, query={"project": "house"})
    kept = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert kept == json.loads(json.dumps(manifest.as_json()))
    assert kept["version"] == __version__
    assert kept["query"] == {"project": "house"}
    assert {file["name"] for file in kept["files"]} | {"README.md", "manifest.json"} == set(contents(tmp_path / "d"))
    for file in kept["files"]:
        content = (tmp_path / "d" / file["name"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["rows"] == content.count(b"\n") - file["name"].endswith(".csv")
    other = write(tmp_path / "e", [replace(judged[0], seconds=1.0), *judged[1:]], offered)
    assert other.inputs["judgments"] != manifest.inputs["judgments"]
    assert other.inputs["candidates"] == manifest.inputs["candidates"]
    assert manifest.inputs["instructions"] == {"v1": hashlib.sha256(f"{GUIDE}\n".encode()).hexdigest()}


def test_one_changed_byte_is_noticed(tmp_path: Path) -> None:
    offered = household(4)
    write(tmp_path / "d", rankings(offered), offered)
    assert verify_dataset(tmp_path / "d") == []
    for path in sorted((tmp_path / "d").iterdir()):
        content = path.read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            told = verify_dataset(tmp_path / "d")
            if path.name == "README.md":
                assert told == []  # yours to complete
            else:
                assert told
                assert told[0].startswith(path.name)
        path.write_bytes(content)
    assert verify_dataset(tmp_path / "d") == []


def test_missing_files_and_strangers_are_told(tmp_path: Path) -> None:
    offered = household(4)
    write(tmp_path / "d", rankings(offered), offered)
    (tmp_path / "d" / "judgments.csv").unlink()
    (tmp_path / "d" / "more.jsonl").write_text("{}\n")
    assert verify_dataset(tmp_path / "d") == ["judgments.csv: missing", "more.jsonl: not in the manifest"]
    with pytest.raises(DataError, match="so it is no dataset that can be verified"):
        verify_dataset(tmp_path)


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_tells_who_judged_and_what_they_were_told(tmp_path: Path) -> None:
    offered = household()
    ai = [
        replace(one, id=f"ai-{one.id}", rater="judge", rater_kind="ai")
        for one in rankings(offered)
        if one.rater == "ann"
    ]
    write(tmp_path / "d", rankings(offered) + ai, offered, instructions={"v1": GUIDE, "v2": "Later."})
    card = card_of(tmp_path / "d")
    assert "| human | 4 | 48 |" in card
    assert "| ai | 1 | 12 |" in card
    assert f"### Version `v1`, 60 judgments\n\n````text\n{GUIDE}\n````" in card
    assert "### Version `v2`, 0 judgments" in card
    assert "| `preference` | 0." in card
    assert "# license: say which" in card
    hub = pytest.importorskip("huggingface_hub")
    header = hub.DatasetCard.load(tmp_path / "d" / "README.md").data.to_dict()
    assert header["pretty_name"] == "House"
    assert next(config["config_name"] for config in header["configs"] if config.get("default")) == "preferences"


def test_groups_of_fewer_than_five_people_are_not_told(tmp_path: Path) -> None:
    offered = household(2)
    judged = [
        replace(one, id=f"{one.id}-{n}", rater=f"r{n}")
        for one in rankings(offered)
        if one.rater == "ann"
        for n in range(9)
    ]
    groups = {f"r{n}": ["renters" if n < 5 else "owners"] for n in range(9)}
    manifest = write(tmp_path / "d", judged, offered, groups=groups)
    assert manifest.counts["groups"] == {"renters": 5}
    assert "| `renters` | 5 |" in card_of(tmp_path / "d")
    assert "owners" not in "".join(content.decode() for content in contents(tmp_path / "d").values())


def test_an_audience_is_its_own_raters(tmp_path: Path) -> None:
    offered = household(4)
    judged = [
        replace(one, id=f"{one.id}-{n}", rater=f"r{n}", ranks=(1, 2, 3) if n < 5 else (3, 2, 1))
        for one in rankings(offered)
        if one.rater == "ann"
        for n in range(9)
    ]
    groups = {f"r{n}": ["renters" if n < 5 else "owners"] for n in range(9)}
    manifest = write(tmp_path / "d", judged, offered, groups=groups, audience="renters")
    assert manifest.audience == "renters"
    assert manifest.counts["raters"] == {"human": 5}
    assert {row["chosen"][0]["content"][:3] for row in rows_of(tmp_path / "d", "preferences")} <= {"Dep", "Bli"}
    assert {one.rater for one in read_judgments(tmp_path / "d" / "judgments.jsonl")} == {f"r{n}" for n in range(5)}
    with pytest.raises(DataError, match='audience "owners": has fewer than 5 people'):
        write(tmp_path / "e", judged, offered, groups=groups, audience="owners")
    with pytest.raises(DataError, match=r'audience "renter": nobody .*did you mean "renters"'):
        write(tmp_path / "e", judged, offered, groups=groups, audience="renter")
    with pytest.raises(DataError, match='audience "renters": nobody'):
        write(tmp_path / "e", judged, offered, groups={}, audience="renters")
    assert write(tmp_path / "f", judged, offered, audience="renters").counts["raters"] == {"human": 9}
    simulated = [replace(one, rater_kind="simulated") for one in judged]
    assert write(tmp_path / "e", simulated, offered, groups=groups, audience="owners").counts["raters"] == {
        "simulated": 4
    }


# What is refused


def test_files_can_be_chosen(tmp_path: Path) -> None:
    offered = household(4)
    write(tmp_path / "d", rankings(offered), offered, formats=["transcripts", "judgments"])
    names = {name.split("-")[0] for name in contents(tmp_path / "d")}
    assert names == {"transcripts", "judgments.jsonl", "manifest.json", "README.md"}
    with pytest.raises(DataError, match='a dataset has no files "preference"; did you mean "preferences"'):
        write(tmp_path / "e", rankings(offered), offered, formats=["preference"])
    assert set(FORMATS) >= {"preferences", "trees", "judgments", "csv"}


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"name": " "}, DataError, "a dataset needs a name"),
        ({"shares": {"a": 0.5}}, ConfigError, "add up to 1"),
        ({"shares": {"a-b": 1.0}}, DataError, 'split "a-b": the name may have letters'),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], told: str
) -> None:
    offered = household(2)
    with pytest.raises(error, match=told):
        write(tmp_path / "d", rankings(offered), offered, **change)
    assert not (tmp_path / "d").exists()


def test_input_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    offered = household(2)
    judged = rankings(offered)
    other = Candidates(offered[0].prompt, (Completion("Else.", id="0-0"),))
    cases: list[tuple[list[Judgment], list[Candidates], str]] = [
        ([], offered, "there are no judgments"),
        ([*judged, judged[0]], offered, f'judgment "{judged[0].id}" comes 2 times'),
        (judged, offered[:1], 'completion "1-[012]" has no text'),
        (judged, [*offered, other], 'completion "0-0" has two texts or prompts'),
        ([replace(judged[0], rater="ann@example.org")], offered, "looks like an address; give raters pseudonyms"),
    ]
    for said, given, told in cases:
        with pytest.raises(DataError, match=told):
            write(tmp_path / "d", said, given)
        assert list(tmp_path.iterdir()) == []


def test_only_a_dataset_is_replaced_and_only_when_forced(tmp_path: Path) -> None:
    offered = household(2)
    judged = rankings(offered)
    (tmp_path / "d").mkdir()
    write(tmp_path / "d", judged, offered)  # an empty folder is nobody's work
    with pytest.raises(DataError, match="exists already; choose another name or use --force"):
        write(tmp_path / "d", judged, offered)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(DataError, match=r'mine: holds "letter.txt" and no dataset, so nothing is replaced'):
        write(tmp_path / "mine", judged, offered, force=True)
    for foreign in ("[1]", '{"files": [{"name": "letter.txt", "sha256": "0"}]}', "no JSON"):
        (tmp_path / "mine" / "manifest.json").write_text(foreign)
        with pytest.raises(DataError, match=r"mine/manifest.json: is not the manifest of a dataset"):
            write(tmp_path / "mine", judged, offered, force=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is no directory"):
        write(tmp_path / "file", judged, offered, force=True)
    with pytest.raises(DataError, match="is no name for a new folder"):
        write(Path(), judged, offered, force=True)


def beside(folder: Path) -> dict[str, str]:
    """Things of somebody's own in a folder, by path."""
    own = {"mine.txt": "dear", ".git/config": "[core]", "sub/deep/notes.md": "note"}
    for name, text in own.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return own


def test_what_is_not_the_dataset_s_stays(tmp_path: Path) -> None:
    """Also where the new dataset has other files than the earlier one, whose own all go."""
    offered = household()
    judged = rankings(offered)
    write(tmp_path / "d", judged, offered)
    own = beside(tmp_path / "d")
    write(tmp_path / "d", judged, offered, formats=["csv", "completions"], force=True)
    write(tmp_path / "fresh", judged, offered, formats=["csv", "completions"])
    assert {name: (tmp_path / "d" / name).read_text() for name in own} == own
    names = {path.name for path in (tmp_path / "fresh").iterdir()}
    assert {path.name for path in (tmp_path / "d").iterdir()} == names | {"mine.txt", ".git", "sub"}
    assert all((tmp_path / "d" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes() for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {"d", "fresh"}


def test_a_file_of_ones_own_that_stands_in_the_way_is_named(tmp_path: Path) -> None:
    offered = household()
    judged = rankings(offered)
    write(tmp_path / "d", judged, offered, formats=["csv"])
    own = beside(tmp_path / "d")
    (tmp_path / "d" / "judgments.jsonl").write_text("mine")
    before = {path: path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=r"d/judgments.jsonl: the new dataset has a file of that name; move yours"):
        write(tmp_path / "d", judged, offered, force=True)
    assert {path: path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file()} == before
    assert set(own) < {str(path.relative_to(tmp_path / "d")) for path in before}
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("calls", range(8))
def test_a_kill_while_folders_change_places_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Every rename and removal from the first on is where it could be killed; the next export ends it."""
    offered = household(2)
    judged = rankings(offered)
    write(tmp_path / "d", judged, offered, formats=["csv", "completions"])
    own = beside(tmp_path / "d")
    left = calls

    def fails(real: Callable[..., Any]) -> Callable[..., Any]:
        def once(self: Path, *arguments: Any, **known: Any) -> Any:
            nonlocal left
            if ".before" in f"{self}{arguments}":
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
            return real(self, *arguments, **known)

        return once

    with monkeypatch.context() as killing:
        for name in ("rename", "unlink", "rmdir"):
            killing.setattr(Path, name, fails(getattr(Path, name)))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "d", judged, offered, formats=["csv"], force=True)
    write(tmp_path / "d", judged, offered, formats=["csv"], force=True)
    assert {name: (tmp_path / "d" / name).read_text() for name in own} == own
    assert verify_dataset(tmp_path / "d") == ["mine.txt: not in the manifest", "sub: not in the manifest"]
    assert {path.name for path in tmp_path.iterdir()} == {"d"}


def test_the_license_of_a_card_stays(tmp_path: Path) -> None:
    """Its lines in the header and all below its heading; the rest of the card is written anew. Where nothing was said,
    the card is the same."""
    offered = household(2)
    judged = rankings(offered)
    write(tmp_path / "d", judged, offered)
    card, plain = tmp_path / "d" / "README.md", (tmp_path / "d" / "README.md").read_text()
    write(tmp_path / "d", judged, offered, force=True)
    assert card.read_text() == plain
    said = "license: other\nlicense_name: ours\nlicense_details: >\n  two\n  lines"
    edited = plain.replace("# license: say which, such as cc-by-4.0", said).replace("# House", "# Casa")
    below = "Ask us.\n\n## Citation\n\n@misc{house}"
    card.write_bytes(
        edited.replace("Not said yet. Say it here and in the header.", below).replace("\n", "\r\n").encode()
    )
    write(tmp_path / "d", judged[:4], offered, force=True)
    text = card.read_text()
    assert text.startswith(f"---\n{said}\npretty_name: ")
    assert text.endswith(f"## License\n\n{below}\n")
    assert "# House" in text
    assert "4 judgments of 1 items" in text
    write(tmp_path / "d", judged[:4], offered, force=True)
    assert card.read_text() == text
    card.write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"README.md: cannot be read for its license"):
        write(tmp_path / "d", judged, offered, force=True)


def test_a_crash_leaves_nothing_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = household(2)
    judged = rankings(offered)
    write(tmp_path / "d", judged, offered)
    before = contents(tmp_path / "d")

    def crash(*_: Any, **__: Any) -> str:
        raise RuntimeError("out of paper")

    monkeypatch.setattr(dataset_module, "card", crash)
    for name in ("d", "e"):
        with pytest.raises(RuntimeError, match="out of paper"):
            write(tmp_path / name, judged, offered, force=True)
    assert contents(tmp_path / "d") == before
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
