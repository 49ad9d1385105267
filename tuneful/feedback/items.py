"""Items of a project: a prompt with the completions that are judged side by side, and how many raters are asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, update

from tuneful.errors import StoreError
from tuneful.feedback import trail
from tuneful.feedback.gold import Gold, require_answer
from tuneful.feedback.matchups import keep_unless_known
from tuneful.feedback.store import Store, require_storable, upsert
from tuneful.feedback.tables import completion, item, project, prompt
from tuneful.records import Candidates, Completion, JudgmentKind, Prompt, content_hash

SIZES: Final[Mapping[JudgmentKind, tuple[int, int]]] = {
    "ranking": (2, 9),
    "comparison": (2, 2),
    "binary": (1, 1),
    "rating": (1, 9),
    "demonstration": (0, 9),
}
"""How many completions an item may have, by what is done with it."""

MANY: Final = 50
"""Items that take so long to store that what others write does not wait for the same commit."""

TOLD: Final = 3
"""Gold items of which is told at once what is wrong with them."""

MOST_PRIORITY: Final = 2**31 - 1
"""What a column of whole numbers holds in either database."""

EVERYBODY: Final = 1_000_000
"""The overlap of an item that every labeler is asked."""


def add_gold(store: Store, project_id: str, known: Sequence[Gold], *, by: str | None = None, now: float) -> list[str]:
    """Ids of items whose answer is known. Every labeler is asked each of them once at most.

    One that is there already with the same answer stays as it is. Raises StoreError, and adds none, for an answer that
    no labeler could give (gold.require_answer), and for one whose completions are an item already, or a gold item with
    another answer.
    """
    made = store.write(
        lambda connection: put_gold(connection, project_id, known, by=by, now=now), alone=len(known) > MANY
    )
    return [stored.id for stored in made]


def put_gold(
    connection: Connection, project_id: str, known: Sequence[Gold], *, by: str | None, now: float
) -> list[Stored]:
    """`add_gold` within a transaction, telling of each item whether it is new."""
    of_project = select(project.c.kind, project.c.criteria).where(project.c.id == project_id)
    asks = connection.execute(of_project).one()
    for one in known:
        require_answer(asks.kind, asks.criteria[0], one)
    require_storable_items([one.candidates for one in known])
    answers = [{"ranks": list(one.ranks), "values": dict(one.values), "why": one.why} for one in known]
    row = {"overlap": EVERYBODY, "priority": 0}
    return _put(connection, project_id, [one.candidates for one in known], answers, row, by=by, now=now)


def add_items(
    store: Store,
    project_id: str,
    candidates: Sequence[Candidates],
    *,
    overlap: int,
    priority: int = 0,
    by: str | None = None,
    now: float,
) -> list[str]:
    """Ids of new items, one for each prompt with its completions, to be judged by `overlap` raters each.

    priority: higher ones are asked first; from -MOST_PRIORITY to MOST_PRIORITY.

    All of them or none. An item that is there already, with the same completions, is left as it is; where other models
    gave them, what is said of it counts for these too (feedback.matchups). Completions that are equal to each other are
    asked about as they stand; those of a job are not (jobs.deliver).
    """
    made = put_items(store, project_id, candidates, overlap=overlap, priority=priority, by=by, now=now)
    return [stored.id for stored in made]


def put_items(
    store: Store,
    project_id: str,
    candidates: Sequence[Candidates],
    *,
    overlap: int,
    priority: int = 0,
    by: str | None = None,
    now: float,
) -> list[Stored]:
    """What `add_items` does, telling of each item whether it is new."""
    if abs(priority) > MOST_PRIORITY:
        raise StoreError(f"priority {priority}: give a number from -{MOST_PRIORITY} to {MOST_PRIORITY}")
    require_storable_items(candidates)
    row, known = {"overlap": overlap, "priority": priority}, [None] * len(candidates)
    return store.write(
        lambda connection: _put(connection, project_id, candidates, known, row, by=by, now=now),
        alone=len(candidates) > MANY,
    )


def _put(
    connection: Connection,
    project_id: str,
    candidates: Sequence[Candidates],
    gold: Sequence[Mapping[str, Any] | None],
    row: Mapping[str, Any],
    *,
    by: str | None,
    now: float,
) -> list[Stored]:
    first = next_position(connection, project_id)
    made, seen, wrong = list[Stored](), Counter[str](), list[str]()
    for place, (given, known) in enumerate(zip(candidates, gold, strict=True)):
        stored = put_item(connection, project_id, given, {**row, "position": first + place}, now=now)
        if known is not None:
            wrong += _put_gold(connection, given, stored, known)
        else:
            keep_unless_known(connection, project_id, given, stored.id, stored.completions, seen, now=now)
        made.append(stored)
    if wrong:
        raise StoreError("; ".join(wrong[:TOLD]) + (f"; and {len(wrong) - TOLD} more" if len(wrong) > TOLD else ""))
    about = {
        **row,
        "items": sum(stored.is_new for stored in made),
        "gold": sum(known is not None and stored.is_new for stored, known in zip(made, gold, strict=True)),
        "hash": content_hash([stored.id for stored in made], gold),
    }
    if about["items"]:
        trail.add(connection, "items added", project=project_id, rater=by, about=about, now=now)
    return made


def _put_gold(connection: Connection, given: Candidates, stored: Stored, known: Mapping[str, Any]) -> list[str]:
    """The known answer, in the stored order and under the stored ids; what is wrong with it beside what is there."""
    here = connection.execute(select(item.c.completions, item.c.gold).where(item.c.id == stored.id)).one()
    ids = dict(zip((one.id for one in given.completions), stored.completions, strict=True))
    ranks = dict(zip(stored.completions, known["ranks"], strict=True)) if known["ranks"] else {}
    answer = {
        "ranks": [ranks[one] for one in here.completions] if ranks else [],
        "values": {ids.get(name, name): value for name, value in known["values"].items()},
    }
    if stored.is_new:
        connection.execute(update(item).where(item.c.id == stored.id).values(gold={**known, **answer}))
        return []
    shown = f"prompt {given.prompt.text[:40]!a}"
    if here.gold is None:
        return [f"{shown}: is an item already; a gold item is one of its own"]
    if any(here.gold.get(name) != said for name, said in answer.items()):
        return [f"{shown}: is a gold item already, with another answer; change that on its page"]
    return []


def may_be_bare(kind: JudgmentKind) -> bool:
    """Whether an item may be a prompt alone."""
    return SIZES[kind][0] == 0


def require_fits(kind: JudgmentKind, given: Candidates) -> None:
    """StoreError for an item with more or fewer completions than can be judged so, or a text that cannot be stored."""
    least, most = SIZES[kind]
    size = len(given.completions)
    if not least <= size <= most:
        asked = f"{least}" if least == most else f"{least} to {most}"
        shown, named = ascii(given.prompt.text[:40]), "0/1 judgment" if kind == "binary" else kind
        raise StoreError(f"prompt {shown}: has {size} {_plural(size)}; a {named} is of {asked} {_plural(most)}")
    require_storable_items([given])


def _plural(number: int) -> str:
    return "completion" if number == 1 else "completions"


def require_storable_items(candidates: Sequence[Candidates]) -> None:
    """StoreError for a text that a database cannot hold."""
    for one in candidates:
        shown = ascii(one.prompt.text[:40])
        require_storable(one.prompt.text, f"prompt {shown}")
        for number, answer in enumerate(one.completions, start=1):
            require_storable(answer.text, f"completion {number} of prompt {shown}")


def next_position(connection: Connection, project_id: str) -> int:
    """The place of the next new item of a project."""
    last = select(func.coalesce(func.max(item.c.position) + 1, 0)).where(item.c.project == project_id)
    return int(connection.execute(last).scalar_one())


@dataclass(frozen=True, slots=True)
class Stored:
    """An item of the store, its completions' ids in the order of the candidates, and whether it is new."""

    id: str
    completions: tuple[str, ...]
    is_new: bool


