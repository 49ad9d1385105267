"""Planted defects in data files, and that each is found, with its mend, where it is and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tuneful.data.jsonl import write_jsonl
from tuneful.data.splits import split_of
from tuneful.errors import DataError
from tuneful.pipeline.doctor.data import look_at_data, look_at_leakage
from tuneful.pipeline.doctor.finding import Finding
from tuneful.pipeline.doctor.offered import answers_of
from tuneful.records import Prompt

NOUNS = "bread door dog fan house knife light rain sink sleep tap tea".split()
PROMPTS = [f"{verb} the {noun}" for verb in ("fix", "find", "open", "draw") for noun in NOUNS]


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def pairs(chosen: str, rejected: str) -> list[dict[str, Any]]:
    return [{"prompt": chat(p), "chosen": said(chosen), "rejected": said(rejected)} for p in PROMPTS]


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(rows: Iterable[Mapping[str, Any]], name: str = "rows.jsonl") -> Path:
        write_jsonl(tmp_path / name, rows, force=True)
        return tmp_path / name

    return write


def findings(path: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in look_at_data(path)}


def noted(path: Path) -> set[str]:
    return {name for name, finding in findings(path).items() if finding.status != "ok"}


def balanced() -> list[dict[str, Any]]:
    half = len(PROMPTS) // 2
    return [*pairs("yes of course", "no")[:half], *pairs("no", "yes of course")[half:]]


def test_sound_data_are_found_sound(written: Any) -> None:
    found = findings(written(balanced()))
    assert {name for name, finding in found.items() if finding.status != "ok"} == set()
    assert found["rows"].value == found["prompts"].value == found["comparisons"].value == 48
    assert found["share of pairs whose longer side is chosen"].value == 0.5
    sizes = {name: sum(split_of(Prompt.user(p)) == name for p in PROMPTS) for name in ("reward", "rl", "dev", "test")}
    told = ", ".join(f"{name} {size}" for name, size in sizes.items())
    assert found["prompts in each split, by the usual shares"].value == told


def test_rows_that_stand_twice(written: Any) -> None:
    rows = balanced()
    path = written([*rows, rows[3], rows[3], {**rows[5], "p": 0.9}])
    assert noted(path) == {"rows that repeat another", "rows of a prompt seen before"}
    assert findings(path)["rows that repeat another"].value == 2
    assert findings(path)["rows of a prompt seen before"].value == 3


def test_sides_that_are_equal_or_empty(written: Any) -> None:
    rows = balanced()
    rows[4]["rejected"] = said("")
    path = written(rows)
    assert noted(path) == {"rows with an empty side"}
    assert "line 5" in findings(path)["rows with an empty side"].mend
    rows[8]["rejected"] = rows[8]["chosen"]
    rows[9]["rejected"] = rows[9]["chosen"]
    path = written(rows)
    found: list[Finding] = []
    with pytest.raises(DataError, match=r"rows.jsonl:9: .*equal"):  # as training would refuse it
        found.extend(look_at_data(path))
    seen = {finding.name: finding for finding in found}
    assert (seen["rows with two equal sides"].value, seen["rows with an empty side"].value) == (2, 1)
    assert "line 9" in seen["rows with two equal sides"].mend


def test_a_choice_that_follows_length(written: Any) -> None:
    """12 of 48 pairs choose the short answer."""
    name = "share of pairs whose longer side is chosen"
    path = written([*pairs("yes of course", "no")[:36], *pairs("no", "yes of course")[36:]])
    assert noted(path) == {name}
    assert findings(path)[name].value == 0.75
    assert "always the longer answer" in findings(path)[name].mend
    path = written([*pairs("yes of course", "no")[:12], *pairs("no", "yes of course")[12:]])
    assert "always the shorter answer" in findings(path)[name].mend
    few = written([*pairs("yes of course", "no")[:5], *pairs("no", "yes of course")[5:8]])
    assert findings(few)[name].status == "ok"  # 5 of 8 may be chance


def test_a_label_that_is_rare(written: Any) -> None:
    for bad in (3, 5):
        rows = [{"prompt": chat(p), "completion": said("yes"), "label": i >= bad} for i, p in enumerate(PROMPTS)]
        found = findings(written(rows))["share of answers that are good"]
        assert found.value == (48 - bad) / 48
        assert (found.status == "note") == (bad == 3)  # 3 of 48 are fewer than a tenth, 5 are not


def test_what_reading_leaves_out_is_told_by_reason(written: Any) -> None:
    talk = "\n\nHuman: hot?\n\nAssistant: "
    good = [
        {"chosen": f"\n\nHuman: {p}\n\nAssistant: yes", "rejected": f"\n\nHuman: {p}\n\nAssistant: no"} for p in PROMPTS
    ]
    bad = [{"chosen": talk + "a", "rejected": talk + "a"}] * 2 + [{"chosen": talk, "rejected": talk + "b"}]
    found = findings(written([*good, *bad]))["rows skipped"]
    assert (found.value, found.status) == (3, "note")
    assert "2 because chosen and rejected are equal; 1 because the chosen answer is empty" in found.mend
    assert found.mend.endswith("rows.jsonl:49")
    found = findings(written(bad))["rows skipped"]
    assert found.status == "fail"


def test_an_answer_called_good_and_bad_is_told_with_its_line(written: Any) -> None:
    rows = [
        {"prompt": chat(p), "completion": said("yes"), "label": label} for p in PROMPTS[:3] for label in (True, False)
    ]
    found = findings(written([*rows, rows[0] | {"prompt": chat("why?")}]))["rows skipped"]
    assert (found.value, found.status) == (4, "note")
    assert found.mend.startswith(
        "3 because the same answer is called good and bad; 1 because the answers to its prompt"
    )


def test_a_split_that_would_be_empty(written: Any) -> None:
    train = [p for p in PROMPTS if split_of(Prompt.user(p)) in ("reward", "rl")]
    name = "prompts in each split, by the usual shares"
    path = written({"prompt": chat(p)} for p in train)
    assert noted(path) == {name}
    assert findings(path)[name].mend.startswith("dev and test would be empty")


LONG = "the tap in the kitchen drips all night and I can not sleep any more so what"
"""16 words."""


def test_near_copies_across_splits(written: Any) -> None:
    """The same question under many first words: those in reward and rl say what those in dev and test say."""
    asked = [f"{noun} {LONG}" for noun in NOUNS] + [f"{LONG} {noun}" for noun in NOUNS]
    places = [split_of(Prompt.user(text)) for text in asked]
    assert {"dev", "test"} & set(places)
    trained = sum(place in ("reward", "rl") for place in places)
    name = "prompts to train on that say what one in dev or test says"
    path = written({"prompt": chat(p)} for p in [*asked, *PROMPTS])
    assert noted(path) == {name}
    assert findings(path)[name].value == trained


def test_leakage_between_two_files(written: Any) -> None:
    train = written(({"prompt": chat(p)} for p in [*PROMPTS, f"well {LONG}", "shut it!"]), "train.jsonl")
    test = written(({"prompt": chat(p)} for p in ["Fix the  TAP", f"{LONG} now", "shut it", "cook rice"]), "test.jsonl")
    found = {finding.name: finding for finding in look_at_leakage(train, test)}
    equal = found[f"prompts in {train} that are there, too"]
    near = found["prompts that differ in signs alone or share 13 words in a row with one"]
    assert (equal.value, equal.status) == (1, "fail")
    assert f'held_out = ["{test}"]' in equal.mend
    assert "“fix the tap”" in equal.mend
    assert (near.value, near.status) == (2, "note")
    apart = written(({"prompt": chat(p)} for p in ["cook rice", "wash the shirt"]), "apart.jsonl")
    assert {finding.status for finding in look_at_leakage(train, apart)} == {"ok"}


def test_leakage_in_real_data(data_dir: Path) -> None:
    """HH's own files: 18 first turns of train stand in test, and in 4 rows of train the two contexts differ."""
    train, test = (data_dir / "hh-harmless" / f"{name}.jsonl.gz" for name in ("train", "test"))
    found = {finding.name: finding for finding in look_at_leakage(train, test)}
    assert found[f"prompts in {train} that are there, too"].value == 18
    assert "4 because the contexts of chosen and rejected differ" in findings(train)["rows skipped"].mend


def test_answers_of_a_file(written: Any, tmp_path: Path) -> None:
    texts = lambda path: [completion.text for _, completion in answers_of(path)]  # noqa: E731
    assert texts(written(pairs("yes", "no")[:2])) == ["yes", "no", "yes", "no"]
    assert texts(written([{"prompt": "hot", "completion": "open it"}])) == ["open it"]
    assert texts(written([{"prompt": "hot", "completions": ["a", "b"]}])) == ["a", "b"]
    assert texts(written([{"prompt": "hot", "completion": "x", "label": False}])) == ["x"]
    assert texts(written([{"prompt": "hot"}])) == []
    assert texts(tmp_path / "nowhere.jsonl") == []
