"""Parquet files against pyarrow itself: what it wrote is read, what we write it reads, every fault is one line."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneful.data.completions import candidates_row, with_ids
from tuneful.data.files import read_rows, refuse_unwritable, write_rows
from tuneful.data.formats import detect, read_candidates, read_comparisons, read_demonstrations
from tuneful.data.jsonl import read_jsonl, write_jsonl
from tuneful.data.preferences import comparison_row
from tuneful.errors import DataError
from tuneful.records import Candidates, Comparison, Completion, Prompt

arrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def made(folder: Path, rows: list[dict[str, Any]], name: str = "rows.parquet") -> Path:
    """A file that pyarrow wrote."""
    names = dict.fromkeys(name for row in rows for name in row)
    parquet.write_table(arrow.table({name: [row.get(name) for row in rows] for name in names}), folder / name)
    return folder / name


def fields(path: Path) -> list[dict[str, Any]]:
    return [dict(row.fields) for row in read_rows(path)]


def test_nested_columns_are_read_and_null_is_not_there(tmp_path: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": "Hi."}], "p": 0.5, "n": 1},
        {"prompt": [{"role": "system", "content": "", "name": "s"}, {"role": "user", "content": "Ho."}], "p": None},
    ]
    assert fields(made(tmp_path, rows)) == [rows[0], {"prompt": rows[1]["prompt"]}]


def test_rows_are_numbered_through_all_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.table({"n": list(range(3000))}), path, row_group_size=700)
    assert [(row.line, row.fields["n"]) for row in read_rows(path)] == [(n + 1, n) for n in range(3000)]


def test_faults_name_the_row(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b", "rejected": None}]
    with pytest.raises(DataError, match=r'rows.parquet:2: field "rejected": missing; ') as error:
        read_comparisons(made(tmp_path, rows))
    assert "\n" not in str(error.value)


def test_optional_columns_that_are_null_are_absent(tmp_path: Path) -> None:
    whole = {"prompt": "a", "chosen": "b", "rejected": "c", "p": 0.75, "weight": 0.5, "group": "g", "margin": 2.0}
    bare = {"prompt": "a", "chosen": "b", "rejected": "d"}
    assert read_comparisons(made(tmp_path, [whole, bare])) == [
        Comparison(Prompt("a"), "b", "c", p=0.75, weight=0.5, group="g", margin=2.0),
        Comparison(Prompt("a"), "b", "d"),
    ]


def test_a_label_that_is_null_at_first_makes_no_demonstration_of_a_bad_answer(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "an insult", "label": False}]
    with pytest.raises(DataError, match=r'rows.parquet:2: field "label": is of unpaired preferences'):
        read_demonstrations(made(tmp_path, rows))


def test_columns_that_json_does_not_know_are_plain(tmp_path: Path) -> None:
    row = {"at": datetime(2024, 1, 2, 3, 4, tzinfo=UTC), "price": Decimal("1.5"), "raw": b"\xff", "nan": float("nan")}
    path = made(tmp_path, [{"prompt": "a", "completion": "b", **row}])
    assert fields(path) == [{"prompt": "a", "completion": "b", "at": "2024-01-02T03:04:00+00:00", "price": 1.5}]
    write_rows(tmp_path / "out.jsonl", fields(path))


@pytest.mark.parametrize("prompt", [Prompt("Hi."), Prompt.user("Hi.")], ids=["text", "messages"])
def test_what_is_written_is_read_again(tmp_path: Path, prompt: Prompt) -> None:
    comparisons = [Comparison(prompt, "b", "c"), Comparison(prompt, "b", "", p=0.6, weight=0.5, group="g", margin=1.5)]
    assert write_rows(tmp_path / "pairs.parquet", map(comparison_row, comparisons)) == 2
    assert read_comparisons(tmp_path / "pairs.parquet") == comparisons
    offered = (Completion("Yés.\u2028", (1, 2), "eos", "m"), Completion("", (2,), "eos"), Completion("No."))
    candidates = with_ids([Candidates(prompt, offered)])
    write_rows(tmp_path / "new" / "answers.parquet", map(candidates_row, candidates))
    assert detect(tmp_path / "new" / "answers.parquet") == "completions"
    assert read_candidates(tmp_path / "new" / "answers.parquet") == candidates


messages = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=5)}), min_size=1)
rows = st.fixed_dictionaries(
    {"prompt": messages, "text": st.text(st.characters(codec="utf-8"), max_size=9)},
    optional={"p": st.floats(0, 1), "n": st.integers(-(2**63), 2**63 - 1), "tokens": st.lists(st.integers(0, 9))},
)


@given(st.lists(rows, min_size=1, max_size=5))
def test_rows_say_the_same_in_both_kinds_of_file(tmp_path_factory: pytest.TempPathFactory, some: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("both")
    write_rows(folder / "rows.parquet", some)
    write_jsonl(folder / "rows.jsonl", some)
    assert fields(folder / "rows.parquet") == [dict(row.fields) for row in read_jsonl(folder / "rows.jsonl")] == some
    assert parquet.read_table(folder / "rows.parquet").num_rows == len(some)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "rows.parquet: damaged Parquet file: Parquet file size is 0 bytes; fetch it again"),
        (b'{"prompt": "a"}\n', "rows.parquet: damaged Parquet file: Parquet magic bytes not found"),
    ],
)
def test_what_is_no_parquet(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        fields(tmp_path / "rows.parquet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_file_that_was_cut_or_scratched_is_damaged(tmp_path: Path, share: float) -> None:
    path = made(tmp_path, [{"prompt": f"question {i}", "completion": "x" * 50} for i in range(2000)])
    whole = path.read_bytes()
    cut = int(len(whole) * share)
    path.write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"rows.parquet: damaged Parquet file: "):
        fields(path)
    path.write_bytes(whole[: cut - 64] + b"\xff" * 64 + whole[cut:])
    with pytest.raises(DataError, match=r"rows.parquet: damaged Parquet file: ") as error:
        fields(path)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.parquet: no such file; check the name"):
        fields(tmp_path / "none.parquet")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        fields(tmp_path / "folder.parquet")
    with pytest.raises(DataError, match="holds no rows"):
        fields(made(tmp_path, []))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"text": float("nan")}, "out.parquet: row 2 cannot be written as JSON: "),
        ({"text": {1, 2}}, "out.parquet: row 2 cannot be written as JSON: "),
        ({"text": "\ud800"}, "out.parquet: row 2 cannot be written as JSON: "),
        ({"text": ["a"]}, 'out.parquet: field "text": a column of Parquet has one type: .*; give the field one type'),
        ({"n": 2**70}, 'out.parquet: field "n": a column of Parquet has one type: '),
        ({"flags": {}}, "out.parquet: cannot be written as Parquet: Cannot write struct type 'flags'"),
    ],
)
def test_a_row_that_cannot_be_written_leaves_the_old_file(tmp_path: Path, bad: Any, message: str) -> None:
    path = tmp_path / "out.parquet"
    write_rows(path, [{"text": "old"}])
    with pytest.raises(DataError, match=message) as error:
        write_rows(path, [{"text": "new"}, bad], force=True)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["out.parquet"]
    assert fields(path) == [{"text": "old"}]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write_rows(path, [{"a": "old"}])
    for refused in (lambda: write_rows(path, [{"a": "new"}]), lambda: refuse_unwritable(path, force=False)):
        with pytest.raises(DataError, match=r"out.parquet: exists already; .*--force"):
            refused()
    refuse_unwritable(path, force=True)


def test_json_lines_do_not_go_into_a_file_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"out.parquet: is to hold JSON lines; give it a name that ends in .jsonl"):
        write_jsonl(tmp_path / "out.parquet", [{"a": 1}])


def test_without_pyarrow_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path, [{"prompt": "a"}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    needs = r"rows.parquet: Parquet needs pyarrow; pip install 'tuneful\[parquet\]' or use .jsonl$"
    for refused in (
        lambda: fields(path),
        lambda: write_rows(path, [{"a": 1}], force=True),
        lambda: refuse_unwritable(path, force=True),
    ):
        with pytest.raises(DataError, match=needs):
            refused()


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write_rows(path, [{"a": "old"}])
    child = """
import resource, sys
from pathlib import Path
from tuneful.data.files import write_rows
from tuneful.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_rows(Path(sys.argv[1]), ({"a": str(hash(str(n)))} for n in range(10_000)), force=True)
except DataError as error:
    sys.exit(str(error))
"""
    run = subprocess.run([sys.executable, "-c", child, str(path)], capture_output=True, text=True, check=False)
    assert run.stderr == f"{path}: cannot be written: File too large; free space or choose another place\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out.parquet"]
    assert fields(path) == [{"a": "old"}]
