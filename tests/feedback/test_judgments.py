from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneful.errors import DataError
from tuneful.feedback.judgments import read_judgments, write_judgments
from tuneful.records import Judgment

ROW: dict[str, Any] = {
    "id": "6f1c",
    "item": "i",
    "prompt": "p",
    "completions": ["a", "b", "c"],
    "rater": "ann",
    "ranks": [2, 1, None],
}
FULL = Judgment(
    id="2",
    item="i",
    prompt="p",
    completions=("a", "b"),
    rater="judge",
    rater_kind="ai",
    kind="comparison",
    ranks=(1, 1),
    flags={"b": ("unsafe", "truncated")},
    values={"strength": 0.5},
    criterion="honest",
    shown_order=("b", "a"),
    instructions="3",
    seconds=12.5,
    created_at="2026-01-01T00:00:00Z",
    replaces="1",
    note="both are long",
)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["judgments.jsonl", "judgments.jsonl.gz"])
def test_written_judgments_are_read_back_unchanged(tmp_path: Path, name: str) -> None:
    plain = Judgment(id="1", item="i", prompt="p", completions=("ä", "b"), rater="ann", ranks=(None, 1))
    path = tmp_path / name
    assert write_judgments(path, [plain, FULL]) == 2
    assert read_judgments(path) == [plain, FULL]


def test_a_short_row_takes_the_defaults(tmp_path: Path) -> None:
    assert read_judgments(write(tmp_path / "j.jsonl", ROW)) == [
        Judgment(id="6f1c", item="i", prompt="p", completions=("a", "b", "c"), rater="ann", ranks=(2, 1, None))
    ]


def test_a_rating_needs_no_ranks(tmp_path: Path) -> None:
    row = ROW | {"kind": "rating", "ranks": [], "values": {"a": 3, "b": 1, "c": 2}}
    assert read_judgments(write(tmp_path / "j.jsonl", row))[0].values == {"a": 3, "b": 1, "c": 2}


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "j.jsonl", ROW)
    with pytest.raises(DataError, match="exists already"):
        write_judgments(path, [FULL])
    write_judgments(path, [FULL], force=True)
    assert read_judgments(path) == [FULL]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": [1, 2, 3]}, r'field "rank": unknown; .*did you mean "ranks"'),
        ({"ranks": [1, 2]}, r'field "ranks": 2 for 3 completions'),
        ({"ranks": [0, 1, 2]}, r'field "ranks": 0 is no rank'),
        ({"ranks": [1.0, 2, 3]}, r'field "ranks": 1.0 is no rank'),
        ({"ranks": [True, 2, 3]}, r'field "ranks": True is no rank'),
        ({"ranks": "1 2 3"}, r'field "ranks": expected a list'),
        ({"completions": ["a", "a", "b"]}, r'field "completions": "a" comes twice'),
        ({"completions": []}, r'field "completions": empty'),
        ({"completions": ["a", 2, "b"]}, r'field "completions": expected a list of completion ids'),
        ({"kind": "comparison"}, r'field "completions": a comparison of 3'),
        ({"kind": "rankings"}, r'field "kind": .*did you mean "ranking"'),
        ({"rater_kind": "robot"}, r'field "rater_kind": \'robot\' is unknown'),
        ({"id": ""}, r"field \"id\": '' is no id"),
        ({"id": 7}, r'field "id": 7 is no id'),
        ({"rater": " ann"}, r"field \"rater\": ' ann' is no id"),
        ({"shown_order": ["a", "b"]}, r'field "shown_order": not the completions'),
        ({"flags": {"d": ["unsafe"]}}, r'field "flags": "d" was not judged'),
        ({"flags": {"a": "unsafe"}}, r"field \"flags\": 'unsafe' of 'a'"),
        ({"values": {"score": "high"}}, r"field \"values\": 'high' of 'score'"),
        ({"seconds": -1}, r'field "seconds": -1'),
        ({"seconds": 10**400}, r'field "seconds": 1000'),
        ({"criterion": 3}, r'field "criterion": expected text'),
        ({"replaces": "6f1c"}, r'field "replaces": names the judgment itself'),
    ],
)
def test_a_wrong_row_names_file_line_and_field(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "j.jsonl", ROW | {"id": "good"}, ROW | change)
    with pytest.raises(DataError, match=rf"j\.jsonl:2: {message}"):
        read_judgments(path)


@pytest.mark.parametrize("field", ["id", "item", "prompt", "completions", "rater"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(DataError, match=rf'j\.jsonl:1: field "{field}": missing'):
        read_judgments(write(tmp_path / "j.jsonl", {k: v for k, v in ROW.items() if k != field}))


def test_an_id_that_comes_twice_names_both_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'j\.jsonl:2: field "id": "6f1c" stands on line 1 already'):
        read_judgments(write(tmp_path / "j.jsonl", ROW, ROW))
