"""The web server as a process of its own, on a disk that is full and on a database that somebody else holds."""

from __future__ import annotations

import random
import resource
import sqlite3
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from clients import Server, add_questions, judge, labelers

from tuneful.feedback.access import make_token
from tuneful.feedback.projects import create_project, judgments, progress
from tuneful.feedback.store import Store
from tuneful.web.security import SESSION_COOKIE

FEW_PAGES: Final = """
import runpy, sys
from sqlalchemy import Engine, event

pages = int(sys.argv.pop(1))
event.listen(Engine, "connect", lambda connection, _: connection.execute(f"PRAGMA max_page_count = {pages}"))
runpy.run_module("tuneful", run_name="__main__", alter_sys=True)
"""
"""The server on a database that may not have more than so many pages: what SQLite says then is what it says of a disk
without room."""

IMPATIENT: Final = """
import runpy
from tuneful.feedback import store

store.LOCK_SECONDS, store.PATIENCE = 0.2, 1.0
runpy.run_module("tuneful", run_name="__main__", alter_sys=True)
"""
"""The server that gives up after a second where it waits for ten."""

LONG: Final = "It is a long story. " * 9_000
"""A note of 180,000 characters, for which the last pages have no room."""


class Scene:
    """A store with a project of three items, one labeler of it, and the server that is not started yet."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "judgments.db"
        store = Store.open(self.path)
        self.project = create_project(store, "helpful", now=time.time())
        add_questions(store, self.project, 3, overlap=1)
        (self.labeler,) = labelers(store, self.project, 1)
        self.token = make_token(store, self.labeler.rater, "script", ["label"], days=1, now=time.time())
        store.close()
        self.server = Server(f"sqlite:///{self.path}", folder)

    @contextmanager
    def program(self) -> Iterator[httpx2.Client]:
        """A program that labels over HTTP."""
        headers = {"authorization": f"Bearer {self.token}"}
        with httpx2.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=60) as client:
            yield client

    @contextmanager
    def another_program(self) -> Iterator[sqlite3.Connection]:
        """Somebody else's connection to the file, on which nothing begins or ends by itself."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            yield connection

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    def page(self) -> httpx2.Response:
        """The labeling page as the labeler's browser asks for it."""
        cookies = {"cookie": f"{SESSION_COOKIE}={self.labeler.secret}", "accept": "text/html"}
        return httpx2.get(f"{self.url}/p/{self.project}", headers=cookies, timeout=60)

    def held(self, client: httpx2.Client) -> tuple[str, dict[str, Any]]:
        """Where a judgment of the item in hand is sent, and the judgment."""
        given = client.post(f"/p/{self.project}/claim", json={}).raise_for_status().json()["assignment"]
        return f"/a/{given['id']}/submit", judge(given, random.Random(0), id_=str(uuid.uuid4()))

    def stored(self) -> list[str]:
        """Ids of the judgments in the file, and a check that the file is whole and counts them right."""
        store = Store.open(self.path)
        ids = [one.id for one in judgments(store, self.project)]
        with store.read() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert progress(store, self.project).have == len(ids)
        store.close()
        return ids


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.server.kill()


def refused_for_now(answer: httpx2.Response, *, why: str) -> None:
    assert answer.status_code == 503
    assert why in answer.json()["error"]
    assert "nothing was changed" in answer.json()["error"]
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("restarted", [False, True], ids=["room is made", "restarted"])
def test_a_judgment_that_found_the_disk_full_is_stored_once_when_there_is_room(scene: Scene, restarted: bool) -> None:
    """The server's limit on the size of files, which for SQLite is an error of the disk."""
    scene.server.start()
    with scene.program() as client:
        path, first = scene.held(client)
        assert client.post(path, json=first).status_code == 200
        path, second = scene.held(client)
        _, hard = resource.prlimit(scene.server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(scene.server.pid, resource.RLIMIT_FSIZE, (0, hard))
        for _ in range(2):
            refused_for_now(client.post(path, json=second), why="the disk of the database is full")
        besides = {"besides": [path.split("/")[2]]}
        refused_for_now(client.post(f"/p/{scene.project}/claim", json=besides), why="the disk of the database is full")
        assert scene.page().status_code == 200
        if restarted:
            scene.server.kill()
            scene.server.start()
        else:
            resource.prlimit(scene.server.pid, resource.RLIMIT_FSIZE, (hard, hard))
    with scene.program() as client:
        told = [client.post(path, json=second).raise_for_status().json() for _ in range(2)]
        assert [one["again"] for one in told] == [False, True]
    scene.server.kill()
    assert scene.stored() == [first["id"], second["id"]]


def test_what_fits_is_still_stored_when_the_database_may_not_grow(scene: Scene) -> None:
    with closing(sqlite3.connect(scene.path)) as other:
        (pages,) = other.execute("PRAGMA page_count").fetchone()
    scene.server.program = ("-c", FEW_PAGES, str(pages + 20))
    scene.server.start()
    with scene.program() as client:
        path, said = scene.held(client)
        refused_for_now(client.post(path, json=said | {"note": LONG}), why="database or disk is full")
        short = said | {"id": str(uuid.uuid4()), "note": "short"}
        assert client.post(path, json=short).status_code == 200
    scene.server.kill()
    scene.server.program = ("-m", "tuneful")
    scene.server.start()
    with scene.program() as client:
        assert client.post(path, json=said | {"note": LONG}).raise_for_status().json()["again"] is False
    scene.server.kill()
    assert scene.stored() == [said["id"]]  # a revision of the short one
    with closing(sqlite3.connect(scene.path)) as other:
        assert sorted(other.execute("SELECT length(note) FROM judgment").fetchall()) == [(5,), (len(LONG),)]


def test_a_request_waits_while_another_program_writes(scene: Scene) -> None:
    scene.server.start()
    with scene.program() as client, scene.another_program() as other, ThreadPoolExecutor(1) as thread:
        path, said = scene.held(client)
        other.execute("BEGIN IMMEDIATE")
        answer = thread.submit(client.post, path, json=said)
        assert scene.page().status_code == 200
        assert not answer.done()
        other.execute("ROLLBACK")
        assert answer.result().status_code == 200
    scene.server.kill()
    assert scene.stored() == [said["id"]]


def test_a_database_that_stays_locked_is_told_and_pages_still_answer(scene: Scene) -> None:
    """With more requests than the server has threads, 40, that all wait for the lock."""
    scene.server.program = ("-c", IMPATIENT)
    scene.server.start()
    with scene.program() as client, scene.another_program() as other, ThreadPoolExecutor(60) as threads:
        path, said = scene.held(client)
        other.execute("BEGIN IMMEDIATE")
        answers = [threads.submit(client.post, path, json=said) for _ in range(60)]
        assert scene.page().status_code == 200
        for answer in answers:
            refused_for_now(answer.result(), why="busy")
        other.execute("ROLLBACK")
        told = [answer.result().json() for answer in [threads.submit(client.post, path, json=said) for _ in range(8)]]
        assert sorted(one["again"] for one in told) == [False] + 7 * [True]
    scene.server.kill()
    assert scene.stored() == [said["id"]]


def test_a_server_does_not_start_on_a_store_that_is_newer(scene: Scene) -> None:
    with scene.another_program() as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RuntimeError, match=r'revision "9999".*update tuneful'):
        scene.server.start()
    assert "Traceback" not in scene.server.errors.read_text()
