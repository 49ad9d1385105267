"""The database itself: what makes an answer safe, and tables that are those the migrations make."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, insert, select

from tuneful.errors import StoreError
from tuneful.feedback.projects import create_project
from tuneful.feedback.store import Store
from tuneful.feedback.tables import metadata, project


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "below" / "judgments.db"


def test_sqlite_answers_for_what_it_committed(path: Path) -> None:
    store = Store.open(path)
    with store.read() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
        found |= {"foreign_keys": connection.exec_driver_sql("PRAGMA foreign_keys").scalar()}
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}  # 2 is FULL


def test_migrations_make_the_tables_of_the_code(store: Store) -> None:
    """But for one index on SQLite, which does not tell in what order its columns are: the next test looks at it."""
    told = {"include_object": lambda _, name, *__: name != "ix_item_open" or store.dialect == "postgresql"}
    with store.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=told), metadata) == []


def test_the_next_open_item_is_the_first_of_an_index(path: Path) -> None:
    Store.open(path).close()
    query = "SELECT id FROM item WHERE project = 'p' AND submitted < overlap ORDER BY priority DESC, position LIMIT 1"
    with sqlite3.connect(path) as other:
        (plan,) = other.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
    assert "ix_item_open" in plan[-1]


def test_opened_again_it_holds_what_it_held(path: Path) -> None:
    store = Store.open(path)
    made = create_project(store, "helpful", now=1.5)
    store.close()
    with Store.open(f"sqlite:///{path}").read() as connection:
        assert connection.execute(select(project.c.id, project.c.created_at)).one() == (made, 1.5)


def test_a_snapshot_is_of_one_moment_and_the_store_goes_on(store: Store) -> None:
    def names(of: Store) -> list[str]:
        with of.read() as connection:
            return list(connection.execute(select(project.c.name).order_by(project.c.created_at)).scalars())

    create_project(store, "one", now=1.0)
    with store.snapshot() as then:
        assert names(then) == ["one"]
        create_project(store, "two", now=2.0)
        create_project(then, "three", now=3.0)
        assert names(then) == ["one"]
        assert names(store) == ["one", "two", "three"]
    assert names(store) == ["one", "two", "three"]


def test_a_transaction_that_fails_changes_nothing(path: Path) -> None:
    store = Store.open(path)

    def work(connection: Connection) -> None:
        connection.execute(insert(project).values(id="a", name="a", kind="ranking", criteria=[], created_at=0.0))
        raise KeyError("half way")

    with pytest.raises(KeyError):
        store.write(work)
    with store.read() as connection:
        assert connection.execute(select(project)).first() is None


def test_a_migration_that_stops_half_way_changes_nothing(path: Path) -> None:
    """A table of another hand stands where the last of ours would: the ones before it are not made either."""
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE draft (x)")
    with pytest.raises(StoreError, match="draft"):
        Store.open(path)
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("draft",)]


def test_a_newer_store_is_refused(path: Path) -> None:
    Store.open(path).close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=r"9999.*update tuneful"):
        Store.open(path)


def test_a_file_that_is_no_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("these are not the judgments you are looking for" * 50)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(path)


def test_another_kind_of_database(path: Path) -> None:
    with pytest.raises(StoreError, match="postgresql://"):
        Store.open("mysql://localhost/judgments")


def test_busy_is_said_and_nothing_changed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneful.feedback.store.LOCK_SECONDS", 0.01)
    monkeypatch.setattr("tuneful.feedback.store.ATTEMPTS", 2)
    store = Store.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="busy"):
        create_project(store, "helpful", now=0.0)
    other.execute("ROLLBACK")
    create_project(store, "helpful", now=0.0)
