"""Files that appear whole or not at all, and what is never replaced by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tuneful.errors import DataError


@contextmanager
def written_whole(path: Path, *, force: bool) -> Iterator[IO[bytes]]:
    """A file to write into, which stands at `path` once the block has ended without an error.

    It is written beside, synced and renamed, where a symlink points to when `path` is one. Raises DataError as
    `refuse_existing` does, and when the disk refuses.
    """
    refuse_existing(path, force=force)
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written: {error.strerror or error}; free space or choose another place"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def refuse_existing(path: Path, *, force: bool) -> None:
    """DataError for a path that may not be written: what exists without `force`, and what is no file even with it."""
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "a device or pipe"
        raise DataError(f"{path}: is {kind}, which is not replaced by a file; choose another name")
    if path.exists() and not force:
        raise DataError(f"{path}: exists already; choose another name or use --force to replace it")
