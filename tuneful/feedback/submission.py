"""Judgments coming in: stored once, counted while there is room, revised by another row, and answered after the commit.

What a labeler says of a known item in the quiz is answered with what was right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, permutations
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update

from tuneful.errors import AccessError, ConflictError, StoreError
from tuneful.feedback.assignment import has_room, lock_item
from tuneful.feedback.gold import share_right
from tuneful.feedback.quiz import standing, try_to_pass
from tuneful.feedback.store import Store, require_storable
from tuneful.feedback.tables import assignment, draft, instructions, item, judgment, membership, project, rater
from tuneful.records import JudgmentKind

ORDERED: Final = ("ranking", "comparison")
"""Kinds of judgments that have ranks."""

LAST_RANK: Final = 1000

POINTS: Final = range(1, 8)
"""What an answer is rated with."""

DEGREES: Final = range(1, 4)
"""How sure a rater is (`confidence`: a guess, fairly, quite), and how much better an answer is (`strength`: slightly,
plainly, much)."""

_NEEDED: Final[Mapping[JudgmentKind, str]] = {
    "ranking": "a ranking has ranks",
    "comparison": "a comparison has ranks",
    "binary": "a 0/1 judgment has values",
    "rating": "a rating has values",
    "demonstration": "a demonstration has a text",
}

_PAIRS: Final = 'and what a model gives to a of two answers that it saw in this order, "a>b", from 0 to 1'

_TAKEN: Final[Mapping[JudgmentKind, str]] = {
    "ranking": f'a ranking takes points from 1 to 7 by answer, "confidence" from 1 to 3, {_PAIRS}',
    "comparison": f'a comparison takes "strength" and "confidence" from 1 to 3, "both_bad" of 1, {_PAIRS}',
    "binary": "a 0/1 judgment takes 0 or 1 by criterion",
    "rating": "a rating takes points from 1 to 7 by answer",
    "demonstration": "a demonstration takes a text and no values",
}
"""Which values a judgment may hold, by its kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a rater said of an item; `id` is made by the client, so that saying it twice is saying it once.

    ranks, in the order in which the item stores its completions: 1 is best, equal numbers tie, None was not ranked.
    text: what the rater wrote, a demonstration. criterion: None for the project's own. replaces: the judgment that this
    one revises.
    """

    id: str
    ranks: tuple[int | None, ...] = ()
    flags: Mapping[str, tuple[str, ...]]
    values: Mapping[str, float]
    text: str = ""
    criterion: str | None = None
    instructions: str | None = None
    note: str = ""
    seconds: float | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What a labeler learns from an item of the quiz: the share that was right, the known answer, why it is that, and
    whether the quiz is passed now."""

    right: float
    gold: Mapping[str, Any]
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a judgment. counted: within the item's overlap, as a model's never is. late: its lease was over.
    again: it had been stored before, and this is the same answer once more. feedback: only in the quiz."""

    judgment: str
    counted: bool
    late: bool
    again: bool
    feedback: Feedback | None = None


# Built once, as in `assignment`.
_GIVEN: Final = (
    select(
        assignment,
        item.c.project,
        item.c.completions,
        item.c.gold,
        project.c.kind,
        project.c.criteria,
        membership.c.role,
        (rater.c.kind == "ai").label("is_ai"),
    )
    .join(item, item.c.id == assignment.c.item)
    .join(project, project.c.id == item.c.project)
    .outerjoin(membership, and_(membership.c.project == item.c.project, membership.c.rater == assignment.c.rater))
    .join(rater, rater.c.id == assignment.c.rater)
    .where(assignment.c.id == bindparam("assignment"), assignment.c.rater == bindparam("rater"))
    .with_for_update(of=assignment)
)

_STORED: Final = select(judgment).where(judgment.c.id == bindparam("judgment"))

_SET_STATE: Final = update(assignment).where(assignment.c.id == bindparam("place")).values(state=bindparam("now_is"))

_ADD_JUDGMENT: Final = insert(judgment)

_FORGET_DRAFTS: Final = delete(draft).where(
    draft.c.assignment.in_(
        select(assignment.c.id).where(assignment.c.item == bindparam("item"), assignment.c.rater == bindparam("rater"))
    )
)


def submit(store: Store, assignment_id: str, rater_id: str, said: Said, *, now: float) -> Receipt:
    """Store a judgment. The same id again gives the same receipt, `again` apart, and changes nothing.

    Raises StoreError for an assignment of somebody else, a judgment that does not fit the item, and a revision of what
    has been revised; ConflictError for an id that means another judgment already, or says something else than before.
    """

    def work(connection: Connection) -> Receipt:
        _lock_standing(connection, assignment_id, rater_id)
        # Held until the end, so that the same word said twice at once is stored by one of the two.
        given = connection.execute(_GIVEN, {"assignment": assignment_id, "rater": rater_id}).first()
        stored = connection.execute(_STORED, {"judgment": said.id}).first()
        if stored is not None:
            if given is None or (stored.item, stored.rater) != (given.item, rater_id):
                raise ConflictError(f'judgment "{said.id}": the id belongs to another one; make a new UUID')
            _require_same(said, given, stored)
            learned = _learned(connection, given, stored) if stored.quiz else None
            return Receipt(judgment=said.id, counted=stored.counted, late=stored.late, again=True, feedback=learned)
        if given is None:
            raise AccessError(f'assignment "{assignment_id}": not one of rater "{rater_id}"')
        if given.role is None:
            raise AccessError("you are no member of this project any more; ask its lead")
        _require_instructions(connection, said, given.project)
        _require_fit(said, given.kind, given.completions, given.criteria)
        criterion = _criterion(said, given.criteria)
        late = not given.is_ai and (given.state == "released" or (given.state == "live" and given.lease_until <= now))
        place, state = _stands_for(connection, given)
        judged = state in ("submitted", "surplus")
        replaces = _latest(connection, place) if judged else None
        if said.replaces not in (None, replaces):
            latest = "there is none yet" if replaces is None else f'the latest is "{replaces}"'
            raise StoreError(f'judgment "{said.id}": it revises "{said.replaces}", but {latest}')
        quiz = _in_quiz(connection, given, replaces)
        counted = state == "submitted"
        if not judged and not given.is_ai:
            counted = _take_place(connection, given.item, place, now)
        if not judged:
            now_is = "submitted" if counted else "surplus"
            connection.execute(_SET_STATE, {"place": place, "now_is": now_is})
        row = {
            "id": said.id,
            "project": given.project,
            "item": given.item,
            "rater": rater_id,
            "assignment": place,
            **_content(said, given),
            "criterion": criterion,
            "shown_order": given.shown_order,
            "instructions": said.instructions or given.instructions,
            "seconds": said.seconds,
            "late": late,
            "counted": counted,
            "quiz": quiz,
            "replaces": replaces,
            "created_at": now,
        }
        connection.execute(_ADD_JUDGMENT, row)
        connection.execute(_FORGET_DRAFTS, {"item": given.item, "rater": rater_id})
        learned = _learn(connection, given, said, now) if quiz else None
        return Receipt(judgment=said.id, counted=counted, late=late, again=False, feedback=learned)

    return store.write(work)


def _content(said: Said, given: Any) -> dict[str, Any]:
    """What a rater says, as the row of a judgment holds it."""
    return {
        "ranks": list(said.ranks or [None] * len(given.completions)) if given.kind in ORDERED else [],
        "flags": {name: list(flags) for name, flags in said.flags.items()},
        "values": dict(said.values),
        "text": said.text,
        "note": said.note,
    }


def _require_same(said: Said, given: Any, stored: Any) -> None:
    """ConflictError where the judgment of this id says something else. How long it took is not what it says: whoever
    sends it again may have measured again. What was left out was filled in and may be left out again."""
    meant = _content(said, given)
    meant |= {name: getattr(said, name) for name in ("instructions", "replaces") if getattr(said, name) is not None}
    other = [name for name, value in meant.items() if stored._mapping[name] != value]
    if other:
        raise ConflictError(
            f'judgment "{said.id}": is stored already, with other {" and ".join(other)}, and stays as it is; to revise '
            "it send a new UUID"
        )


def _stands_for(connection: Connection, given: Any) -> tuple[str, str]:
    """Id and state of the assignment that holds the rater's place on the item: of one that was released and claimed
    again the new one, so that work sent late under the old one finds its place."""
    if given.state != "released":
        return given.id, given.state
    again = connection.execute(
        select(assignment.c.id, assignment.c.state)
        .where(assignment.c.item == given.item, assignment.c.rater == given.rater, assignment.c.state != "released")
        .with_for_update()
    ).first()
    return (given.id, given.state) if again is None else (again.id, again.state)


_ONE_MORE: Final = update(item).where(item.c.id == bindparam("which")).values(submitted=item.c.submitted + 1)


def _take_place(connection: Connection, item_id: str, assignment_id: str, now: float) -> bool:
    """One more judgment towards the item's overlap, if there is room for it."""
    lock_item(connection, item_id)
    if not has_room(connection, item_id, assignment_id, now):
        return False
    connection.execute(_ONE_MORE, {"which": item_id})
    return True


