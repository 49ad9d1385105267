"""A PostgreSQL server of our own on loopback, for a bench or for a session of tests, gone when they are over."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

USER = "postgres"

MISSING = "needs PostgreSQL's server (Debian: apt-get install postgresql) and psycopg"


def programs() -> Path | None:
    """The folder of the newest server that is installed here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name.split(".")[0]))
    return found[-1] if found else None


@contextmanager
def serve(below: Path | None = None) -> Iterator[str]:
    """The URL, but for the database, of a new server with its own settings of durability (fsync is on).

    below: the folder in which its data lie, which everybody has to be able to enter; that for temporary files else.
    Raises SystemExit where no server is installed.
    """
    folder_of_programs = programs()
    if folder_of_programs is None:
        raise SystemExit(MISSING)
    user = USER if os.geteuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="tuneful-pg-", dir=below))
    if user is not None:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    command = [str(folder_of_programs / "initdb"), "-D", str(data), "-U", USER, "-A", "trust", "--no-sync"]
    subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
    options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    with subprocess.Popen(
        [str(folder_of_programs / "postgres"), "-D", str(data), *options],
        user=user,
        cwd=folder,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            url = f"postgresql://{USER}@127.0.0.1:{port}"
            _wait(url)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # it ends what is connected; SIGTERM would wait for it
    shutil.rmtree(folder)


def create_database(server: str, *, template: str | None = None) -> str:
    """The URL of a new database of the server: an empty one, or a copy of the one at the URL `template`."""
    name = f"judgments_{uuid.uuid4().hex}"
    copied = "" if template is None else f" TEMPLATE {template.rpartition('/')[2]}"
    run(f"{server}/{USER}", f"CREATE DATABASE {name}{copied}")
    return f"{server}/{name}"


def drop_database(url: str) -> None:
    """Remove a database, whoever is still connected to it."""
    server, _, name = url.rpartition("/")
    run(f"{server}/{USER}", f"DROP DATABASE {name} WITH (FORCE)")


def run(url: str, statement: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def _wait(url: str) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            return run(f"{url}/{USER}", "SELECT 1")
        except OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
