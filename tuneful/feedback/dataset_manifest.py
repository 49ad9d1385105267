"""What a dataset was made of and with, and whether its files are still those that were written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tuneful.errors import DataError
from tuneful.runs.manifest import file_hash

MANIFEST: Final = "manifest.json"
CARD: Final = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    name: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a dataset was made of and with.

    query: what was asked of the store, in the words of whoever asked. inputs: SHA-256 of the judgments, of the
    candidates, of the decisions and of each version of the instructions. agreement: Krippendorff's alpha by criterion.
    left_out: what gave no row, by reason. trail: how many events the store's trail had, and the hash of the last one;
    empty for a dataset that came from no store.
    """

    name: str
    audience: str | None
    version: str
    query: Mapping[str, Any]
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    counts: Mapping[str, Any]
    agreement: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, int]
    files: tuple[WrittenFile, ...]
    trail: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As manifest.json holds it, `sha256` being that of all the rest."""
        content = {"format": 1, **dataclasses.asdict(self)}
        return content | {"sha256": hash_of([json.dumps(content, sort_keys=True)])}


def verify_dataset(folder: Path) -> list[str]:
    """One line for each file of a dataset that differs from its manifest, is missing, or is not in it.

    The card is not looked at. Raises DataError when the folder has no manifest.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        manifest = json.loads(content)
        files = {str(file["name"]): str(file["sha256"]) for file in manifest["files"]}
    except FileNotFoundError:
        raise DataError(f"{folder}: has no {MANIFEST}, so it is no dataset that can be verified") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}; give the folder of a dataset") from None
    except (ValueError, KeyError, TypeError):
        return [f"{MANIFEST}: is no manifest any more; write the dataset anew"]
    seal = manifest.pop("sha256", None)
    whole = manifest | {"sha256": hash_of([json.dumps(manifest, sort_keys=True)])}
    wrong = [] if seal == whole["sha256"] and rendered(whole) == content else [f"{MANIFEST}: differs from its own hash"]
    for name, sha256 in files.items():
        path = folder / name
        if Path(name).name != name:
            wrong.append(f"{name}: lies elsewhere")
        elif not path.is_file():
            wrong.append(f"{name}: missing")
        elif file_hash(path) != sha256:
            wrong.append(f"{name}: differs from the manifest")
    strangers = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    return wrong + [f"{name}: not in the manifest" for name in sorted(strangers - files.keys() - {MANIFEST, CARD})]


def rendered(manifest: Mapping[str, Any]) -> bytes:
    """The content of manifest.json."""
    return json.dumps(manifest, ensure_ascii=False, indent=2).encode() + b"\n"


def hash_of(lines: Iterable[str]) -> str:
    """SHA-256, in hex, of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