def _latest(connection: Connection, assignment_id: str) -> str:
    """The judgment of this assignment that no other one replaces."""
    later = judgment.alias()
    return str(
        connection.execute(
            select(judgment.c.id).where(
                judgment.c.assignment == assignment_id,
                ~select(later.c.id).where(later.c.replaces == judgment.c.id).exists(),
            )
        ).scalar_one()
    )


_GOLD: Final = (
    select(item.c.gold, item.c.project)
    .join(assignment, assignment.c.item == item.c.id)
    .where(assignment.c.id == bindparam("assignment"), assignment.c.rater == bindparam("rater"))
)


def _lock_standing(connection: Connection, assignment_id: str, rater_id: str) -> None:
    """A gold item reads and changes the rater's standing: it is locked before the assignment, as in a claim."""
    given = connection.execute(_GOLD, {"assignment": assignment_id, "rater": rater_id}).first()
    if given is not None and given.gold is not None:
        standing(connection, given.project, rater_id)


def _in_quiz(connection: Connection, given: Any, replaces: str | None) -> bool:
    """Whether the word is one of the quiz: it revises one that is, or is said of a gold item before that is passed."""
    if replaces is not None:
        return bool(connection.execute(select(judgment.c.quiz).where(judgment.c.id == replaces)).scalar_one())
    return given.gold is not None and not standing(connection, given.project, given.rater).passed


