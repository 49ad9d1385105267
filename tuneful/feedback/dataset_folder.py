"""The folder of a dataset: what a former export wrote in it is replaced, and what is somebody's own stays.

Its manifest names what a former export wrote. The new dataset is written beside; the earlier folder is put aside, the
new one takes its name, and what was not the dataset's moves over. A process that is killed in between leaves the
earlier folder aside, and the next export brings it back or moves over the rest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuneful.errors import DataError
from tuneful.feedback.dataset_manifest import CARD, MANIFEST
from tuneful.runs.directory import written_folder


@contextmanager
def dataset_folder(folder: Path) -> Iterator[Path]:
    """A new directory to write a dataset into; at the end of the block it becomes `folder`, in place of an earlier
    dataset (see `require_place`). Whatever else lies in `folder` stays there.

    Raises DataError for a file of somebody's own that has the name of a new one, RunError when the disk refuses. Then,
    and when the block fails, `folder` is what it was.
    """
    place = Path(os.path.realpath(folder))
    before = _aside(place)
    try:
        with written_folder(place) as part:
            yield part
            if place.exists() and any(place.iterdir()):
                for name in sorted(_strangers(place)):
                    if (part / name).exists():
                        raise DataError(f"{folder / name}: the new dataset has a file of that name; move yours")
                place.rename(before)
    finally:
        _bring_back(place)


def require_place(folder: Path, *, force: bool) -> None:
    """DataError for a path that no dataset can be written to: what is no folder, a folder with other things than a
    dataset, and one with a dataset but without `force`."""
    if not folder.name:
        raise DataError(f"{folder}: is no name for a new folder; give it one")
    _bring_back(Path(os.path.realpath(folder)))
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is no directory; choose another name")
    found = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if not found:
        return
    if MANIFEST not in found:
        raise DataError(f'{folder}: holds "{found[0]}" and no dataset, so nothing is replaced; choose another name')
    written_in(folder)
    if not force:
        raise DataError(f"{folder}: exists already; choose another name or use --force to replace it")


def written_in(folder: Path) -> frozenset[str]:
    """Names of the files that the dataset in a folder is made of, with card and manifest. Raises DataError where the
    manifest is that of something else."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        names = frozenset(str(file["name"]) for file in manifest["files"] if file["sha256"])
        is_ours = "format" in manifest and "settings" in manifest
    except (ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        raise DataError(
            f"{folder / MANIFEST}: is not the manifest of a dataset, so nothing is replaced; choose another name"
        )
    return names | {CARD, MANIFEST}


def _strangers(folder: Path) -> set[str]:
    ours = written_in(folder)
    return {entry.name for entry in folder.iterdir() if entry.name not in ours or not entry.is_file()}


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.before")


def _bring_back(place: Path) -> None:
    """End what a dataset that takes the place of another one began: the earlier folder takes its name again where there
    is no new one; else what is not the dataset's moves over, and the rest goes."""
    before = _aside(place)
    if not before.is_dir():
        return
    if not place.exists():
        before.rename(place)
        return
    if any(before.iterdir()):
        for name in sorted(_strangers(before)):
            if (place / name).exists():
                raise DataError(f"{before / name}: of an export that was stopped; move it, and then {before} away")
            (before / name).rename(place / name)
        for name in sorted(written_in(before), key=lambda name: name == MANIFEST):  # the manifest last
            (before / name).unlink(missing_ok=True)
    before.rmdir()
