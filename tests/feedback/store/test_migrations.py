"""Old stores brought to the newest form: every row is still there, also when the first try was killed half way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, insert, inspect, select, text

from tuneful.errors import StoreError
from tuneful.feedback.assignment import claim
from tuneful.feedback.projects import add_rater, judgments
from tuneful.feedback.store import MIGRATIONS, Store
from tuneful.feedback.tables import metadata

Rows = Mapping[str, Mapping[str, Any]]

FIRST: Final[Rows] = {
    "project": {"id": "p", "name": "helpful", "kind": "ranking", "criteria": ["helpful"], "created_at": 1.0},
    "rater": {"id": "r", "kind": "human", "name": "Ann", "email": None, "groups": ["nurse"], "created_at": 1.0},
    "membership": {"project": "p", "rater": "r", "role": "labeler", "created_at": 1.0},
    "instructions": {"id": "v1", "project": "p", "version": 1, "text": "Be kind.", "hash": "h", "created_at": 1.0},
    "prompt": {"id": "q", "project": "p", "content": "Why?", "created_at": 1.0},
    "item": {
        "id": "i",
        "project": "p",
        "prompt": "q",
        "completions": ["a", "b"],
        "overlap": 2,
        "submitted": 1,
        "priority": 3,
        "position": 0,
        "gold": None,
        "created_at": 1.0,
    },
    "completion": {
        "id": "a",
        "project": "p",
        "prompt": "q",
        "text": "So.",
        "model": "m",
        "settings": {},
        "created_at": 1.0,
    },
    "assignment": {
        "id": "s",
        "item": "i",
        "rater": "r",
        "state": "submitted",
        "lease_until": 9.0,
        "shown_order": ["b", "a"],
        "instructions": "v1",
        "created_at": 1.0,
    },
    "draft": {"assignment": "s", "content": {"ranks": [2]}, "saved_at": 2.0},
    "judgment": {
        "id": "j",
        "project": "p",
        "item": "i",
        "rater": "r",
        "assignment": "s",
        "ranks": [2, 1],
        "flags": {"a": ["unsafe"]},
        "values": {"sure": 0.5},
        "criterion": "helpful",
        "shown_order": ["b", "a"],
        "instructions": "v1",
        "note": "hm",
        "seconds": 7.5,
        "late": False,
        "counted": True,
        "replaces": None,
        "created_at": 2.0,
    },
}
"""A row of every table of revision 0001, with every column."""

SECOND: Final[Rows] = {
    **FIRST,
    "project": {**FIRST["project"], "quiz": 2, "pass_share": 0.8, "gold_every": 15},
    "membership": {**FIRST["membership"], "passed_at": 1.5},
    "assignment": {**FIRST["assignment"], "reason": "too long"},
    "judgment": {**FIRST["judgment"], "text": "I would say so.", "quiz": False},
    "account": {
        "rater": "r",
        "login": "ann",
        "password": "hash",
        "admin": True,
        "failures": 1,
        "wait_until": 3.0,
        "created_at": 1.0,
    },
    "session": {"id": "secret", "rater": "r", "seen_at": 2.0, "created_at": 1.0},
    "invitation": {
        "id": "link",
        "project": "p",
        "role": "lead",
        "until": 5.0,
        "used_at": 2.0,
        "used_by": "r",
        "created_at": 1.0,
    },
    "token": {
        "id": "key",
        "rater": "r",
        "name": "script",
        "scopes": ["label"],
        "until": 5.0,
        "used_at": 2.0,
        "created_at": 1.0,
    },
}
"""The same of revision 0002."""

THIRD: Final[Rows] = {
    **SECOND,
    "project": {**SECOND["project"], "most_overlap": 6, "sure": 0.8},
    "job": {
        "id": "w",
        "project": "p",
        "rater": "r",
        "kind": "completions",
        "request": {"models": ["m"]},
        "state": "running",
        "done": 1,
        "total": 2,
        "message": "",
        "attempts": 2,
        "lease_until": 9.0,
        "finished_at": None,
        "created_at": 1.0,
    },
    "decision": {
        "id": "d",
        "project": "p",
        "item": "i",
        "rater": "r",
        "ranks": [1, 2],
        "values": {},
        "why": "clear",
        "replaces": None,
        "created_at": 3.0,
    },
    "snapshot": {
        "id": "n",
        "project": "p",
        "kind": "quality",
        "method": "quality/1",
        "inputs": "h",
        "judgments": 1,
        "result": {"alpha": 0.5},
        "created_at": 3.0,
    },
    "dataset_version": {
        "id": "e",
        "project": "p",
        "version": 1,
        "manifest": {"name": "helpful"},
        "hash": "h",
        "created_at": 3.0,
    },
    "event": {
        "number": 1,
        "project": "p",
        "rater": "r",
        "what": "project made",
        "about": {},
        "previous": "",
        "hash": "h",
        "created_at": 1.0,
    },
}
"""The same of revision 0003."""

OLD: Final[Mapping[str, Rows]] = {"0001": FIRST, "0002": SECOND, "0003": THIRD}

STOPS_HALF_WAY: Final = """
import sys, time
from alembic import op
from tuneful.feedback.store import Store

