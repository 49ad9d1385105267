"""The labeling page of a server whose disk is full: what was said stays in the browser until it is stored."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import Server, add_questions, labelers

from tuneful.feedback.projects import create_project, judgments
from tuneful.feedback.store import Store
from tuneful.web.security import SESSION_COOKIE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "judgments.db")
    yield opened
    opened.close()


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Iterator[Server]:
    started = Server(f"sqlite:///{tmp_path / 'judgments.db'}", tmp_path)
    started.start()
    yield started
    started.kill()


def test_the_outbox_keeps_what_a_full_disk_cannot(page: Any, server: Server, store: Store) -> None:
    project = create_project(store, "helpful", now=time.time())
    add_questions(store, project, 3, overlap=1)
    (labeler,) = labelers(store, project, 1)
    url = f"http://127.0.0.1:{server.port}"
    page.context.add_cookies([{"name": SESSION_COOKIE, "value": labeler.secret, "url": url}])
    page.goto(f"{url}/p/{project}")
    page.locator("#cards > *").first.wait_for()
    page.wait_for_load_state("networkidle")
    _, most = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, most))
    for key in ("a", "b", "Enter"):
        page.keyboard.press(key)
    page.get_by_text("1 waiting").wait_for()
    page.locator("#notices").get_by_text("the disk of the database is full").wait_for()
    page.reload()
    page.get_by_text("1 waiting").wait_for()
    assert judgments(store, project) == []
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (most, most))
    page.locator("#outbox").wait_for(state="hidden")
    (said,) = judgments(store, project)
    assert sorted(said.ranks, key=str) == [1, 2]
