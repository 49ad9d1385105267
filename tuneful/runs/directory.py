"""The directory of a run: one writer, atomic checkpoints, logs cut back on resume (docs/decisions/0002).

    run.json          recipe, versions, and the facts that stages add; `done` when the stage is
    metrics.jsonl     one row per step
    samples.jsonl     what the model said on the way
    checkpoints/      step-00000012/, ...: what is needed to go on, and logs.json, how long the logs were
    model/            what the stage made

A kill at any moment leaves the newest whole checkpoint: files are written beside, synced and renamed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tuneful.errors import ConfigError, RunError, TunefulError
from tuneful.runs.logs import JsonLog, to_json
from tuneful.runs.manifest import environment

_STEP = re.compile(r"step-(\d{8,})")
_LOCK = ".lock"
_UNFINISHED = ".part"
_ABSENT = object()
_LAYERS = ("inputs", "config")  # of a stage in run.json; a recipe file has their settings side by side
_REFUSED_WRITE = re.compile(r"\(os error \d+\)|inline_container\.cc|PytorchStreamWriter")
"""What safetensors and tokenizers (both Rust) and torch say, in exceptions that are no OSError, of a full disk."""


class RunDirectory:
    """An open run directory; the process that opened it is its only writer until `close` or its end.

    path: the directory. manifest: what `run.json` holds. metrics, samples: the logs.
    """

    path: Path
    manifest: dict[str, Any]
    metrics: JsonLog
    samples: JsonLog

    def __init__(self, path: Path, lock: int, manifest: dict[str, Any]) -> None:
        self.path = path
        self._lock = lock
        self.manifest = manifest
        self.metrics = JsonLog(path / "metrics.jsonl")
        self.samples = JsonLog(path / "samples.jsonl")

    @classmethod
    def open(cls, path: Path, recipe: Mapping[str, Any], *, force: bool = False) -> RunDirectory:
        """Creates the directory, or continues the run in it when its recipe is the same.

        With `force` an earlier run there is removed first. Raises RunError when another process writes to the
        directory, when it holds a run of another recipe (naming the settings that differ) or files that are no run, and
        when it cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            _refuse_strangers(path)
            lock = _lock(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}; choose another place") from error
        try:
            return cls(path, lock, _manifest(path, recipe, force=force))
        except OSError as error:
            os.close(lock)
            raise _refused(path, error) from error
        except BaseException:
            os.close(lock)
            raise

    @property
    def name(self) -> str:
        """The last part of its path: of a stage's directory, the stage's name."""
        return self.path.name

    @property
    def done(self) -> bool:
        """Whether `finish` has been called, now or in an earlier process."""
        return bool(self.manifest["done"])

    def update(self, **facts: Any) -> None:
        """Adds facts to `run.json`, replacing those of the same name; whole or not at all."""
        manifest = {**self.manifest, **facts}
        _write_manifest(self.path, manifest)
        self.manifest = manifest

    def finish(self, **facts: Any) -> None:
        """Adds last facts and marks the run as done."""
        self.update(**facts, done=True)

    @contextmanager
    def checkpoint(self, step: int, *, keep: int = 2) -> Iterator[Path]:
        """A new directory to save into; at the end of the block it becomes `checkpoints/step-<step>`.

        Everything in it, and the logs up to here, is on the disk before it gets its name; then all but the newest
        `keep` checkpoints are removed. When the block fails the earlier ones stay. RunError names what could not be
        written; any other error of the block passes through.
        """
        if keep < 1:
            raise ConfigError(f"at least one checkpoint must be kept, got keep = {keep}")
        target = self.path / "checkpoints" / f"step-{step:08d}"
        if target.exists():
            raise RunError(f"{target}: exists already; a step is saved once")
        self._keep_newest(keep)  # a kill may have come before the removal below
        with written_folder(target) as part:
            yield part
            _write(part / "logs.json", to_json(self._log_sizes(), part))
        self._keep_newest(keep)

    @contextmanager
    def output(self, name: str) -> Iterator[Path]:
        """A new directory to save into; at the end of the block it becomes `name`, in place of an earlier one.

        When the block fails the earlier one stays, with errors as those of `checkpoint`.
        """
        with written_folder(self.path / name) as part:
            yield part

    def refuse_full(self, num_bytes: int) -> None:
        """RunError where a file of so many bytes has no room, to be asked before the work whose end writes as much."""
        part = self.path / f".room{_UNFINISHED}"
        try:
            _write(part, bytes(num_bytes))
        except OSError as error:
            raise _refused(self.path, error) from error
        finally:
            part.unlink(missing_ok=True)

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """Step and directory of the newest whole checkpoint."""
        found = checkpoints(self.path)
        return found[-1] if found else None

    def resume_logs(self, checkpoint: Path | None) -> None:
        """Cuts the logs back to where they were at `checkpoint`; without one, to nothing."""
        sizes = json.loads((checkpoint / "logs.json").read_bytes()) if checkpoint else {}
        for log in (self.metrics, self.samples):
            log.cut_back(sizes.get(log.path.name, 0))

    def close(self) -> None:
        """Closes the logs and lets others write."""
        self.metrics.close()
        self.samples.close()
        os.close(self._lock)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _keep_newest(self, keep: int) -> None:
        for _, old in checkpoints(self.path)[:-keep]:
            _remove_checkpoint(old)

    def _log_sizes(self) -> dict[str, int]:
        for log in (self.metrics, self.samples):
            log.sync()
        return {log.path.name: log.size() for log in (self.metrics, self.samples)}


