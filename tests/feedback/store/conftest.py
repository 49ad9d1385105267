"""A store in a new SQLite file, and one in a new database of a PostgreSQL server on loopback, where it is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tuneful.feedback.store import Store

USER = "postgres"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL, but for the database, of a PostgreSQL server that this session started."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("needs PostgreSQL's server (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg")
    user = USER if os.geteuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="tuneful-pg-"))
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    command = [str(programs[-1] / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "--no-sync"]
    subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
    options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    with subprocess.Popen(
        [str(programs[-1] / "postgres"), "-D", str(data), *options], user=user, cwd=folder, stderr=subprocess.DEVNULL
    ) as process:
        url = f"postgresql://{USER}@127.0.0.1:{port}"
        _wait(url)
        yield url
        process.terminate()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that nobody has used."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'judgments.db'}"
    server = request.getfixturevalue("server")
    name = f"judgments_{uuid.uuid4().hex}"
    _run(f"{server}/{USER}", f"CREATE DATABASE {name}")
    return f"{server}/{name}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = Store.open(url)
    yield opened
    opened.close()


def _run(url: str, statement: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _wait(url: str) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            return _run(f"{url}/{USER}", "SELECT 1")
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
