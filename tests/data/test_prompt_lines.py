"""Text files with a prompt on each line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneful.data.formats import read_prompts
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import DataError
from tuneful.records import Prompt


def test_each_line_that_is_not_blank_is_a_prompt_once(tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("\ufeffhot house\n\n  cold tea \nhot house\n{not JSON\n", encoding="utf-8")
    assert read_prompts(tmp_path / "asked.txt") == [Prompt("hot house"), Prompt("cold tea"), Prompt("{not JSON")]


def test_json_lines_are_told_by_their_beginning(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "asked.txt", [{"prompt": "hot house"}])
    assert read_prompts(tmp_path / "asked.txt") == [Prompt("hot house")]


@pytest.mark.parametrize(
    ("content", "said"), [(b"\n \n", "holds no prompts"), (b"hot\n\xff\n", "asked.txt:2: not UTF-8: byte 1")]
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "asked.txt").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_prompts(tmp_path / "asked.txt")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_prompts(tmp_path / "asked.txt")
