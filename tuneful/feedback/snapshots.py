"""What was made of a project's judgments and is kept: rows of the table `snapshot`, which are only ever added."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select

from tuneful.feedback.store import Store
from tuneful.feedback.tables import snapshot


def keep(
    store: Store,
    project_id: str,
    kind: str,
    *,
    method: str,
    judgments: int,
    result: Mapping[str, Any],
    inputs: str = "",
    now: float,
) -> None:
    """Put a result beside those before it.

    kind: what was made. method: how; another word when that changes. judgments: of how many. inputs: a hash of what it
    was made of, "" where nobody asks for it.
    """
    row = {"kind": kind, "method": method, "inputs": inputs, "judgments": judgments, "result": dict(result)}
    row |= {"id": str(uuid.uuid4()), "project": project_id, "created_at": now}
    store.write(lambda connection: connection.execute(insert(snapshot).values(**row)))


def latest(store: Store, project_id: str, kind: str, *, method: str) -> Any | None:
    """The newest result of a kind, as JSON has it; None when there is none of this method."""
    kept = (
        select(snapshot.c.result)
        .where(snapshot.c.project == project_id, snapshot.c.kind == kind, snapshot.c.method == method)
        .order_by(snapshot.c.created_at.desc(), snapshot.c.id)
        .limit(1)
    )
    with store.read() as connection:
        return connection.execute(kept).scalar()
