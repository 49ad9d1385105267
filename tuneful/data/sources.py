"""Where data come from: a path, a data set's name in the data folders, or the Hugging Face hub.

A name is a folder and, after a slash, a file without its ending: "hh-harmless/train". Folders searched, in order:
`$TUNEFUL_DATA`, then `../shared/data` beside the current directory.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import NamedTuple

from tuneful.data.jsonl import write_jsonl
from tuneful.data.plain import plain
from tuneful.errors import DataError

_ENDINGS = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".parquet")
_OF_FILES = (".jsonl", ".json", ".csv", ".parquet", ".gz", ".py")
"""A name that ends so means a file; on the hub it would be a stranger's data set of that name."""

_HUB = {"hh-harmless": ("Anthropic/hh-rlhf", "harmless-base")}
"""Our names of data sets whose hub id differs, with the folder inside."""


class _HubPlace(NamedTuple):
    """What a name means on the hub."""

    id: str
    config: str | None
    split: str


def resolve(name_or_path: str) -> Path:
    """The file behind a path or a data set's name.

    From the hub ("owner/name", "owner/name/split" or "owner/name/config/split", split "train" by default) rows are
    fetched once and kept as JSONL in the cache folder; this needs the package `datasets`, and a name with a file's
    ending is not looked for there. Raises DataError that lists where it looked, or the files of a data set when the
    name fits several.
    """
    looked: list[str] = []
    found = _sought(name_or_path, looked)
    if found is not None:
        return found
    raise DataError(f'data "{name_or_path}" not found; looked at {", ".join(looked)}; give a path or set TUNEFUL_DATA')


def fetched(name_or_path: str) -> Path | None:
    """The file that `resolve` gives, fetched now if it must be; None where it would find none."""
    return _sought(name_or_path, [])


def local(name_or_path: str) -> Path | None:
    """The file behind a path or a data set's name on this machine; None when there is none."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    return next(filter(None, (_in_folder(folder, name_or_path) for folder in _data_folders())), None)


def hub_dataset(name: str, *, from_file: bool) -> str | None:
    """The hub id of the data set that a name means, None when it has none.

    from_file: the name was that of a file on this machine, which is on the hub only if it is one of our own names.
    """
    place = _hub_place(name)
    if place is None:
        return None
    if place.id in _HUB:
        return _HUB[place.id][0]
    return None if from_file else place.id


def cache_folder() -> Path:
    """Where what was fetched or trained once is kept: `$TUNEFUL_CACHE`, else `~/.cache/tuneful`."""
    return Path(os.environ.get("TUNEFUL_CACHE") or "~/.cache/tuneful").expanduser()


def _data_folders() -> list[Path]:
    named = os.environ.get("TUNEFUL_DATA")
    return [*([Path(named).expanduser()] if named else []), Path("../shared/data")]


def _in_folder(folder: Path, name: str) -> Path | None:
    for ending in ("", *_ENDINGS):
        file = folder / (name + ending)
        if file.is_file():
            return file
    files = {p.name.removesuffix(e): p for e in _ENDINGS for p in (folder / name).glob(f"*{e}")}
    if len(files) > 1:
        names = ", ".join(f'"{name}/{file}"' for file in sorted(files))
        raise DataError(f'data "{name}" has several files in {folder}; name one: {names}')
    return next(iter(files.values()), None)


def _sought(name_or_path: str, looked: list[str]) -> Path | None:
    """The file that a name or path means; where it was sought is added to `looked`."""
    found = local(name_or_path)
    if found is None:
        looked += [str(Path(name_or_path).expanduser()), *(str(folder / name_or_path) for folder in _data_folders())]
        found = _from_hub(name_or_path, looked)
    return found


def _from_hub(name: str, looked: list[str]) -> Path | None:
    place = _hub_place(name)
    if place is None:
        return None
    repository, subfolder = _HUB.get(place.id, (place.id, None))
    parts = [place.id.replace("/", "--"), *([place.config] if place.config else []), place.split]
    kept = cache_folder() / "data" / f"{'--'.join(parts)}.jsonl"
    if kept.is_file():
        return kept
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        looked.append(f"the hub as {repository} (needs `pip install datasets`)")
        return None
    try:
        rows = datasets.load_dataset(repository, place.config, data_dir=subfolder, split=place.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        config = f', config "{place.config}"' if place.config else ""
        looked.append(f'the hub as {repository}{config}, split "{place.split}" ({" ".join(str(error).split())})')
        return None
    write_jsonl(kept, map(plain, rows), force=True)
    return kept


def _hub_place(name: str) -> _HubPlace | None:
    """What a name means on the hub; None when it can mean nothing there."""
    parts = name.split("/")
    if name.endswith(_OF_FILES):
        return None
    if parts[0] in _HUB and len(parts) <= 2:
        return _HubPlace(parts[0], None, parts[1] if len(parts) == 2 else "train")
    if 2 <= len(parts) <= 4 and all(part and not part.startswith((".", "~")) for part in parts):
        config = parts[2] if len(parts) == 4 else None
        return _HubPlace("/".join(parts[:2]), config, parts[-1] if len(parts) > 2 else "train")
    return None
