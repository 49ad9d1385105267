"""What a run was made with: versions of the software and hashes of what it read."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path

from tuneful.errors import DataError

_PACKAGES = ("tuneful", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy")


def environment() -> dict[str, str | int | None]:
    """Versions and machine, by name; None for a package that is not installed. Nothing heavy is imported."""
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; give a file that can be opened") from None


def tree_hash(directory: Path) -> str:
    """SHA-256 of the names and contents of all files under a directory, in hex.

    It is the hash of the lines `<hash>  <relative path>`, in order of path. Raises DataError when there is no file.
    """
    files = sorted((path.relative_to(directory).as_posix(), path) for path in directory.rglob("*") if path.is_file())
    if not files:
        raise DataError(f"{directory}: no files there; give a directory that holds some")
    lines = "".join(f"{file_hash(path)}  {name}\n" for name, path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
