"""Datasets of a store: each is kept under a number with its manifest, which names the trail's head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.feedback.store.people import judge, project_of
from tuneful.errors import DataError
from tuneful.feedback import trail
from tuneful.feedback import versions as versions_module
from tuneful.feedback.dataset_manifest import verify_dataset
from tuneful.feedback.decisions import decide
from tuneful.feedback.projects import publish_instructions
from tuneful.feedback.settling import read_decisions
from tuneful.feedback.store import Store
from tuneful.feedback.versions import export_dataset, versions


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_dataset_is_kept_with_its_manifest_and_names_the_trail(store: Store, tmp_path: Path) -> None:
    project, _ = project_of(store)
    ann = judge(store, project, ranks=(1, 2, 3))
    number, head = trail.head(store)
    version, manifest = export_dataset(store, project, tmp_path / "one", by=ann, now=7.0)
    assert version == 1
    kept = json.loads((tmp_path / "one" / "manifest.json").read_text())
    (row,) = versions(store, project)
    assert (row.version, row.at, row.hash, row.manifest) == (1, 7.0, kept["sha256"], kept)
    assert kept["trail"] == {"events": number, "head": head} == manifest.trail
    assert verify_dataset(tmp_path / "one") == []
    (written,) = trail.events(store, project, last=1)
    assert (written.what, written.about, written.rater) == (
        "dataset written",
        {"version": 1, "hash": kept["sha256"]},
        ann,
    )


def test_what_has_not_changed_is_the_same_version_byte_by_byte(store: Store, tmp_path: Path) -> None:
    """Also after another one was written, and after the trail went on about other things."""
    project, (item, _) = project_of(store)
    ann = judge(store, project, ranks=(1, 2, 3))
    judge(store, project, ranks=(2, 1, 3))
    assert export_dataset(store, project, tmp_path / "one", now=7.0)[0] == 1
    project_of(store)
    assert export_dataset(store, project, tmp_path / "again", now=8.0)[0] == 1
    assert contents(tmp_path / "again") == contents(tmp_path / "one")
    assert len(versions(store, project)) == 1
    decide(store, item, by=ann, ranks=(2, 1, 3), why="No.", now=9.0)
    assert export_dataset(store, project, tmp_path / "two", now=9.0)[0] == 2
    assert export_dataset(store, project, tmp_path / "two again", now=9.0)[0] == 2
    assert contents(tmp_path / "two again") == contents(tmp_path / "two") != contents(tmp_path / "one")


def test_projects_count_for_themselves(store: Store, tmp_path: Path) -> None:
    for name in ("one", "two"):
        project, _ = project_of(store)
        judge(store, project, ranks=(1, 2, 3))
        assert export_dataset(store, project, tmp_path / name, now=7.0)[0] == 1


def test_what_could_not_be_written_is_no_version(store: Store, tmp_path: Path) -> None:
    project, _ = project_of(store)
    with pytest.raises(DataError, match="no judgments"):
        export_dataset(store, project, tmp_path / "one", now=7.0)
    assert versions(store, project) == []


@pytest.mark.parametrize("read", ["judgments", "candidates", "decisions", "groups_of", "guides", "trail.head"])
def test_what_others_do_while_it_is_read_is_not_in_it(
    store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """Before each thing that is read another process judges, decides and publishes: it is the dataset of before, byte
    for byte, with the trail's head of before."""
    project, (item, _) = project_of(store, overlap=9)
    ann = judge(store, project, ranks=(1, 2, 3))
    assert export_dataset(store, project, tmp_path / "quiet", now=7.0)[0] == 1
    other = Store.open(url)
    where = trail if read == "trail.head" else versions_module
    name = read.rpartition(".")[2]
    reading = getattr(where, name)

    def read_late(*given: Any, **more: Any) -> Any:
        judge(other, project, ranks=(3, 2, 1))
        decide(other, item, by=ann, ranks=(3, 2, 1), now=8.0)
        publish_instructions(other, project, "Be kind.", now=8.0)
        return reading(*given, **more)

    with monkeypatch.context() as patched:
        patched.setattr(where, name, read_late)
        assert export_dataset(store, project, tmp_path / "busy", now=9.0)[0] == 1
    assert contents(tmp_path / "busy") == contents(tmp_path / "quiet")
    number, head = trail.head(store)
    version, manifest = export_dataset(store, project, tmp_path / "after", now=10.0)
    assert (version, manifest.counts["judgments"], manifest.counts["decided"]) == (2, 4, 1)
    assert manifest.trail == {"events": number, "head": head}
    other.close()


def test_decisions_are_in_it(store: Store, tmp_path: Path) -> None:
    """Two labelers say the contrary of what the lead decides, and of both items it is decided for the first."""
    project, (first, _) = project_of(store, texts=("yes", "no"))
    ann = judge(store, project, ranks=(1, 2))
    judge(store, project, ranks=(1, 2))
    decide(store, first, by=ann, ranks=(2, 1), why="No.", now=5.0)
    _, manifest = export_dataset(store, project, tmp_path / "d", now=7.0)
    rows = [
        json.loads(line)
        for path in (tmp_path / "d").glob("preferences-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    told = {row["prompt"]: (row["chosen"], row["p"] == 1, row["decided"], row["agreement"]) for row in rows}
    assert told == {"question 0": ("no", True, True, 0.0), "question 1": ("yes", False, False, 1.0)}
    assert manifest.counts["decided"] == 1
    assert "settled 1 item" in (tmp_path / "d" / "README.md").read_text()
    (made,) = read_decisions(tmp_path / "d" / "decisions.jsonl")
    assert (made.item, made.ranks, made.why, made.rater) == (first, (2, 1), "No.", ann)