def put_item(
    connection: Connection,
    project_id: str,
    given: Candidates,
    row: Mapping[str, Any],
    *,
    wanted: str = "",
    keep_ids: bool = False,
    beside_gold: bool = False,
    settings: Mapping[str, Any] | None = None,
    now: float,
) -> Stored:
    """The item that asks about these completions; one that does already, in whatever order, is left as it is.

    Whoever gave the texts, to ask about them once is enough: matchups remember who did (feedback.matchups).
    settings: how the completions were sampled. beside_gold: a gold item, which says nothing of models, does not do.
    wanted, keep_ids: the item's id and those of the completions stay what they were elsewhere, where they are free.
    Otherwise they are hashes: an id such as "gpt-17" would tell labelers whose answer it is.
    """
    texts = [one.text for one in given.completions]
    plain = content_hash("item", project_id, given.prompt.id, sorted(texts))
    for id_ in dict.fromkeys((wanted or plain, plain, content_hash("beside gold", plain))):
        found = connection.execute(select(item).where(item.c.id == id_)).first()
        if found is None:
            break
        if (found.project, found.prompt) == (project_id, given.prompt.id):
            ids = _ids_by_text(connection, found.completions, texts)
            if ids is not None and not (beside_gold and found.gold is not None):
                return Stored(id_, ids, is_new=False)
    shared: dict[str, Any] = {"project": project_id, "created_at": now}
    put_prompts(connection, project_id, [given.prompt], now=now)
    hashes = [content_hash("completion", id_, number, text) for number, text in enumerate(texts)]
    ids = _free_ids(connection, [one.id for one in given.completions], hashes) if keep_ids else tuple(hashes)
    about: dict[str, Any] = {"prompt": given.prompt.id, "settings": dict(settings or {})} | shared
    answers = [
        about | {"id": one_id, "text": one.text, "model": one.model}
        for one_id, one in zip(ids, given.completions, strict=True)
    ]
    if answers:
        connection.execute(insert(completion), answers)
    connection.execute(insert(item).values(**row, id=id_, prompt=given.prompt.id, completions=list(ids), **shared))
    return Stored(id_, ids, is_new=True)


