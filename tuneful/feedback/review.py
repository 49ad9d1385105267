"""What a lead looks at: the items of a project in pages, one of them with all that was said of it, the gold ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Text, cast, func, select, true

from tuneful.errors import MissingError
from tuneful.feedback.decisions import gold_copy
from tuneful.feedback.gold import share_right
from tuneful.feedback.store import Store
from tuneful.feedback.tables import (
    assignment,
    completion,
    decision,
    instructions,
    item,
    judgment,
    project,
    prompt,
    rater,
)
from tuneful.records import Message, Prompt

Show = Literal["unsure", "decided", "flagged", "gold", "all"]

PAGE: Final = 50
"""Items on a page of the table."""

UNSURE: Final = 0.1
"""From this doubt on an item is one of the unsure."""

BEGINNING: Final = 160
"""Characters of a prompt that stand in a table."""

FEW: Final = 3
"""With fewer answers to a gold item nothing is said of the item itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An item in the table. flagged: judgments with a flag. doubt: None where nobody has judged or nothing tells it."""

    item: str
    prompt: str
    submitted: int
    overlap: int
    doubt: float | None
    flagged: int
    decided: bool
    gold: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What one rater said, in the last revision. ranks: in the order of the item's answers. version: of the
    instructions, where it is one of the project's. revised: whether it replaces an earlier word."""

    rater: str
    kind: str
    ranks: Sequence[int | None]
    flags: Mapping[str, Sequence[str]]
    values: Mapping[str, float]
    text: str
    note: str
    seconds: float | None
    version: int | None
    at: float
    counted: bool
    quiz: bool
    revised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    id: str
    text: str
    model: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One item. gold: its known answer. copy: the gold item that was made of it. skips: (rater, reason)."""

    id: str
    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...]
    submitted: int
    overlap: int
    gold: Mapping[str, Any] | None
    copy: str | None
    words: tuple[Word, ...]
    skips: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A gold item with its results: first words of people, how many got it right, and the mean share that was right.

    doubtful: more than half of at least `FEW` got it wrong; then rather its answer is wrong than they are.
    """

    item: str
    prompt: str
    asked: int
    right: int
    share: float | None
    doubtful: bool


def lines(
    store: Store, project_id: str, show: Show, doubts: Mapping[str, float], *, page: int = 1
) -> tuple[list[Line], int]:
    """A page of the items, and how many there are on all pages.

    The unsure come in the order of their doubt, without gold and decided items; others in their own order.
    """
    first = (page - 1) * PAGE
    with store.read() as connection:
        if show == "unsure":
            settled = set(connection.execute(select(decision.c.item).where(decision.c.project == project_id)).scalars())
            settled |= set(connection.execute(select(item.c.id).where(*_chosen(project_id, "gold"))).scalars())
            unsure = [name for name, doubt in doubts.items() if doubt >= UNSURE and name not in settled]
            ids = sorted(unsure, key=lambda name: (-doubts[name], name))
            return _lines(connection, ids[first : first + PAGE], doubts), len(ids)
        chosen = _chosen(project_id, show)
        total = connection.execute(select(func.count()).select_from(item).where(*chosen)).scalar_one()
        page_of = select(item.c.id).where(*chosen).order_by(item.c.position, item.c.id).limit(PAGE).offset(first)
        return _lines(connection, list(connection.execute(page_of).scalars()), doubts), int(total)


def _chosen(project_id: str, show: Show) -> tuple[Any, ...]:
    mine = item.c.project == project_id
    if show == "decided":
        return mine, item.c.id.in_(select(decision.c.item).where(decision.c.project == project_id))
    if show == "flagged":
        return mine, item.c.id.in_(select(judgment.c.item).where(judgment.c.project == project_id, _has_flags()))
    return mine, item.c.gold.is_not(None) if show == "gold" else true()


def _has_flags() -> Any:
    return cast(judgment.c.flags, Text) != "{}"


def _lines(connection: Connection, ids: Sequence[str], doubts: Mapping[str, float]) -> list[Line]:
    """In the order of the ids."""
    rows = connection.execute(
        select(item, prompt.c.content)
        .join(prompt, (prompt.c.id == item.c.prompt) & (prompt.c.project == item.c.project))
        .where(item.c.id.in_(ids))
    ).all()
    flags = select(judgment.c.item, func.count()).where(judgment.c.item.in_(ids), _has_flags())
    flagged = {row[0]: row[1] for row in connection.execute(flags.group_by(judgment.c.item))}
    decided = set(connection.execute(select(decision.c.item).where(decision.c.item.in_(ids))).scalars())
    place = {name: number for number, name in enumerate(ids)}
    return [
        Line(
            item=row.id,
            prompt=_beginning(row.content),
            submitted=row.submitted,
            overlap=row.overlap,
            doubt=doubts.get(row.id),
            flagged=flagged.get(row.id, 0),
            decided=row.id in decided,
            gold=row.gold is not None,
        )
        for row in sorted(rows, key=lambda row: place[row.id])
    ]


