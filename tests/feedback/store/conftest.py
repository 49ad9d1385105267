"""A store in a new SQLite file, and one in a new database of a PostgreSQL server on loopback, where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import postgresql
import pytest

from tuneful.feedback.store import Store


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL, but for the database, of a PostgreSQL server that this session started."""
    if postgresql.programs() is None:
        pytest.skip(postgresql.MISSING)
    pytest.importorskip("psycopg")
    with postgresql.serve() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that nobody has used."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'judgments.db'}"
    return postgresql.create_database(request.getfixturevalue("server"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store.open(url)
    yield opened
    opened.close()