def put_prompts(connection: Connection, project_id: str, prompts: Sequence[Prompt], *, now: float) -> None:
    """Prompts of a project; those that are there already are left as they are."""
    shared = {"project": project_id, "created_at": now}
    rows = [{"id": one.id, "content": one.as_json()} | shared for one in prompts]
    connection.execute(upsert(connection, prompt).on_conflict_do_nothing(), rows)


def _ids_by_text(connection: Connection, ids: Sequence[str], texts: Sequence[str]) -> tuple[str, ...] | None:
    """The ids of stored completions in the order of `texts`; None when these are not their texts."""
    rows = connection.execute(select(completion.c.id, completion.c.text).where(completion.c.id.in_(ids))).all()
    left: dict[str, list[str]] = {}
    for row in rows:
        left.setdefault(row.text, []).append(row.id)
    if len(rows) != len(texts) or any(texts.count(text) != len(found) for text, found in left.items()):
        return None
    return tuple(left[text].pop(0) for text in texts)


def _free_ids(connection: Connection, wanted: Sequence[str], hashes: Sequence[str]) -> tuple[str, ...]:
    """Each wanted id, or the hash where it is empty or taken."""
    taken = set(connection.execute(select(completion.c.id).where(completion.c.id.in_(wanted))).scalars())
    return tuple(hashed if id_ in taken or not id_ else id_ for id_, hashed in zip(wanted, hashes, strict=True))


def candidates(store: Store, project_id: str) -> list[Candidates]:
    """The items of a project with their prompts and completions, in order, gold ones too."""
    asked = select(item, prompt.c.content).join(
        prompt, (prompt.c.id == item.c.prompt) & (prompt.c.project == project_id)
    )
    with store.read() as connection:
        items = connection.execute(asked.where(item.c.project == project_id).order_by(item.c.position)).all()
        answers = connection.execute(select(completion).where(completion.c.project == project_id)).all()
    found = {row.id: Completion(row.text, model=row.model, id=row.id) for row in answers}
    return [Candidates(Prompt.from_json(row.content), tuple(found[one] for one in row.completions)) for row in items]


def texts_of(store: Store, project_id: str) -> dict[str, str]:
    """The text of each completion of a project, by id."""
    asked = select(completion.c.id, completion.c.text).where(completion.c.project == project_id)
    with store.read() as connection:
        return {row.id: row.text for row in connection.execute(asked)}