def checkpoints(stage: Path) -> list[tuple[int, Path]]:
    """Step and directory of every whole checkpoint in a stage's run directory, the newest last."""
    found = ((_STEP.fullmatch(path.name), path) for path in (stage / "checkpoints").glob("step-*"))
    return sorted((int(match[1]), path) for match, path in found if match)


@contextmanager
def written_folder(target: Path, *, writer: str = "") -> Iterator[Path]:
    """A directory beside `target` that takes its name, in place of an earlier one, once all of it is on the disk.

    writer: tells apart those who may write there at one time; a run directory has one alone. RunError names what could
    not be written, and then an earlier `target` stays; any other error of the block passes through.
    """
    part = target.with_name(f".{target.name}{writer}{_UNFINISHED}")
    shutil.rmtree(part, ignore_errors=True)  # of a writer that was killed
    try:
        part.mkdir(parents=True)
        yield part
        _sync_tree(part)
        if target.exists():
            _remove(target)
        part.rename(target)
        _sync(target.parent)
    except TunefulError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not _REFUSED_WRITE.search(str(error)):
            raise
        raise _refused(target, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _refuse_strangers(path: Path) -> None:
    """Keeps us, and above all `force`, away from directories that are no run; hidden files are nobody's work."""
    strangers = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    if strangers and "run.json" not in strangers:
        raise RunError(f'{path}: holds "{strangers[0]}" but no run (no run.json); choose another --out')


def _lock(path: Path) -> int:
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 100).decode(errors="replace").strip()
        os.close(lock)
        raise RunError(
            f"{path}: in use by {holder or 'another process'}; wait for it or choose another --out"
        ) from None
    except OSError:
        os.close(lock)
        raise
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {os.uname().nodename}".encode(), 0)
    return lock


