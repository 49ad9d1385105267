"""A copy of a store: the same judgments, taken while others judge, and put back into an empty store of either kind."""

from __future__ import annotations

import uuid
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import insert, select

from tuneful.errors import MissingError, StoreError
from tuneful.feedback.assignment import claim
from tuneful.feedback.backup import back_up, restore
from tuneful.feedback.dataset_files import file_of
from tuneful.feedback.items import add_items
from tuneful.feedback.projects import add_rater, create_project, judgments, progress, publish_instructions
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.feedback.tables import dataset_part, dataset_version
from tuneful.feedback.versions import versions
from tuneful.records import Candidates, Completion, Prompt


def judged(store: Store, items: int) -> tuple[str, str]:
    """A project of so many items, and a rater who has judged the first and revised it twice, at one moment."""
    project = create_project(store, "helpful", now=0.0)
    publish_instructions(store, project, "Be kind.", now=0.0)
    answers = (Completion("yes", id="a"), Completion("no", id="b"))
    add_items(store, project, [Candidates(Prompt(f"question {n}"), answers) for n in range(items)], overlap=1, now=0.0)
    ann = add_rater(store, project, name="Ann", now=0.0)
    given = claim(store, project, ann, now=0.0)
    assert given is not None
    for ranks in ((1, 2), (2, 1), (1, 1)):
        submit(store, given.id, ann, said(ranks), now=1.0)
    return project, ann


def said(ranks: tuple[int, int] = (1, 2)) -> Said:
    return Said(id=str(uuid.uuid4()), ranks=ranks, flags={}, values={})


def test_a_backup_holds_what_the_store_held_and_goes_back(store: Store, tmp_path: Path) -> None:
    project, _ = judged(store, items=3)
    counts = back_up(store, tmp_path / "copy.db")
    assert (counts["judgment"], counts["item"], counts["completion"]) == (3, 3, 6)
    other = Store.open(tmp_path / "other.db")
    assert restore(tmp_path / "copy.db", other, now=5.0) == counts
    assert judgments(other, project) == judgments(store, project)
    assert progress(other, project) == progress(store, project)
    other.close()


def test_packed_datasets_are_left_out_and_can_be_written_anew(store: Store, tmp_path: Path) -> None:
    project, _ = judged(store, items=1)
    row = {"id": "d", "project": project, "version": 1, "manifest": {}, "hash": "h", "created_at": 1.0}
    store.write(lambda connection: connection.execute(insert(dataset_version).values(**row, size=3)))
    part = {"version": "d", "number": 0, "content": b"zip"}
    store.write(lambda connection: connection.execute(insert(dataset_part).values(**part)))
    assert back_up(store, tmp_path / "copy.db")["dataset_version"] == 1
    copied = Store.open(tmp_path / "copy.db")
    assert [(one.version, one.hash, one.size) for one in versions(copied, project)] == [(1, "h", None)]
    with copied.read() as connection:
        assert connection.execute(select(dataset_part.c.number)).all() == []
    with pytest.raises(MissingError, match="write a dataset again"):
        file_of(copied, project, 1)
    copied.close()


def test_nothing_is_overwritten(store: Store, tmp_path: Path) -> None:
    judged(store, items=1)
    back_up(store, tmp_path / "copy.db")
    with pytest.raises(StoreError, match="exists"):
        back_up(store, tmp_path / "copy.db")
    with pytest.raises(StoreError, match="already"):
        restore(tmp_path / "copy.db", store, now=5.0)
    with pytest.raises(StoreError, match="no such file"):
        restore(tmp_path / "none.db", store, now=5.0)


def test_a_backup_of_a_moment_is_whole_while_people_go_on(store: Store, tmp_path: Path) -> None:
    """Each item counts as many judgments as the copy holds for it, whenever it was taken."""
    project, ann = judged(store, items=200)
    stop, done = Event(), []

    def go_on() -> None:
        while not stop.is_set() and (given := claim(store, project, ann, now=2.0)) is not None:
            done.append(submit(store, given.id, ann, said(), now=3.0))

    worker = Thread(target=go_on)
    worker.start()
    try:
        for number in range(5):
            back_up(store, tmp_path / f"{number}.db")
    finally:
        stop.set()
        worker.join()
    counts = []
    for number in range(5):
        copy = Store.open(tmp_path / f"{number}.db")
        counts.append(len(judgments(copy, project)))
        assert progress(copy, project).have == counts[-1]
        copy.close()
    assert counts == sorted(counts)
    assert 1 <= counts[0] < counts[-1] <= 1 + len(done)  # it went on meanwhile
