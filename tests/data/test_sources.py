"""Names are found in the data folders, in order, and what is not found says where it was sought."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tuneful.data.formats import read_comparisons
from tuneful.data.sources import cache_folder, resolve
from tuneful.errors import DataError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current directory with `../shared/data`, no named data folder, an empty cache, no `datasets`."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("TUNEFUL_DATA", raising=False)
    monkeypatch.setenv("TUNEFUL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "datasets", None)


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return path


def test_a_path_that_exists_wins(tmp_path: Path) -> None:
    put(tmp_path / "shared/data/talk/train.jsonl")
    put(tmp_path / "work/talk/train.jsonl")
    assert resolve("talk/train.jsonl") == Path("talk/train.jsonl")


def test_the_named_folder_wins_over_the_shared_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = put(tmp_path / "shared/data/talk/train.jsonl.gz")
    assert resolve("talk/train").resolve() == shared
    named = put(tmp_path / "mine/talk/train.jsonl")
    monkeypatch.setenv("TUNEFUL_DATA", str(tmp_path / "mine"))
    assert resolve("talk/train") == named
    assert resolve("talk/train.jsonl") == named


def test_a_name_without_file_works_for_a_single_one(tmp_path: Path) -> None:
    questions = put(tmp_path / "shared/data/mt-bench/question.jsonl.gz")
    put(tmp_path / "shared/data/mt-bench/LICENSE")
    assert resolve("mt-bench").resolve() == questions
    put(tmp_path / "shared/data/mt-bench/more.jsonl")
    with pytest.raises(DataError, match=r'"mt-bench" has several files .*: "mt-bench/more", "mt-bench/question"'):
        resolve("mt-bench")


def test_not_found_lists_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFUL_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError) as error:
        resolve("hh-harmless/train")
    assert str(error.value) == (
        f'data "hh-harmless/train" not found; looked at hh-harmless/train, {tmp_path}/mine/hh-harmless/train, '
        "../shared/data/hh-harmless/train, the hub as Anthropic/hh-rlhf (needs `pip install datasets`); "
        "give a path or set TUNEFUL_DATA"
    )


def test_the_hub_comes_last_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, config: str | None, *, data_dir: str | None, split: str) -> list[dict[str, str]]:
        asked.append((name, config, data_dir, split))
        if split == "none":
            raise ValueError('Unknown split "none"')
        if config == "broken":
            raise BrokenError("cannot be\nunpacked")
        return [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]

    class BrokenError(Exception):
        """What `datasets` raises of its own."""

    hub: Any = types.ModuleType("datasets")
    hub.load_dataset, hub.exceptions = load_dataset, types.SimpleNamespace(DatasetsError=BrokenError)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    assert len(read_comparisons(resolve("hh-harmless/test"))) == 1
    resolve("hh-harmless/test")
    resolve("someone/pairs")
    with pytest.raises(DataError, match=r'split "none" .Unknown split "none"'):
        resolve("someone/pairs/none")
    resolve("someone/pairs/main/test")
    with pytest.raises(DataError, match=r'someone/pairs, config "broken", split "test" .cannot be unpacked.; give'):
        resolve("someone/pairs/broken/test")
    assert asked == [
        ("Anthropic/hh-rlhf", None, "harmless-base", "test"),
        ("someone/pairs", None, None, "train"),
        ("someone/pairs", None, None, "none"),
        ("someone/pairs", "main", None, "test"),
        ("someone/pairs", "broken", None, "test"),
    ]
    kept = [path.name for path in (cache_folder() / "data").iterdir()]
    assert sorted(kept) == [
        "hh-harmless--test.jsonl",
        "someone--pairs--main--test.jsonl",
        "someone--pairs--train.jsonl",
    ]


REAL = """
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet

from tuneful.data.sources import resolve

Path("someone/pairs").mkdir(parents=True)
columns = {"prompt": ["a"], "at": [datetime(2024, 1, 2)], "price": [Decimal("1.5")], "raw": [b"x"], "none": [None]}
pyarrow.parquet.write_table(pyarrow.table(columns), "someone/pairs/test.parquet")
sys.stdout.write("\\n" + resolve("someone/pairs/default/test").read_text())
"""


def test_real_datasets_are_fetched_whatever_their_columns_hold(tmp_path: Path) -> None:
    """`datasets` takes a folder for a data set of that name; here it stands for the hub."""
    pytest.importorskip("pyarrow")
    if not [*importlib.metadata.distributions(name="datasets")]:
        pytest.skip("datasets is not installed")
    elsewhere = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", REAL]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **elsewhere})
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == {"prompt": "a", "at": "2024-01-02T00:00:00", "price": 1.5}


def test_parquet_is_found_by_name(tmp_path: Path) -> None:
    put(tmp_path / "shared/data/talk/train.parquet")
    assert resolve("talk/train").name == "train.parquet"


@pytest.mark.parametrize(
    "name", ["data/prompts.jsonl", "data/prompts.jsonl.gz", "data/a.json", "data/a.csv", "data/a.parquet", "a/b/c.json"]
)
def test_a_file_that_is_missing_is_never_sought_on_the_hub(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise AssertionError("asked the hub")

    hub = types.ModuleType("datasets")
    monkeypatch.setattr(hub, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    with pytest.raises(DataError, match=r"not found; looked at [^;]*; give a path") as error:
        resolve(name)
    assert "hub" not in str(error.value)


def test_the_cache_is_in_the_home_unless_another_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNEFUL_CACHE", "~/elsewhere")
    assert cache_folder() == tmp_path / "home" / "elsewhere"
    monkeypatch.setenv("TUNEFUL_CACHE", "")
    assert cache_folder() == tmp_path / "home" / ".cache" / "tuneful"
    monkeypatch.delenv("TUNEFUL_CACHE")
    assert cache_folder() == tmp_path / "home" / ".cache" / "tuneful"


def test_the_real_data(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFUL_DATA", str(data_dir))
    assert resolve("hh-harmless/train") == data_dir / "hh-harmless" / "train.jsonl.gz"
