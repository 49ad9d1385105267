"""Logs are valid JSON lines whatever happens while they are written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tuneful.errors import RunError
from tuneful.runs.logs import JsonLog, newest_rows, read_log


def test_rows_are_in_the_file_when_write_returns(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "text": "é\n"})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "text": "é\\n"}\n'
    assert log.size() == len('{"step": 1, "text": "é\\n"}\n'.encode())
    assert list(log.rows()) == [{"step": 1, "text": "é\n"}]


def test_numbers_that_are_none_become_null(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "metrics.jsonl")
    log.write({"loss": float("nan"), "parts": [float("inf"), {"kl": float("-inf")}, 1.5]})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"loss": null, "parts": [null, {"kl": null}, 1.5]}\n'


def test_what_has_no_json_form_is_refused(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "metrics.jsonl")
    with pytest.raises(RunError, match=r"metrics.jsonl: cannot be written as JSON: Object of type set"):
        log.write({"loss": {1, 2}})
    assert log.size() == 0


def test_cut_back_and_go_on(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1})
    size = log.size()
    log.write({"step": 2})
    log.cut_back(size)
    log.write({"step": 3})
    assert list(log.rows()) == [{"step": 1}, {"step": 3}]
    with pytest.raises(RunError, match=r"metrics.jsonl: 24 bytes, but the checkpoint was made at 99"):
        log.cut_back(99)


def test_a_line_that_a_kill_left_unfinished_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    assert list(read_log(tmp_path / "metrics.jsonl")) == [{"step": 1}]


def test_a_log_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics.jsonl: cannot be read: No such file"):
        list(read_log(tmp_path / "metrics.jsonl"))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step"\n')
    with pytest.raises(RunError, match=r"metrics.jsonl:2: not valid JSON"):
        list(read_log(tmp_path / "metrics.jsonl"))


def test_a_full_device(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"metrics.jsonl: cannot be written: No space left on device; free space"):
        JsonLog(tmp_path / "metrics.jsonl").write({"step": 1})


def test_a_row_that_only_half_fits_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    child = """
import resource, sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from tuneful.errors import RunError
from tuneful.runs.logs import JsonLog
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
log = JsonLog(Path(sys.argv[1]))
try:
    for step in range(1000):
        log.write({"step": step, "text": "x" * 75})
except RunError as error:
    sys.exit(str(error))
"""
    run = subprocess.run([sys.executable, "-c", child, str(path)], capture_output=True, text=True, check=False)
    assert run.stderr.startswith(f"{path}: cannot be written: File too large; ")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(10))  # 99 bytes each: the eleventh would end at 1089
    assert path.stat().st_size == 990


class Told:
    """A follower that writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def begin(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.heard.append([dict(row) for row in rows])

    def write(self, row: Mapping[str, Any]) -> None:
        self.heard.append(dict(row))


def test_a_follower_is_told_each_row_and_what_is_left_after_a_cut(tmp_path: Path) -> None:
    log, told = JsonLog(tmp_path / "metrics.jsonl"), Told()
    log.write({"step": 1})
    size = log.size()
    log.follow(told)
    log.write({"step": 2})
    with pytest.raises(RunError):
        log.write({"step": {3}})
    log.cut_back(size)
    log.write({"step": 4})
    assert told.heard == [{"step": 2}, [{"step": 1}], {"step": 4}]


def test_the_newest_rows_are_the_last_of_all(tmp_path: Path) -> None:
    """Rows from one byte to several blocks of 64 KiB; a kill has left the last line unfinished."""
    path = tmp_path / "samples.jsonl"
    texts = ["a" * length for length in (1, 70_000, 3, 65_530, 200_000, 5, 0)]
    path.write_text("".join(json.dumps(text) + "\n" for text in texts) + '"unfin')
    for count in range(1, 9):
        assert newest_rows(path, count) == texts[-count:]
    path.write_text("")
    assert newest_rows(path, 3) == []
    path.write_text('{"step": 1}\n{"step"\n')
    with pytest.raises(RunError, match=r"samples.jsonl: not valid JSON"):
        newest_rows(path, 1)
