"""What `tuneful doctor --in` says of data of every shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneful.pipeline.doctor.data import look_at_data

TALK = [{"role": "user", "content": "Hot?"}, {"role": "assistant", "content": "Yes."}]
REPLIES = [
    {"text": text, "role": "assistant", "review_result": True, "rank": rank, "replies": []}
    for rank, text in enumerate(("Yes.", "No."))
]
TREE = {
    "message_tree_id": "t",
    "prompt": {"text": "Hot?", "role": "prompter", "review_result": True, "replies": REPLIES},
}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "name", "counts"),
    [
        ({"messages": TALK}, "conversations", {"demonstrations": 1}),
        ({"prompt": "Hot?", "completion": "Yes.", "label": True}, "unpaired", {"unpaired": 1, "demonstrations": 1}),
        ({"chosen": TALK, "rejected": [TALK[0], {**TALK[1], "content": "No."}]}, "implicit", {"comparisons": 1}),
        (TREE, "trees", {"comparisons": 1, "candidates": 1, "demonstrations": 1}),
        ({"dialogue": "Hot?", "summary": "Heat."}, "dialogues", {"demonstrations": 1}),
        ({"turns": ["Hot?"]}, "questions", {}),
    ],
)
def test_the_format_and_what_it_gives_are_named(tmp_path: Path, row: Any, name: str, counts: dict[str, int]) -> None:
    found = {finding.name: finding for finding in look_at_data(written(tmp_path, row))}
    assert found["format"].value == name
    assert (found["rows"].value, found["prompts"].value) == (1, 1)
    assert all(found[kind].value == count for kind, count in counts.items())
    assert all(finding.status != "fail" for finding in found.values())


def test_rows_that_stand_twice_are_counted(tmp_path: Path) -> None:
    first, again = {"prompt": "Hot?", "source": 1}, {"source": 1, "prompt": "Hot?"}
    rows = written(tmp_path, first, again, {"prompt": "Hot?", "source": 2}, {"prompt": "Cold?"})
    found = {finding.name: finding for finding in look_at_data(rows)}
    assert (found["rows that repeat another"].value, found["rows that repeat another"].status) == (1, "note")
    assert (found["rows"].value, found["prompts"].value, found["rows of a prompt seen before"].value) == (4, 2, 2)
