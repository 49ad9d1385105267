"""`tuneful label quality`: what the lead's page of quality shows, on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tuneful.cli.options import Json, StoreUrl

if TYPE_CHECKING:
    from rich.console import Console

    from tuneful.feedback.criteria import Criterion
    from tuneful.feedback.quality import Quality
    from tuneful.feedback.shares import Share


def command(
    project: Annotated[str, typer.Option("--project", help="Name or id of a project of the store.")],
    store: StoreUrl = "judgments.db",
    group: Annotated[str | None, typer.Option(help="Only people who say they are of this group.")] = None,
    as_json: Json = False,
) -> None:
    """How well a project is judged: labelers, agreement, hard items, groups. Measured now, and kept for the page.

    Example: tuneful label quality --store judgments.db --project helpful
    """
    import json
    import time

    from tuneful.feedback.pages import labelers, prompts_of
    from tuneful.feedback.projects import find_project
    from tuneful.feedback.quality import keep, measure
    from tuneful.feedback.store import Store
    from tuneful.settings import as_table

    opened = Store.open(store, make=False)
    found = find_project(opened, project)
    quality = measure(opened, found.id, group=group, now=time.time())
    keep(opened, found.id, quality)
    if as_json:
        print(json.dumps(as_table(quality)))
        return
    names = {one.rater: _plain(one.name or one.rater[:8]) for one in labelers(opened, found.id)}
    hard = [one.item for criterion in quality.criteria for one in criterion.hardest]
    _print(quality, names, {item: _plain(text) for item, text in prompts_of(opened, hard).items()})


def _print(quality: Quality, names: Mapping[str, str], prompts: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(f"{quality.judgments} judgments of {quality.people} people")
    _print_cards(console, quality, names)
    for criterion in quality.criteria:
        alpha = "undefined" if criterion.alpha.value is None else f"{criterion.alpha.value:.2f}"
        console.print()
        console.print(Text(f'Agreement on "{_plain(criterion.name)}": Krippendorff\'s alpha {alpha}', style="bold"))
        if criterion.problem:
            console.print(Text(f"there is no consensus: {criterion.problem}"))
        _print_criterion(console, criterion, names, prompts)


def _print_cards(console: Console, quality: Quality, names: Mapping[str, str]) -> None:
    from rich.text import Text

    rows = []
    for card in quality.cards:
        seconds = "–" if card.pace.seconds is None else f"{card.pace.seconds:.0f}"
        verdicts = ", ".join(dict.fromkeys(one.verdict for one in card.standings)) or "–"
        rows.append((names[card.rater], str(card.judgments), verdicts, seconds, _share(card.gold), _share(card.quiz)))
    _table(console, ("Labeler", "Judgments", "Verdict", "Seconds", "Known items right", "Quiz right"), rows)
    for card in quality.cards:
        for found in card.findings:
            console.print(Text(f"{names[card.rater]}: {_plain(found.sentence)} {found.advice}"))


def _print_criterion(
    console: Console, criterion: Criterion, names: Mapping[str, str], prompts: Mapping[str, str]
) -> None:
    windows = () if criterion.timeline is None else criterion.timeline.windows
    _table(
        console,
        ("Judgments in a row", "Alike"),
        [(str(one.judgments), _share(one.agreement)) for one in windows],
    )
    for mark in () if criterion.timeline is None else criterion.timeline.marks:
        console.print(f"version {mark.version} of the instructions came after {mark.after} judgments")
    if criterion.matrix is not None and len(criterion.matrix.raters) > 1:
        numbers = [str(n + 1) for n in range(len(criterion.matrix.raters))]
        rows = [
            (f"{n} {names[rater]}", *("–" if share is None else f"{100 * share:.0f}" for share in alike))
            for n, rater, alike in zip(numbers, criterion.matrix.raters, criterion.matrix.alike, strict=True)
        ]
        _table(console, ("Alike, in percent", *numbers), rows)
    if criterion.scales is not None:
        alphas = (criterion.scales.ratings, criterion.scales.standardised, criterion.scales.implied)
        told = ["undefined" if one.value is None else f"{one.value:.2f}" for one in alphas]
        _table(console, ("Alpha of ratings", "standardised", "of the order they imply"), [told])
    if criterion.audiences is not None:
        rows = [(_plain(one.name), str(one.people), _share(one.inside)) for one in criterion.audiences.groups]
        _table(console, ("Group", "People", "Alike within"), rows)
        pairs = [
            (
                f"{_plain(one.one)} and {_plain(one.other)}",
                _share(one.alike),
                "–" if one.chance is None else f"{one.chance:.0%}",
                _share(one.differ),
            )
            for one in criterion.audiences.between
        ]
        _table(console, ("Groups", "Alike between", "As low by chance", "Put different answers first"), pairs)
    hard = [
        (prompts.get(one.item, "")[:60], f"{one.agreement:.0%}", f"{one.confidence:.2f}") for one in criterion.hardest
    ]
    _table(console, ("Hardest items", "Alike", "Confidence"), hard)


def _table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Nothing where there are no rows."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _share(share: Share | None) -> str:
    return "–" if share is None else f"{share.value:.0%} of {share.of} ({share.low:.0%} to {share.high:.0%})"


def _plain(text: str) -> str:
    """Without what would move a terminal's cursor or turn the direction of writing."""
    return "".join(one if one.isprintable() else " " for one in text)
