"""`tuneful label adapt`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tuneful.cli.options import StoreUrl

if TYPE_CHECKING:
    from tuneful.feedback.store import Store


def command(
    project: Annotated[str, typer.Option("--project", help="Name or id of a project of the store.")],
    store: StoreUrl = "judgments.db",
    most_overlap: Annotated[
        int | None, typer.Option(help="From now on ask up to so many people while an order is unsure; 0: no more.")
    ] = None,
    sure: Annotated[float | None, typer.Option(help="Share of an item's pairs in the right order: enough.")] = None,
    every: Annotated[
        float | None, typer.Option(help="Go on, and look again after so many seconds, until Ctrl-C.", min=0.1)
    ] = None,
) -> None:
    """Ask for more judgments where the order is still unsure, and put the items first that are worth most.

    Example: tuneful label adapt --project helpful --most-overlap 6 --every 60
    """
    import time

    from tuneful.feedback.adaptive import is_due, require_grows
    from tuneful.feedback.projects import find_project, set_overlap
    from tuneful.feedback.store import Store

    opened = Store.open(store, make=False)
    found = find_project(opened, project)
    if most_overlap is not None or sure is not None:
        most = found.most_overlap if most_overlap is None else most_overlap
        enough = found.sure if sure is None else sure
        set_overlap(opened, found.id, most=most, sure=enough, now=time.time())
    if most_overlap == 0:
        print(f'the overlap of "{found.name}" is fixed from now on')
        return
    require_grows(find_project(opened, found.id))
    _adapt(opened, found.id)
    while every is not None:
        time.sleep(every)
        if is_due(opened, found.id, now=time.time()):
            _adapt(opened, found.id)


def _adapt(opened: Store, project: str) -> None:
    """As a job, which one process does: this one, or a worker that has begun with it."""
    import sys
    import time
    from functools import partial

    from tuneful.errors import StoreError
    from tuneful.feedback.jobs import ADAPT, enqueue
    from tuneful.pipeline.work import run_or_wait

    asked = enqueue(opened, project, ADAPT, {}, by=None, now=time.time())
    ended = run_or_wait(opened, asked, note=partial(print, file=sys.stderr, flush=True))
    if ended.state != "done":
        raise StoreError(f"{ended.state}: {ended.message}")
    print(ended.message, flush=True)