make = op.create_table

def create_table(name, *columns, **options):
    if name == "decision":
        print("half way", flush=True)
        time.sleep(600)
    return make(name, *columns, **options)

op.create_table = create_table
Store.open(sys.argv[1])
"""
"""Makes some tables of 0003, and has more of it to do."""


@contextmanager
def bare(url: str) -> Iterator[Connection]:
    """A transaction in the database as it is, without a store that would bring it to the newest form."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def make_old(url: str, revision: str) -> None:
    """A store as an older version left it."""
    with bare(url) as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for table, row in OLD[revision].items():
            connection.execute(insert(metadata.tables[table]).values(**row))


def rows(connection: Connection, of: Rows) -> dict[str, list[dict[str, Any]]]:
    """All rows of these tables, in the columns that the old ones had."""
    found = {}
    for name, row in of.items():
        columns = [metadata.tables[name].c[column] for column in row]
        found[name] = [dict(one) for one in connection.execute(select(*columns)).mappings()]
    return found


def revision(connection: Connection) -> str:
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


@pytest.mark.parametrize("old", OLD)
def test_an_old_store_keeps_every_row(url: str, old: str) -> None:
    make_old(url, old)
    store = Store.open(url)
    with store.read() as connection:
        assert revision(connection) == "0008"
        assert rows(connection, OLD[old]) == {name: [row] for name, row in OLD[old].items()}
    (kept,) = judgments(store, "p")
    assert (kept.ranks, kept.flags, kept.seconds) == ((2, 1), {"a": ("unsafe",)}, 7.5)
    given = claim(store, "p", add_rater(store, "p", now=10.0), now=10.0)
    assert (given and given.item) == ("i" if old == "0001" else None)  # that of 0002 has a quiz and no gold items
    store.close()


@pytest.mark.parametrize("old", ["0001", "0002"])
def test_a_migration_that_is_killed_half_way_is_done_by_the_next_start(url: str, old: str) -> None:
    make_old(url, old)
    with subprocess.Popen([sys.executable, "-c", STOPS_HALF_WAY, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
        process.send_signal(signal.SIGKILL)
    with bare(url) as connection:
        assert revision(connection) == old
        assert "dataset_version" not in inspect(connection).get_table_names()
        assert rows(connection, OLD[old]) == {name: [row] for name, row in OLD[old].items()}
    Store.open(url).close()
    with bare(url) as connection:
        assert revision(connection) == "0008"
        assert set(metadata.tables) <= set(inspect(connection).get_table_names())
        assert rows(connection, OLD[old]) == {name: [row] for name, row in OLD[old].items()}


def test_places_that_models_had_are_people_s_again(url: str) -> None:
    make_old(url, "0001")
    by_model = {
        "rater": {"id": "m", "kind": "ai", "name": "qwen"},
        "assignment": {"id": "t", "rater": "m"},
        "judgment": {"id": "k", "rater": "m", "assignment": "t"},
    }
    with bare(url) as connection:
        for table, row in by_model.items():
            connection.execute(insert(metadata.tables[table]).values(**{**FIRST[table], **row}))
        connection.execute(text("UPDATE item SET submitted = 2"))
    store = Store.open(url)
    with store.read() as connection:
        assert [*connection.execute(text("SELECT submitted FROM item"))] == [(1,)]
        states = connection.execute(text("SELECT id, state FROM assignment ORDER BY id"))
        assert [*states] == [("s", "submitted"), ("t", "surplus")]
        judged = connection.execute(text("SELECT id, counted FROM judgment ORDER BY id"))
        assert [*judged] == [("j", True), ("k", False)]
    given = claim(store, "p", add_rater(store, "p", now=10.0), now=10.0)
    assert given is not None
    assert given.item == "i"
    assert {one.id for one in judgments(store, "p")} == {"j", "k"}
    store.close()


def test_programs_that_start_at_once_on_an_old_store_all_come_up(url: str) -> None:
    """As pages and worker do after an update."""
    make_old(url, "0001")
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(Store.open, [url] * 4))
    for store in stores:
        assert [one.id for one in judgments(store, "p")] == ["j"]
        store.close()


def test_a_store_that_is_newer_than_the_program_is_refused_and_left_alone(url: str) -> None:
    Store.open(url).close()
    with bare(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreError, match=r'revision "9999".*update tuneful'):
        Store.open(url)
    with bare(url) as connection:
        assert revision(connection) == "9999"
