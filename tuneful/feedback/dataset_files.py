"""Datasets as files: a folder packed into one, and the newest one of a project kept in the store.

In the store, since the worker that writes it and the server that hands it out may be on two machines. It is kept in
parts of a megabyte, each in a transaction of its own, so that no submit waits for the whole.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import delete, insert, select, update

from tuneful.errors import MissingError
from tuneful.feedback.jobs import Job, report
from tuneful.feedback.store import Store
from tuneful.feedback.tables import dataset_part, dataset_version
from tuneful.feedback.versions import export_dataset

ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""When every file of a packed dataset was made, so that the same files are the same bytes."""

FEW_TO_WRITE: Final = 500
"""Judgments of which a dataset is written while somebody waits for it."""

PART: Final = 1 << 20
"""Bytes of a part."""


def pack(folder: Path, path: Path) -> None:
    """The files of a folder, packed into one; the same files give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            about = zipfile.ZipInfo(file.name, ZIP_TIME)
            about.compress_type = zipfile.ZIP_DEFLATED
            with file.open("rb") as whole, archive.open(about, "w") as packed:
                while part := whole.read(PART):
                    packed.write(part)


def packed_dataset(store: Store, project_id: str, *, by: str | None, now: float) -> tuple[int, bytes]:
    """A dataset of a project as it is now: its version, and the packed folder."""
    with tempfile.TemporaryDirectory() as place:
        version, path = _write(store, project_id, Path(place), by, now)
        return version, path.read_bytes()


def write_file(store: Store, held: Job, *, clock: Callable[[], float]) -> str:
    """What a job for a dataset asks for: it is written and packed, and kept in place of the project's earlier file.

    Raises GoneError, and keeps nothing, when the job was stopped or another worker has it.
    """
    with tempfile.TemporaryDirectory() as place:
        version, path = _write(store, held.project, Path(place), held.rater, clock())
        id_, size = _version(store, held.project, version)
        if size is None:
            _keep(store, held, id_, path, clock)
        return f"dataset {version}, {path.stat().st_size / 1e6:.1f} MB"


def file_of(store: Store, project_id: str, version: int) -> tuple[int, Iterator[bytes]]:
    """Bytes in all, and the bytes, of the packed dataset. Raises MissingError where they are not kept."""
    id_, size = _version(store, project_id, version)
    if size is None:
        raise MissingError(f"dataset {version}: its file is not kept any more; write a dataset again")
    return size, _parts(store, id_, size)


def _write(store: Store, project_id: str, place: Path, by: str | None, now: float) -> tuple[int, Path]:
    version, _ = export_dataset(store, project_id, place / "dataset", by=by, now=now)
    path = place / "dataset.zip"
    pack(place / "dataset", path)
    return version, path


def _version(store: Store, project_id: str, version: int) -> tuple[str, int | None]:
    asked = select(dataset_version.c.id, dataset_version.c.size)
    named = (dataset_version.c.project == project_id, dataset_version.c.version == version)
    with store.read() as connection:
        row = connection.execute(asked.where(*named)).first()
    if row is None:
        raise MissingError(f"dataset {version}: this project has none of that number")
    return row.id, row.size


def _keep(store: Store, held: Job, id_: str, path: Path, clock: Callable[[], float]) -> None:
    size = path.stat().st_size
    total = -(-size // PART)
    unfinished = delete(dataset_part).where(dataset_part.c.version == id_)
    report(store, held, 0, total, now=clock(), also=[unfinished])
    with path.open("rb") as whole:
        for number in range(total):
            put = insert(dataset_part).values(version=id_, number=number, content=whole.read(PART))
            report(store, held, number + 1, total, now=clock(), also=[put])
    of_project = dataset_version.c.project == held.project
    others = select(dataset_version.c.id).where(of_project, dataset_version.c.id != id_)
    replaces = (
        delete(dataset_part).where(dataset_part.c.version.in_(others)),
        update(dataset_version).where(of_project).values(size=None),
        update(dataset_version).where(dataset_version.c.id == id_).values(size=size),
    )
    report(store, held, total, total, now=clock(), also=replaces)


def _parts(store: Store, id_: str, size: int) -> Iterator[bytes]:
    """One query for each, so that a slow reader holds no snapshot of the database."""
    for number in range(-(-size // PART)):
        asked = select(dataset_part.c.content).where(dataset_part.c.version == id_, dataset_part.c.number == number)
        with store.read() as connection:
            content = connection.execute(asked).scalar()
        if content is None:
            raise MissingError("the dataset was replaced by a newer one while it was read; ask for that one")
        yield content