def _learn(connection: Connection, given: Any, said: Said, now: float) -> Feedback:
    """After a judgment in the quiz: what was right, and whether the last ones are enough to pass."""
    tried = standing(connection, given.project, given.rater)
    passed = try_to_pass(connection, given.project, given.rater, tried, now)
    return Feedback(right=share_right(given.gold, said.ranks, said.values), gold=given.gold, passed=passed)


def _learned(connection: Connection, given: Any, stored: Any) -> Feedback:
    """What `_learn` said of a judgment that is stored already."""
    passed = standing(connection, given.project, given.rater).passed
    return Feedback(
        right=share_right(given.gold, stored.ranks, stored._mapping["values"]), gold=given.gold, passed=passed
    )


_KNOWN_INSTRUCTIONS: Final = select(instructions.c.id).where(
    instructions.c.id == bindparam("instructions"), instructions.c.project == bindparam("project")
)


def _require_instructions(connection: Connection, said: Said, project_id: str) -> None:
    if said.instructions is None:
        return
    version = {"instructions": said.instructions, "project": project_id}
    if connection.execute(_KNOWN_INSTRUCTIONS, version).first() is None:
        raise StoreError(f'judgment "{said.id}": "{said.instructions}" are no instructions of its project')


def _criterion(said: Said, criteria: Sequence[str]) -> str:
    """By what it judges. StoreError for what the project does not ask."""
    if said.criterion is not None and said.criterion not in criteria:
        asked = ", ".join(f'"{one}"' for one in criteria)
        raise StoreError(f'judgment "{said.id}": by "{said.criterion}", and its project asks by {asked}')
    return said.criterion or criteria[0]