def _manifest(path: Path, recipe: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
    """The manifest to go on with, after everything an earlier process left unfinished has been cleared away."""
    wanted = json.loads(to_json(recipe, path / "run.json"))
    for leftover in [*path.glob(f".*{_UNFINISHED}"), *path.glob(f"checkpoints/.*{_UNFINISHED}")]:
        _remove(leftover)
    manifest = _read_manifest(path)
    if manifest is not None and (force or manifest.get("clearing")):
        _clear(path)
        manifest = None
    if manifest is None:
        manifest = {"recipe": wanted, "environment": environment(), "done": False}
        _write_manifest(path, manifest)
        return manifest
    differences = _differences(manifest["recipe"], wanted)
    if differences:
        shown = ", ".join(differences[:5]) + (f" and {len(differences) - 5} more" if len(differences) > 5 else "")
        raise RunError(
            f"{path}: holds a run of another recipe: {shown}; choose another --out, or --force to remove that run"
        )
    if not manifest["done"] and environment() not in [manifest["environment"], *manifest.get("continued_in", [])]:
        manifest["continued_in"] = [*manifest.get("continued_in", []), environment()]
        _write_manifest(path, manifest)
    return manifest


def _read_manifest(path: Path) -> dict[str, Any] | None:
    file = path / "run.json"
    try:
        manifest = json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{file}: not valid JSON: {error}; mend it or choose another --out") from None
    if not isinstance(manifest, dict) or not ({"recipe", "done"} <= manifest.keys() or "clearing" in manifest):
        raise RunError(f'{file}: not the record of a run ("recipe" or "done" is missing); choose another --out')
    return manifest


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    file = path / "run.json"
    part = path / f".run.json{_UNFINISHED}"
    content = to_json(manifest, file, indent=2) + b"\n"
    try:
        _write(part, content)
        part.replace(file)
        _sync(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _refused(file, error) from error


def _clear(path: Path) -> None:
    # Marked first: a kill in the middle must not leave half of the old run looking like a whole one.
    _write_manifest(path, {"clearing": True})
    for entry in path.iterdir():
        if entry.name not in (_LOCK, "run.json"):
            _remove(entry)


def _differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Settings that differ, `ppo.clip = 0.2 there, 0.3 here`, in order of name."""
    if isinstance(old, list) and isinstance(new, list):
        names, others = _names(old), _names(new)
        if names and names == others:  # stages, told by their names as in a recipe and on the command line
            return [line for pair in zip(names, old, new, strict=True) for line in _differences(*pair[1:], pair[0])]
        if names and others:
            old, new = names, others
        else:
            old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in _differences(
                old.get(key, _ABSENT),
                new.get(key, _ABSENT),
                name if key in _LAYERS else f"{name}.{key}" if name else str(key),
            )
        ]
    if old == new:
        return []
    there, here = ("nothing" if side is _ABSENT else json.dumps(side, ensure_ascii=False) for side in (old, new))
    return [f"{name} = {there} there, {here} here"]


def _names(tables: list[Any]) -> list[str]:
    """The names of a list of tables that all have one; empty for any other list."""
    names = [table["name"] for table in tables if isinstance(table, dict) and "name" in table]
    return names if len(names) == len(tables) else []


def _remove_checkpoint(checkpoint: Path) -> None:
    # Its name goes first: a kill in the middle must not leave half a checkpoint that looks whole.
    part = checkpoint.with_name(f".{checkpoint.name}{_UNFINISHED}")
    checkpoint.rename(part)
    _remove(part)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        _sync(path)
    _sync(directory)


def _refused(path: Path, error: Exception) -> RunError:
    """The RunError of a file that could not be written; `path` is where, unless the error knows better."""
    if isinstance(error, shutil.Error):  # of copytree: (source, target, words) of each file; the first says enough
        copied = re.search(r"\[Errno (\d+)\]", error.args[0][0][2])
        place, cause = path, os.strerror(int(copied[1])) if copied else error.args[0][0][2]
    elif isinstance(error, OSError):
        place, cause = error.filename or path, error.strerror or str(error)
    else:
        first_line, _, _ = str(error).partition("\n")
        place, cause = path, f"{type(error).__name__}: {first_line}"
    return RunError(f"{place}: cannot be written: {cause}; free space or rights, then run again to continue")
