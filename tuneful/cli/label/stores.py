"""Stores as a whole: copies of them, and the trail of what was done in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneful.cli.options import In, Json, OptionalProject, Out, StoreUrl
from tuneful.errors import DataError, StoreError

if TYPE_CHECKING:
    from tuneful.feedback.store import Store


def backup_command(out: Out, store: StoreUrl = "judgments.db") -> None:
    """A copy of a store as it is now, while people go on judging. The copy is a store itself (SQLite).

    Example: tuneful label backup --store judgments.db --out judgments-monday.db
    """
    from tuneful.feedback.backup import back_up
    from tuneful.feedback.store import Store

    counts = back_up(Store.open(store, make=False), out)
    print(f"{counts['judgment']} judgments and {sum(counts.values())} rows in all in {out}")


def restore_command(in_: In, store: StoreUrl = "judgments.db") -> None:
    """A backup put into a store that holds nothing yet, of either database.

    Example: tuneful label restore --in judgments-monday.db --store postgresql://localhost/judgments
    """
    import time

    from tuneful.feedback.backup import restore
    from tuneful.feedback.store import Store

    opened = Store.open(store)
    counts = restore(in_, opened, now=time.time())
    print(f"{counts['judgment']} judgments and {sum(counts.values())} rows in all in {opened}")


def trail_command(
    store: StoreUrl = "judgments.db",
    project: OptionalProject = None,
    last: Annotated[int, typer.Option(help="At most this many events, the newest.", min=1)] = 50,
    check: Annotated[bool, typer.Option("--check", help="Only say whether the trail is whole.")] = False,
    dataset: Annotated[Path | None, typer.Option("--dataset", help="Whose manifest the trail has to go with.")] = None,
    as_json: Json = False,
) -> None:
    """What leads and admins did, each event with a hash over the one before, so that none can be changed unseen.

    --check reads all of them. With the folder of a dataset written earlier it also says whether the trail is still the
    one that the dataset names: a trail that was written anew from the beginning is whole, and another one.

    Example: tuneful label trail --store judgments.db --check --dataset helpful-data
    """
    import json
    from dataclasses import asdict
    from datetime import UTC, datetime

    from tuneful.feedback import trail
    from tuneful.feedback.projects import find_project
    from tuneful.feedback.store import Store

    opened = Store.open(store, make=False)
    if check or dataset is not None:
        found = trail.check(opened)
        if as_json:
            print(json.dumps(asdict(found)))
        if found.broken is not None:
            raise StoreError(f"{opened}: event {found.broken} of the trail is missing or is not what was written")
        if dataset is not None:
            _require_trail_of(dataset, opened)
        if not as_json:
            print(f"{found.count} events, all as they were written; the last one's hash is {found.head}")
        return
    place = None if project is None else find_project(opened, project).id
    events = trail.events(opened, place, last=last)
    if as_json:
        print(json.dumps([asdict(one) for one in events]))
        return
    for one in events:
        at = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        print(f"{one.number:6} {at} {(one.rater or '-')[:8]:<8} {one.what} {json.dumps(one.about)}")


def _require_trail_of(folder: Path, opened: Store) -> None:
    """StoreError when the trail does not hold the event that the manifest of a dataset names as its last."""
    import json

    from tuneful.feedback import trail

    try:
        named = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["trail"]
        number, head = int(named["events"]), str(named["head"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{folder}: has no manifest.json that names a trail; give the folder of a dataset") from None
    if not trail.holds(opened, number, head):
        raise StoreError(f"{folder}: names event {number} of another trail than that of {opened}; one was changed")
