"""How well a project is judged: by whom, how far they agree, since when, on what they do not, and what to do about it.

A measurement is a record that is kept as a snapshot, since it takes seconds where there are many judgments. It holds
ids and no names or texts: what pages show beside an id is looked up when it is shown, so that what was erased is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import func, select

from tuneful.feedback import snapshots
from tuneful.feedback.audiences import FEWEST_PEOPLE, group_sizes, members
from tuneful.feedback.criteria import Criterion, Look, Setting, look_at
from tuneful.feedback.gold import UNKNOWABLE, share_right
from tuneful.feedback.items import candidates
from tuneful.feedback.pace import Pace, paces
from tuneful.feedback.pages import groups_of, guides
from tuneful.feedback.projects import find_project, judgments
from tuneful.feedback.shares import Share, wilson
from tuneful.feedback.standings import Standing
from tuneful.feedback.store import Store
from tuneful.feedback.tables import item, judgment, project
from tuneful.records import Judgment, content_hash
from tuneful.settings import as_table, build

METHOD: Final = "quality/6"
"""Another number when what is measured, or how, changes: a snapshot of another method is not read."""

FEW: Final = 2000
"""Judgments that are measured while somebody waits for the page: rankings of four take 0.6 s."""

ADVICE: Final[Mapping[str, str]] = {
    "inverted": "Ask how they read the scale: 1 is the best. Turned around, what they said still informs.",
    "one criterion swapped": "Show them the criteria side by side with an example of each; try them on known items.",
    "changed": "Go through what changed in the instructions with them, by examples.",
    "ties": "Ask what keeps them from choosing, and say in the instructions when a tie is right.",
    "position": "Ask them to read every answer before they place the first.",
    "length": "Say in the instructions what length is worth; they may have been told to prefer it.",
    "too fast": "Ask whether they read everything; give them known items more often.",
    "random": "Look at some of their judgments together; perhaps the question is not clear to them.",
}
"""What a lead can do about a cause."""

MEANING: Final[Mapping[str, str]] = {
    "reliable": "agrees as people do",
    "unknown": "too little is known",
    "noisy": "agrees less than half as far as others",
    "random": "cannot be told from guessing",
    "inverted": "the other way round",
}
"""A verdict in plain words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A cause why a rater disagrees (feedback.causes), and what to do about it."""

    name: str
    sentence: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One labeler. flagged: the share of judgments with a flag. gold: how much of the known items was right, an item
    counting once; quiz: the same at the beginning, of first words. standings: on each criterion."""

    rater: str
    judgments: int
    flagged: float
    pace: Pace
    gold: Share | None
    quiz: Share | None
    standings: tuple[Standing, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A measurement of a project, or of one group of its people, whose cards and matrices are then left out: what
    somebody says of himself is nobody's business.

    rows: judgments with their revisions at the time, by which a later look knows how many are new; grounds: by which it
    knows whether what they are held against has changed (`grounds`). people: who judged. pace: of all judgments
    together. groups: those that can be looked at alone, and how many of their people judged.
    """

    project: str
    kind: str
    group: str | None
    measured_at: float
    inputs: str
    judgments: int
    rows: int
    grounds: str
    people: int
    pace: Pace
    cards: tuple[Card, ...]
    criteria: tuple[Criterion, ...]
    groups: Mapping[str, int]


def measure(store: Store, project_id: str, *, group: str | None = None, now: float) -> Quality:
    """The quality of a project's judgments as they are now. group: only those of people who say they are of it.

    Raises MissingError when there is no such project, DataError for a group of too few people.
    """
    found = find_project(store, project_id)
    rows, held_against = num_rows(store, found.id), grounds(store, found.id)  # first: what comes meanwhile is new later
    groups, sizes = groups_of(store, found.id), groups_shown(store, found.id)
    said = judgments(store, found.id)
    if group is not None:
        of_group = members({one.rater for one in said}, groups, group)
        said = [one for one in said if one.rater in of_group]
    known = guides(store, found.id)
    offered = candidates(store, found.id)
    texts = {c.id: c.text for one in offered for c in one.completions}
    prompts = {one.prompt.id: one.prompt.text for one in offered}
    versions = [(one.version, one.published_at) for one in known]
    setting = Setting(versions=versions, groups=groups, whole=group is None, texts=texts)
    looks = look_at(found.kind, found.criteria, said, setting)
    pace, by_rater = paces(said, prompts, texts)
    cards: tuple[Card, ...] = ()
    if group is None:
        lengths = {id_: float(len(text)) for id_, text in texts.items()}
        findings = _findings(looks, {one.id: str(one.version) for one in known}, lengths)
        cards = _cards(store, found.id, said, by_rater, looks, findings)
    return Quality(
        project=found.id,
        kind=found.kind,
        group=group,
        measured_at=now,
        inputs=content_hash("judgments", sorted(one.id for one in said)),
        judgments=len(said),
        rows=rows,
        grounds=held_against,
        people=len({one.rater for one in said}),
        pace=pace,
        cards=cards,
        criteria=tuple(look.criterion for look in looks),
        groups=sizes,
    )


def groups_shown(store: Store, project_id: str) -> dict[str, int]:
    """How many of those who judged are of each group, by name; groups of too few people left out."""
    with store.read() as connection:
        judging = select(judgment.c.rater).distinct().where(judgment.c.project == project_id, ~judgment.c.quiz)
        judged = set(connection.execute(judging).scalars())
    sizes = group_sizes(judged, groups_of(store, project_id))
    return {name: size for name, size in sizes.items() if size >= FEWEST_PEOPLE}


def num_rows(store: Store, project_id: str) -> int:
    """Judgments of a project with all their revisions, those of a quiz left out. Rows are only ever added."""
    with store.read() as connection:
        counted = select(func.count()).where(judgment.c.project == project_id, ~judgment.c.quiz)
        return int(connection.execute(counted).scalar_one())


def grounds(store: Store, project_id: str) -> str:
    """A hash of what judgments are held against, and of what is measured beside them: known answers, versions of the
    instructions, how many words of a quiz there are."""
    of_project = (judgment.c.project == project_id, judgment.c.quiz)
    with store.read() as connection:
        known = connection.execute(
            select(item.c.id, item.c.gold).where(item.c.project == project_id, item.c.gold.is_not(None))
        ).all()
        tried = connection.execute(select(func.count()).select_from(judgment).where(*of_project)).scalar_one()
    versions = [(one.id, one.published_at) for one in guides(store, project_id)]
    return content_hash("grounds", {row.id: row.gold for row in known}, versions, tried)


def keep(store: Store, project_id: str, quality: Quality) -> None:
    """Put a measurement beside those before it."""
    snapshots.keep(
        store,
        project_id,
        _snapshot_kind(quality.group),
        method=METHOD,
        judgments=quality.judgments,
        result=as_table(quality),
        inputs=quality.inputs,
        now=quality.measured_at,
    )


def latest(store: Store, project_id: str, *, group: str | None = None) -> Quality | None:
    """The newest measurement that was kept; None when there is none of this method."""
    result = snapshots.latest(store, project_id, _snapshot_kind(group), method=METHOD)
    return None if result is None else build(Quality, result, where="snapshot of quality")


def measure_and_keep(store: Store, project_id: str, *, group: str | None = None, now: float) -> Quality:
    """`measure`, for `latest` to find."""
    done = measure(store, project_id, group=group, now=now)
    keep(store, project_id, done)
    return done


def _snapshot_kind(group: str | None) -> str:
    return "quality" if group is None else f"quality of {group}"


def _findings(
    looks: Sequence[Look], versions: Mapping[str, str], lengths: Mapping[str, float]
) -> dict[str, tuple[Finding, ...]]:
    """By rater. versions: numbers of the instructions by id, which a lead knows them by."""
    from tuneful.feedback.causes import causes

    agreed = {look.criterion.name: look.consensus for look in looks if look.consensus is not None}
    orders = [
        replace(one, instructions=versions.get(one.instructions, one.instructions))
        for look in looks
        for one in look.orders
    ]
    return {
        rater: tuple(Finding(name=one.name, sentence=one.sentence, advice=ADVICE[one.name]) for one in told)
        for rater, told in causes(orders, agreed, lengths).items()
    }


def _cards(
    store: Store,
    project_id: str,
    said: Sequence[Judgment],
    by_rater: Mapping[str, Pace],
    looks: Sequence[Look],
    findings: Mapping[str, tuple[Finding, ...]],
) -> tuple[Card, ...]:
    """Those with a reason to talk to first, then by how much they judged."""
    gold, quiz = _known_items(store, project_id)
    mine: dict[str, list[Judgment]] = {}
    for one in said:
        mine.setdefault(one.rater, []).append(one)
    cards = [
        Card(
            rater=rater,
            judgments=len(about),
            flagged=sum(any(one.flags.values()) for one in about) / len(about),
            pace=by_rater[rater],
            gold=_share(gold.get(rater, ())),
            quiz=_share(quiz.get(rater, ())),
            standings=tuple(look.standings[rater] for look in looks if rater in look.standings),
            findings=findings.get(rater, ()),
        )
        for rater, about in mine.items()
    ]
    return tuple(sorted(cards, key=lambda one: (not _worries(one), -one.judgments, one.rater)))


def _worries(card: Card) -> bool:
    return bool(card.findings) or any(one.verdict in ("inverted", "random") for one in card.standings)


def _known_items(store: Store, project_id: str) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Of gold items, by rater: the shares right in the last words outside the quiz, and in the first words in it.

    Read here, for `judgments` has nothing of gold items that are copies: they are in no consensus, and tell as much of
    a labeler as others.
    """
    later_word = judgment.alias()
    said = (
        select(judgment.c.rater, judgment.c.ranks, judgment.c["values"], item.c.gold)
        .join(item, item.c.id == judgment.c.item)
        .join(project, project.c.id == judgment.c.project)
        .where(judgment.c.project == project_id, item.c.gold.is_not(None), project.c.kind.not_in(UNKNOWABLE))
    )
    last = said.where(~judgment.c.quiz, ~select(later_word.c.id).where(later_word.c.replaces == judgment.c.id).exists())
    # Not IS NULL: SQLite would read all first words of the store.
    first = said.where(judgment.c.quiz, func.coalesce(judgment.c.replaces, "") == "")
    with store.read() as connection:
        rows = [connection.execute(words).mappings().all() for words in (last, first)]
    later, quiz = dict[str, list[float]](), dict[str, list[float]]()
    for words, shares in zip(rows, (later, quiz), strict=True):
        for row in words:
            shares.setdefault(row["rater"], []).append(share_right(row["gold"], row["ranks"], row["values"]))
    return later, quiz


def _share(right: Sequence[float]) -> Share | None:
    return wilson(sum(right) / len(right), len(right)) if right else None