def _beginning(content: Any) -> str:
    text = Prompt.from_json(content).text
    return text if len(text) <= BEGINNING else f"{text[:BEGINNING]}…"


def look(store: Store, project_id: str, item_id: str) -> Look:
    """An item of the project with all that was said of it. Raises MissingError when the project has no such item."""
    with store.read() as connection:
        row = connection.execute(
            select(item, prompt.c.content)
            .join(prompt, (prompt.c.id == item.c.prompt) & (prompt.c.project == item.c.project))
            .where(item.c.id == item_id, item.c.project == project_id)
        ).first()
        if row is None:
            raise MissingError(f'item "{item_id}": the project has none of that id')
        texts = connection.execute(select(completion).where(completion.c.id.in_(row.completions))).all()
        copy = connection.execute(select(item.c.id).where(item.c.id == gold_copy(item_id))).scalar()
        skips = connection.execute(
            select(assignment.c.rater, assignment.c.reason)
            .where(assignment.c.item == item_id, assignment.c.state == "skipped")
            .order_by(assignment.c.created_at, assignment.c.id)
        ).all()
        words = _words(connection, item_id)
    answers = {one.id: Answer(id=one.id, text=one.text, model=one.model) for one in texts}
    asked = Prompt.from_json(row.content).content
    return Look(
        id=row.id,
        prompt=(Message("user", asked),) if isinstance(asked, str) else asked,
        answers=tuple(answers[one] for one in row.completions),
        submitted=row.submitted,
        overlap=row.overlap,
        gold=row.gold,
        copy=copy,
        words=words,
        skips=tuple((one.rater, one.reason) for one in skips),
    )


def _words(connection: Connection, item_id: str) -> tuple[Word, ...]:
    later = judgment.alias()
    rows = connection.execute(
        select(judgment, rater.c.kind, instructions.c.version)
        .join(rater, rater.c.id == judgment.c.rater)
        .outerjoin(instructions, instructions.c.id == judgment.c.instructions)
        .where(judgment.c.item == item_id)
        .where(~select(later.c.id).where(later.c.replaces == judgment.c.id).exists())
        .order_by(judgment.c.created_at, judgment.c.id)
    ).mappings()
    return tuple(
        Word(
            rater=row["rater"],
            kind=row["kind"],
            ranks=row["ranks"],
            flags=row["flags"],
            values=row["values"],
            text=row["text"],
            note=row["note"],
            seconds=row["seconds"],
            version=row["version"],
            at=row["created_at"],
            counted=row["counted"],
            quiz=row["quiz"],
            revised=row["replaces"] is not None,
        )
        for row in rows
    )


def known_items(store: Store, project_id: str) -> list[Known]:
    """The gold items of a project with their results, in their order.

    Only first words count, for in the quiz the answer is told after it. Right is what the quiz would pass.
    """
    asked = (
        select(item.c.id, item.c.gold, prompt.c.content)
        .join(prompt, (prompt.c.id == item.c.prompt) & (prompt.c.project == item.c.project))
        .where(*_chosen(project_id, "gold"))
        .order_by(item.c.position, item.c.id)
    )
    said = (
        select(judgment.c.item, judgment.c.ranks, judgment.c["values"])
        .where(judgment.c.item.in_(select(item.c.id).where(*_chosen(project_id, "gold"))))
        .where(func.coalesce(judgment.c.replaces, "") == "")  # not IS NULL: SQLite would read the whole store's
    )
    with store.read() as connection:
        items = connection.execute(asked).all()
        words = connection.execute(said).mappings().all()
        passes = connection.execute(select(project.c.pass_share).where(project.c.id == project_id)).scalar_one()
    answers = {row.id: row.gold for row in items}
    shares: dict[str, list[float]] = {name: [] for name in answers}
    for word in words:
        shares[word["item"]].append(share_right(answers[word["item"]], word["ranks"], word["values"]))
    return [_known(row.id, _beginning(row.content), shares[row.id], passes) for row in items]


def _known(item_id: str, beginning: str, shares: Sequence[float], passes: float) -> Known:
    right = sum(share >= passes for share in shares)
    return Known(
        item=item_id,
        prompt=beginning,
        asked=len(shares),
        right=right,
        share=sum(shares) / len(shares) if shares else None,
        doubtful=len(shares) >= FEW and 2 * right < len(shares),
    )
