"""From a model back to what it came from: the `run.json` of the stage that made it, of that stage's parents, and so on.

Folders move and files are removed. What cannot be followed is told, in words, and the rest is still read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneful.runs.manifest import tree_hash

_MODEL = "model"
"""Where a stage leaves what it made."""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What a stage left on itself. folder: its run directory. manifest: its `run.json`. report: its `report.json`, {}
    where there is none."""

    folder: Path
    manifest: Mapping[str, Any]
    report: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def kind(self) -> str:
        """ "ppo", "consensus", …; "" in the record above the stages."""
        return str(table_or_empty(self.manifest.get("recipe")).get("kind", ""))

    @property
    def inputs(self) -> Mapping[str, Any]:
        return table_or_empty(table_or_empty(self.manifest.get("recipe")).get("inputs"))

    @property
    def config(self) -> Mapping[str, Any]:
        return table_or_empty(table_or_empty(self.manifest.get("recipe")).get("config"))

    @property
    def data(self) -> Mapping[str, Any]:
        """SHA-256 of every file that was read, by the name it was given."""
        return table_or_empty(self.manifest.get("data"))

    @property
    def models(self) -> Mapping[str, Any]:
        """SHA-256 of every model folder that was read and that no stage of the same run had made."""
        return table_or_empty(self.manifest.get("models"))


@dataclass(frozen=True, slots=True)
class Lineage:
    """stages: all that led to a model, each after those it built on, the one that made it last; empty for a model that
    no run made. lost: a sentence on each thing that could not be followed."""

    stages: list[StageRecord] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def of_kind(self, *kinds: str) -> list[StageRecord]:
        return [stage for stage in self.stages if stage.kind in kinds]

    @property
    def maker(self) -> StageRecord | None:
        """The stage that made the model."""
        return self.stages[-1] if self.stages else None


def lineage(model: Path) -> Lineage:
    """What led to the model in folder `model`, as far as the folders that recorded it are still there."""
    found = Lineage()
    _follow_model(model, found, set())
    return found


def siblings(stage: StageRecord) -> Iterator[StageRecord]:
    """The other stages of the same run that are done, in order of name."""
    for folder in sorted(stage.folder.parent.iterdir()):
        record = _read(folder, [])
        if record is not None and record.kind and record.manifest.get("done") and folder != stage.folder:
            yield record


def read_stage(folder: Path) -> StageRecord | None:
    """What a stage or a whole run left on itself in `folder`; None where there is no readable `run.json`."""
    return _read(folder, [])


def short_name(path: str) -> str:
    """What a path is called where the machine it is on is nobody's business; of a stage's model, `ppo/model`."""
    place = Path(path)
    return f"{place.parent.name}/{place.name}" if place.name == _MODEL else place.name


def _follow_model(model: Path, found: Lineage, seen: set[Path]) -> None:
    place = model.resolve()
    if place.name == _MODEL:
        _follow_stage(place.parent, found, seen)


def _follow_stage(folder: Path, found: Lineage, seen: set[Path]) -> None:
    if folder in seen:
        return
    seen.add(folder)
    stage = _read(folder, found.lost)
    if stage is None or not stage.kind:
        return
    parents = stage.manifest.get("parents")
    for parent in map(str, parents if isinstance(parents, list) else ()):
        place = folder.parent / parent
        if (place / "run.json").is_file():
            _follow_stage(place, found, seen)
        else:
            found.lost.append(f"the folder of stage {parent}, which {stage.name} built on, is gone")
    for name, digest in stage.models.items():
        _follow_named(name, digest, stage, found, seen)
    found.stages.append(stage)


def _follow_named(name: str, digest: object, stage: StageRecord, found: Lineage, seen: set[Path]) -> None:
    """A model that a stage took by its path: if it is still what was read, and a run made it, that run is followed."""
    place = Path(name).expanduser()
    if not place.is_dir():
        found.lost.append(f"the model {short_name(name)}, which {stage.name} read, is no longer where it was")
    elif tree_hash(place) != digest:
        found.lost.append(f"the model {short_name(name)}, which {stage.name} read, has changed since")
    else:
        _follow_model(place, found, seen)


def _read(folder: Path, lost: list[str]) -> StageRecord | None:
    if not (folder / "run.json").is_file():
        return None
    try:
        manifest, report = (
            table_or_empty(json.loads(file.read_bytes())) if file.is_file() else {}
            for file in (folder / "run.json", folder / "report.json")
        )
    except (OSError, ValueError):
        lost.append(f"the record of stage {folder.name} cannot be read")
        return None
    return StageRecord(folder, manifest, report)


def table_or_empty(value: object) -> Mapping[str, Any]:
    """What a record holds in the place of a table; empty where it holds something else."""
    return value if isinstance(value, dict) else {}