def _require_fit(said: Said, kind: JudgmentKind, completions: list[str], criteria: list[str]) -> None:
    """StoreError for a judgment that no file could hold or no consensus could read."""
    named = f'judgment "{said.id}"'
    if said.ranks and len(said.ranks) != len(completions):
        raise StoreError(f"{named}: {len(said.ranks)} ranks for {len(completions)} completions")
    if not all(rank is None or 1 <= rank <= LAST_RANK for rank in said.ranks):
        raise StoreError(f"{named}: a rank is a number from 1 (best) to {LAST_RANK}, or none")
    for name, flags in said.flags.items():
        if name not in completions:
            raise StoreError(f'{named}: flags for "{name}", which is no completion of the item')
        if not flags or not all(flags):
            raise StoreError(f"{named}: a flag without a name; leave it out")
    _require_values(said, kind, completions, criteria)
    for text in (said.text, said.note, *said.values, *chain(*said.flags.values())):
        require_storable(text, named)
    ranked = any(rank is not None for rank in said.ranks)
    says = {"ranking": ranked, "comparison": ranked, "demonstration": bool(said.text.strip())}
    if not says.get(kind, bool(said.values)) and not said.flags:
        raise StoreError(f"{named}: it says nothing; {_NEEDED[kind]}")
    left = _left_out(said, kind, completions)
    if left:
        what = "rating" if kind == "rating" else "rank"
        which = ", ".join(f'"{one}"' for one in left)
        raise StoreError(f"{named}: no {what} for {which}; give one to each answer, or flag what cannot be rated")


def _require_values(said: Said, kind: JudgmentKind, completions: Sequence[str], criteria: Sequence[str]) -> None:
    """StoreError for a value that the kind does not take, or that says nothing beside the ranks."""
    named = f'judgment "{said.id}": values'
    for name, value in said.values.items():
        fits = _fits(name, value, kind, completions, criteria)
        if fits is None:
            raise StoreError(f'{named}: "{name}" is not asked for; {_TAKEN[kind]}')
        if not fits:
            raise StoreError(f'{named}: {value:g} for "{name}"; {_TAKEN[kind]}')
    if kind == "binary" and criteria[0] not in said.values and not said.flags:
        raise StoreError(f'{named}: nothing for "{criteria[0]}"; {_TAKEN[kind]}')
    ranks = {*said.ranks}
    if "strength" in said.values and (len(ranks) < 2 or None in ranks):
        raise StoreError(f'{named}: "strength" where no answer is better; leave it out')
    if "both_bad" in said.values and (len(ranks) != 1 or None in ranks):
        raise StoreError(f'{named}: "both_bad" where one answer is better; tie them, or leave it out')


def _fits(
    name: str, value: float, kind: JudgmentKind, completions: Sequence[str], criteria: Sequence[str]
) -> bool | None:
    """Whether the value lies on the scale of its name; None for a name that this kind does not take."""
    if kind == "binary":
        return value in (0, 1) if name in criteria else None
    if kind in ("ranking", "rating") and name in completions:
        return value in POINTS
    if kind not in ORDERED:
        return None
    if name == "confidence" or (name == "strength" and kind == "comparison"):
        return value in DEGREES
    if name == "both_bad" and kind == "comparison":
        return value == 1
    return 0 <= value <= 1 if name in {f"{a}>{b}" for a, b in permutations(completions, 2)} else None


def _left_out(said: Said, kind: JudgmentKind, completions: Sequence[str]) -> list[str]:
    """The answers of which nothing is said: an order of some of them says less than it seems, and takes a place."""
    if kind in ORDERED:
        given = {one for one, rank in zip(completions, said.ranks, strict=False) if rank is not None}
    elif kind == "rating" and not said.values.keys().isdisjoint(completions):
        given = {*said.values}
    else:
        return []
    return [one for one in completions if one not in given and one not in said.flags]
