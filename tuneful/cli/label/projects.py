"""What is in the projects of a store: judgments made elsewhere, known items, how far each is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneful.cli.label.broken import refuse_broken, refuse_unless_skipped, tell
from tuneful.cli.options import Json, StoreUrl
from tuneful.errors import DataError


def import_command(
    file: Annotated[Path, typer.Argument(help="Judgments made elsewhere.", show_default=False)],
    project: Annotated[str, typer.Option("--project", help="Name of a project, made when it is not there.")],
    store: StoreUrl = "judgments.db",
    in_: Annotated[Path | None, typer.Option("--in", help="Completions, for a judgments file of ours.")] = None,
    skip_broken: Annotated[bool, typer.Option("--skip-broken", help="Take the rest of a file with errors.")] = False,
) -> None:
    """Judgments of Label Studio, Argilla, Open-Assistant, TRL or a file of ours, into a project of a store.

    With a file of ours come the decisions of the decisions.jsonl beside it. Read again it adds nothing.

    Example: tuneful label import label-studio.json --project helpful
    """
    import time

    from tuneful.data.formats import read_candidates
    from tuneful.feedback.imports import import_judgments
    from tuneful.feedback.recording import record_in_named
    from tuneful.feedback.settling import decisions_beside
    from tuneful.feedback.store import Store

    items = [] if in_ is None else read_candidates(in_, bare=True)
    found = import_judgments(file, candidates=items, on_problem="skip")
    refuse_unless_skipped(file, found.problems, skip_broken=skip_broken)
    tell(found.left_out)
    if not found.judgments:
        print(f"{file} holds no judgments")
        return
    if not found.candidates:
        raise DataError(
            f"{file}: holds judgments, and not the texts they speak of; give these by --in completions.jsonl"
        )
    opened = Store.open(store)
    decided = [] if in_ is None else decisions_beside(file)
    judged = {(said.item, said.criterion) for said in found.judgments}
    for one in decided:
        if (one.item, one.criterion) not in judged:
            tell([f'decision "{one.id}": left out: no judgment of its item comes with it'])
    made = record_in_named(opened, project, found.candidates, found.judgments, decided, now=time.time())
    for name, new in made.items():
        tell(new.left_out)
        beside = f" and {new.decisions} new decisions" if decided else ""
        print(f'{new.judgments} new judgments of {new.items} new items{beside} in project "{name}" of {opened}')


def status_command(store: StoreUrl = "judgments.db", as_json: Json = False) -> None:
    """How far each project of a store is.

    Example: tuneful label status --store judgments.db
    """
    import json
    from dataclasses import asdict

    from tuneful.feedback.projects import progress, projects
    from tuneful.feedback.store import Store

    opened = Store.open(store, make=False)
    rows = [
        {"id": one.id, "name": one.name, "kind": one.kind} | asdict(progress(opened, one.id))
        for one in projects(opened)
    ]
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        more = f" (up to {row['up_to']})" if row["up_to"] > row["wanted"] else ""
        judged = f"{row['have']:6} of {row['wanted']} judgments{more}"
        print(f"{row['name']:<20} {judged}, {row['done']} of {row['items']} items done")
    if not rows:
        print("no project yet; make one with: tuneful label create")


def gold_command(
    project: Annotated[str, typer.Option("--project", help="Name or id of a project of the store.")],
    store: StoreUrl = "judgments.db",
    in_: Annotated[
        Path | None, typer.Option("--in", help='Completions rows with "ranks" or "values", and "why".')
    ] = None,
    quiz: Annotated[
        int | None, typer.Option(help="Items that every labeler begins with, told the answer after each; 0: none.")
    ] = None,
    pass_share: Annotated[float | None, typer.Option(help="Share of the quiz to get right; at first 0.7.")] = None,
    gold_every: Annotated[
        int | None, typer.Option(help="Afterwards one item in so many is a known one; 0: none.")
    ] = None,
) -> None:
    """Items whose answer is known, to teach labelers at the beginning and to see how they judge later.

    All of it is done or nothing. Items that are there already with the same answer stay as they are, and so does what
    is not named of the quiz.

    Example: tuneful label gold --project helpful --in gold.jsonl --quiz 5 --gold-every 15
    """
    import time

    from tuneful.feedback.gold_files import read_gold
    from tuneful.feedback.projects import find_project
    from tuneful.feedback.quiz import teach
    from tuneful.feedback.store import Store
    from tuneful.feedback.whole_rows import Faults

    opened = Store.open(store, make=False)
    found = find_project(opened, project)
    known = []
    if in_ is not None:
        known = read_gold(in_, found.kind, found.criteria[0], faults := Faults())
        refuse_broken(in_, faults.lines, mend="mend them")
    quiz = found.quiz if quiz is None else quiz
    pass_share = found.pass_share if pass_share is None else pass_share
    gold_every = found.gold_every if gold_every is None else gold_every
    made = teach(opened, found.id, known, quiz=quiz, pass_share=pass_share, gold_every=gold_every, now=time.time())
    there = len(known) - made
    beside = f" ({there} {'was' if there == 1 else 'were'} there already)" if there else ""
    print(f'{made} known items added to "{found.name}"{beside}; a quiz of {quiz}, to get {pass_share:.0%} right')
