"""Datasets that were made of a project, numbered: what each was made of, and where the trail stood then."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, func, insert, select

from tuneful.feedback import trail
from tuneful.feedback.dataset import write_dataset
from tuneful.feedback.dataset_manifest import Manifest
from tuneful.feedback.decisions import decisions
from tuneful.feedback.items import candidates
from tuneful.feedback.pages import groups_of, guides
from tuneful.feedback.projects import find_project, judgments
from tuneful.feedback.store import Store
from tuneful.feedback.tables import dataset_version, project


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """hash: of the manifest, which is the `sha256` in it. size: bytes of its packed file, None where that is not kept.
    at: seconds since 1970."""

    version: int
    hash: str
    manifest: Mapping[str, Any]
    size: int | None
    at: float

    @property
    def shown_at(self) -> str:
        return datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%M")


def versions(store: Store, project_id: str) -> list[Version]:
    """The datasets of a project, oldest first."""
    asked = select(dataset_version).where(dataset_version.c.project == project_id).order_by(dataset_version.c.version)
    with store.read() as connection:
        rows = connection.execute(asked).all()
    return [
        Version(version=row.version, hash=row.hash, manifest=row.manifest, size=row.size, at=row.created_at)
        for row in rows
    ]


def export_dataset(
    store: Store,
    project_id: str,
    folder: Path,
    *,
    audience: str | None = None,
    container: Literal["jsonl", "parquet"] = "jsonl",
    flagged_as_rejected: bool = False,
    margins: bool = False,
    by: str | None = None,
    force: bool = False,
    now: float,
) -> tuple[int, Manifest]:
    """Write a project's dataset into `folder`, and keep its manifest under a number, the version. What it may hold is
    told at `write_dataset`.

    A dataset that says what an earlier version says is that version again, byte by byte, and no new row; so a dataset
    is made anew from the store for as long as nothing of it has changed. Raises as `write_dataset` does.
    """
    with store.snapshot() as then:  # people go on labeling
        found = find_project(then, project_id)
        earlier = versions(then, found.id)
        number, head = trail.head(then)
        judged, offered = judgments(then, found.id, all_revisions=True), candidates(then, found.id)
        made, groups = decisions(then, found.id), groups_of(then, found.id)
        instructions = {one.id: one.text for one in guides(then, found.id)}

    def trail_of(manifest: Manifest) -> Mapping[str, Any]:
        said = _said(manifest.as_json())
        same = (one.manifest["trail"] for one in reversed(earlier) if _said(one.manifest) == said)
        return next(same, {"events": number, "head": head})

    manifest = write_dataset(
        folder,
        judged,
        offered,
        name=found.name,
        decisions=made,
        instructions=instructions,
        container=container,
        flagged_as_rejected=flagged_as_rejected,
        margins=margins,
        audience=audience,
        groups=groups,
        query={"project": found.name, "kind": found.kind, "criteria": list(found.criteria)},
        trail_of=trail_of,
        force=force,
    )
    return store.write(lambda connection: _keep(connection, found.id, manifest.as_json(), by, now)), manifest


def _said(manifest: Mapping[str, Any]) -> str:
    """All that a manifest says but where the trail stood, and its own hash."""
    return json.dumps({name: manifest[name] for name in manifest if name not in ("trail", "sha256")}, sort_keys=True)


def _keep(connection: Connection, project_id: str, manifest: Mapping[str, Any], by: str | None, now: float) -> int:
    """The number of the version that has this manifest, a new one where there is none."""
    connection.execute(select(project.c.id).where(project.c.id == project_id).with_for_update(key_share=True))
    mine = dataset_version.c.project == project_id
    digest = manifest["sha256"]
    known = connection.execute(select(dataset_version.c.version).where(mine, dataset_version.c.hash == digest)).scalar()
    if known is not None:
        return int(known)
    last = connection.execute(select(func.max(dataset_version.c.version)).where(mine)).scalar()
    version = 1 + (last or 0)
    row = {"id": str(uuid.uuid4()), "project": project_id, "version": version, "manifest": manifest, "hash": digest}
    connection.execute(insert(dataset_version).values(**row, created_at=now))
    about = {"version": version, "hash": digest}
    trail.add(connection, "dataset written", project=project_id, rater=by, about=about, now=now)
    return version
