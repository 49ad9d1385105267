"""Which models met in which answers: what a win rate is computed over.

An item asks about texts once, however often and by whomever they were said, for nobody should judge the same answers
twice. Each time that models say them is a matchup of its own nevertheless, and what people say of the item counts for
it: else the models' usual answers would count as little as their rare ones (docs/decisions/0014).

The first matchup of an item is in its completions. The table `matchup` has the others: of texts that an item asked
about already, and of a job's answers that all read the same, about which nobody is asked.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select

from tuneful.feedback.store import Store, upsert
from tuneful.feedback.tables import completion, item, matchup
from tuneful.records import Candidates, Completion, content_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Matchup:
    """One answer of each of some models to a prompt.

    item: that asks which is better; None when the answers read the same, so that none is. completions: their ids in the
    item, none where there is no item. models: who gave each; None where nobody is named.
    """

    prompt: str
    item: str | None
    completions: tuple[str, ...]
    models: tuple[str | None, ...]


def matchups(store: Store, project_id: str) -> list[Matchup]:
    """All of a project but those of gold items, which were chosen."""
    is_asked = (item.c.project == project_id, item.c.gold.is_(None))
    made = select(completion.c.id, completion.c.model).where(
        completion.c.project == project_id, completion.c.model.is_not(None)
    )
    further = (
        select(matchup.c.prompt, matchup.c.item, matchup.c.completions, matchup.c.models)
        .outerjoin(item, item.c.id == matchup.c.item)
        .where(matchup.c.project == project_id, or_(matchup.c.item.is_(None), item.c.gold.is_(None)))
        .order_by(matchup.c.created_at, matchup.c.id)
    )
    with store.read() as connection:
        items = connection.execute(select(item.c.id, item.c.prompt, item.c.completions).where(*is_asked)).all()
        model = {row.id: row.model for row in connection.execute(made)}
        again = connection.execute(further).all()
    first = [(row.prompt, row.id, row.completions, [model.get(one) for one in row.completions]) for row in items]
    return [
        Matchup(prompt=prompt, item=asked, completions=tuple(ids), models=tuple(models))
        for prompt, asked, ids, models in [*first, *again]
    ]


def num_matchups(store: Store, project_id: str) -> int:
    """How many matchups a project has, each item having a first one."""
    items = select(func.count()).select_from(item).where(item.c.project == project_id)
    further = select(func.count()).select_from(matchup).where(matchup.c.project == project_id)
    with store.read() as connection:
        return sum(int(connection.execute(counted).scalar_one()) for counted in (items, further))


def read_alike(completions: Sequence[Completion]) -> bool:
    """Whether there are several answers and all are the same text."""
    return len(completions) > 1 and len({one.text for one in completions}) == 1


def keep(
    connection: Connection,
    project_id: str,
    given: Candidates,
    item_id: str | None = None,
    ids: Sequence[str] = (),
    *,
    now: float,
) -> None:
    """One more matchup of an item, or, without one, of answers that read the same.

    ids: of the item's completions, in the order of the candidates.
    """
    row = {"id": str(uuid.uuid4()), "item": item_id, "completions": list(ids), **_shared(project_id, given, now)}
    connection.execute(insert(matchup).values(**row))


def keep_unless_known(
    connection: Connection,
    project_id: str,
    given: Candidates,
    item_id: str,
    ids: Sequence[str],
    seen: Counter[str],
    *,
    now: float,
) -> None:
    """A matchup that a file holds. One that comes n times in the file is there n times, however often it is read.

    seen: of this reading, how often each came so far.
    """
    answers = [(one.text, one.model) for one in given.completions]
    if not any(model for _, model in answers):
        return
    key = content_hash("matchup", project_id, item_id, _in_order(answers))
    number = seen[key]
    seen[key] += 1
    if number == 0:
        stored = connection.execute(select(completion.c.text, completion.c.model).where(completion.c.id.in_(ids)))
        if _in_order([(row.text, row.model) for row in stored]) == _in_order(answers):
            return
    row = {"id": content_hash(key, number), "item": item_id, "completions": list(ids)}
    connection.execute(
        upsert(connection, matchup).values(**row, **_shared(project_id, given, now)).on_conflict_do_nothing()
    )


def _shared(project_id: str, given: Candidates, now: float) -> dict[str, Any]:
    models = [one.model for one in given.completions]
    return {"project": project_id, "prompt": given.prompt.id, "models": models, "created_at": now}


def _in_order(answers: Sequence[tuple[str, str | None]]) -> list[tuple[str, str]]:
    return sorted((text, model or "") for text, model in answers)
