"""Files of JSON lines: what is read back, every fault of a file or a line, and that nothing is half written."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuneful.data.files import read_rows
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import DataError

ROWS: list[dict[str, Any]] = [{"text": "Yés.\u2028", "p": 0.1}, {"deep": [{"n": None}]}]


def fields(path: Path) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in read_rows(path)]


@pytest.mark.parametrize("name", ["out.jsonl", "new/out.jsonl.gz"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    assert write_jsonl(tmp_path / name, ROWS) == 2
    assert fields(tmp_path / name) == ROWS


def test_rows_know_their_line_and_blank_lines_count(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('\n{"a": 1}\n  \n{"a": 2}')
    assert [(row.line, row.value("a")) for row in read_rows(tmp_path / "rows.jsonl")] == [(2, 1), (4, 2)]


def test_byte_order_mark_and_odd_line_separators(tmp_path: Path) -> None:
    # U+2028 ends a line for str.splitlines, not in JSONL.
    (tmp_path / "rows.jsonl").write_bytes('\ufeff{"a": "one\u2028line"}\r\n{"a": "two"}'.encode())
    assert fields(tmp_path / "rows.jsonl") == [{"a": "one\u2028line"}, {"a": "two"}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": "b", ', r"rows.jsonl:2: not valid JSON: .* at column \d+; write one JSON object per line"),
        ('["a"]', "rows.jsonl:2: expected an object, got a list; "),
        ("0.5", "rows.jsonl:2: expected an object, got 0.5; "),
        (
            '{"prompt": "a", "x": 1, "prompt": "b"}',
            'rows.jsonl:2: field "prompt": stands twice in one object; keep one',
        ),
        ('{"a": [{"id": 1, "id": 1}]}', 'rows.jsonl:2: field "id": stands twice in one object; '),
        (f'{{"n": {"1" * 5000}}}', "rows.jsonl:2: an integer of more than 4300 digits; write it as text"),
        ("[" * 100_000, "rows.jsonl:2: not valid JSON: nested too deeply; "),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "rows.jsonl").write_text(f'{{"a": 1}}\n{line}\n')
    with pytest.raises(DataError, match=message) as error:
        fields(tmp_path / "rows.jsonl")
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: no such file"):
        fields(tmp_path / "none.jsonl")
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no rows"):
        fields(tmp_path / "blank.jsonl")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        fields(tmp_path)
    packed = gzip.compress(b'{"a": "b"}\n' * 1000)
    for name, content in {"cut.jsonl.gz": packed[:-12], "plain.jsonl.gz": b'{"a": "b"}\n'}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: damaged gzip file"):
            fields(tmp_path / name)
    (tmp_path / "latin.jsonl").write_bytes(b'{"a": "b"}\n{"a": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"latin.jsonl:2: not UTF-8: byte 11 of the line"):
        fields(tmp_path / "latin.jsonl")


def test_nothing_is_overwritten_and_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_jsonl(path, [{"a": "old"}])
    with pytest.raises(DataError, match=r"out.jsonl: exists already; .*--force"):
        write_jsonl(path, [{"a": "new"}])
    with pytest.raises(DataError, match="row 2 cannot be written as JSON"):
        write_jsonl(path, [{"a": "new"}, {"a": float("nan")}], force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
    assert fields(path) == [{"a": "old"}]


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in {"pipe": "a device or pipe", "folder": "a directory"}.items():
        with pytest.raises(DataError, match=f"{name}: is {kind}, which is not replaced by a file; choose another"):
            write_jsonl(tmp_path / name, ROWS, force=True)
    assert (tmp_path / "pipe").is_fifo()


def test_a_symlink_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link.jsonl", tmp_path / "there" / "rows.jsonl"
    link.symlink_to(target)
    write_jsonl(link, ROWS[:1])
    write_jsonl(link, ROWS, force=True)
    assert link.is_symlink()
    assert fields(target) == ROWS
    assert [p.name for p in target.parent.iterdir()] == ["rows.jsonl"]


def test_packed_files_of_equal_rows_are_equal(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_jsonl(tmp_path / name, ROWS)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_jsonl(path, [{"a": "old"}])
    child = """
import resource, sys
from pathlib import Path
from tuneful.data.jsonl import write_jsonl
from tuneful.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_jsonl(Path(sys.argv[1]), ({"a": "x" * 100} for _ in range(1000)), force=True)
except DataError as error:
    sys.exit(str(error))
"""
    run = subprocess.run([sys.executable, "-c", child, str(path)], capture_output=True, text=True, check=False)
    assert run.stderr == f"{path}: cannot be written: File too large; free space or choose another place\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
    assert fields(path) == [{"a": "old"}]
