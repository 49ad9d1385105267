"""The history checker: what clients sent and were told, held against the rows of the store afterwards.

One line of a client's log is one request, as JSON:

    {"client": "c3", "rater": id, "kind": "claim", "project": id, "body": {"besides": []},
     "sent": s, "answered": s, "status": 200, "answer": {"assignment": {"id", "item", "lease_seconds", …} or null}}
    {…, "kind": "submit", "assignment": id, "body": {"id": UUID, "ranks": {completion: rank}, …},
     "answer": {"judgment": id, "counted": bool, "late": bool, "again": bool}}
    {…, "kind": "extend", "assignment": id, "body": {}, "answer": {"lease_seconds": s}}

Without an answer it is "no answer", its status null, and `answered` is when the client gave up. Times are seconds since
1970 on one clock that clients and server share.

What cannot be known is never held against the store: a request was served at some moment between `sent` and `answered`.
A place on an item is taken for certain from the moment at which a claim was answered until its lease ends, and for good
from the answer to a judgment that counts; it may have been taken from the row's own time on. Items with a known answer
(gold) go to everybody and have no places.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from tuneful.feedback.store import Store
from tuneful.feedback.tables import assignment, item, judgment

Request = Mapping[str, Any]
Row = Mapping[str, Any]

NO_ANSWER = "no answer"

FREE_WITHIN = 1.0
"""Seconds after its lease within which a place has to be free again."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The store's tables at one moment, rows as mappings."""

    judgments: Sequence[Row]
    assignments: Sequence[Row]
    items: Sequence[Row]


def read_rows(store: Store) -> Rows:
    """All of them, in one snapshot."""
    with store.read() as connection:
        judgments, assignments, items = (
            [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in (judgment, assignment, item)
        )
    return Rows(judgments, assignments, items)


def read_log(path: Path) -> list[dict[str, Any]]:
    """A client's log, one request a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def violations(log: Iterable[Request], rows: Rows) -> list[str]:
    """What must not have happened, a sentence each; empty for a store that kept its word."""
    seen = _Seen(log, rows)
    return [
        *_lost_or_changed(seen),
        *_twice_or_unsent(seen),
        *_past_overlap(seen),
        *_without_revision(seen),
        *_torn(seen),
        *_handed_out_full(seen),
        *_blocking(seen),
    ]


class _Seen:
    """Log and rows, looked up by what the checks ask for."""

    def __init__(self, log: Iterable[Request], rows: Rows) -> None:
        self.log = sorted(log, key=lambda request: request["sent"])
        self.judgments = rows.judgments
        self.assignments = {row["id"]: row for row in rows.assignments}
        self.items = {row["id"]: row for row in rows.items}
        self.stored = {row["id"]: row for row in rows.judgments}
        self.submits = [request for request in self.log if request["kind"] == "submit"]
        self.judged = _first_words(rows.judgments)
        self.counted = _first_words(row for row in rows.judgments if row["counted"])

    def item_of(self, request: Request) -> str | None:
        """The item that a request was about, as far as its client was told."""
        if request["kind"] == "claim":
            given = request["answer"]["assignment"] if _granted(request) else None
            return given["item"] if given else None
        row = self.assignments.get(request["assignment"])
        return row["item"] if row else None

    def has_places(self, item_id: str) -> bool:
        return item_id in self.items and self.items[item_id].get("gold") is None


def _first_words(judgments: Iterable[Row]) -> dict[str, dict[str, float]]:
    """item -> rater -> when they first judged it."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in judgments:
        found[row["item"]][row["rater"]] = min(row["created_at"], found[row["item"]].get(row["rater"], math.inf))
    return dict(found)


def _granted(request: Request) -> bool:
    return bool(request["answer"] != NO_ANSWER and request["status"] == 200)


def _lost_or_changed(seen: _Seen) -> Iterator[str]:
    """A judgment whose receipt came back, and that is not there, or not as it was sent."""
    told: set[str] = set()
    sent: dict[str, list[Request]] = defaultdict(list)
    for request in seen.submits:
        sent[request["body"]["id"]].append(request)
    for request in seen.submits:
        id_ = request["body"]["id"]
        if not _granted(request) or id_ in told:
            continue
        row = seen.stored.get(id_)
        if row is None:
            told.add(id_)
            yield (
                f"judgment {id_} is lost: {request['client']} had its receipt at {_at(request['answered'])}, "
                f"for assignment {request['assignment']}"
            )
            continue
        # Where a client gave two bodies one id, either is as it was sent.
        fields = _receipt_differs(request, row) or min((_different(seen, one, row) for one in sent[id_]), key=len)
        if fields:
            told.add(id_)
            yield f"judgment {id_} of {request['client']} was acknowledged, but its {', '.join(fields)} differ"


def _different(seen: _Seen, request: Request, row: Row) -> list[str]:
    """Names of what the row has otherwise than the request."""
    body = request["body"]
    completions = seen.items[row["item"]]["completions"] if row["item"] in seen.items else []
    ranks = body.get("ranks") or {}
    sent: dict[str, Any] = {
        "rater": request["rater"],
        "item": seen.item_of(request),
        "ranks": [ranks.get(name) for name in completions],
        "flags": _flags(body.get("flags") or {}),
        "values": dict(body.get("values") or {}),
        "text": body.get("text") or "",
        "note": body.get("note") or "",
        "seconds": body.get("seconds"),
    }
    kept = {name: row.get(name) for name in ("rater", "item", "seconds")}
    kept |= {
        "ranks": list(row["ranks"]) or [None] * len(completions),
        "flags": _flags(row["flags"]),
        "values": dict(row["values"]),
        "text": row.get("text") or "",
        "note": row.get("note") or "",
    }
    for name in ("replaces", "instructions"):
        if body.get(name) is not None:
            sent[name], kept[name] = body[name], row[name]
    return [name for name in sent if sent[name] != kept[name]]


def _receipt_differs(request: Request, row: Row) -> list[str]:
    answer = request["answer"]
    names = [name for name in ("counted", "late") if bool(answer[name]) != bool(row[name])]
    return [f'receipt ("{name}")' for name in names + ["judgment"] * (answer["judgment"] != row["id"])]


def _flags(flags: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    return {name: sorted(marks) for name, marks in flags.items() if marks}


def _twice_or_unsent(seen: _Seen) -> Iterator[str]:
    sent = {request["body"]["id"] for request in seen.submits}
    for id_, times in Counter(row["id"] for row in seen.judgments).items():
        if times > 1:
            yield f"judgment {id_} is stored {times} times"
        if id_ not in sent:
            row = seen.stored[id_]
            yield f"judgment {id_} of item {row['item']} by rater {row['rater']} is stored, but nobody sent it"


def _past_overlap(seen: _Seen) -> Iterator[str]:
    for id_, raters in seen.counted.items():
        if seen.has_places(id_) and len(raters) > (places := seen.items[id_]["overlap"]):
            names = ", ".join(sorted(raters))
            yield f"item {id_} has {len(raters)} judgments that count and an overlap of {places}: {names}"


def _without_revision(seen: _Seen) -> Iterator[str]:
    """One rater's judgments of one item are a chain: a first one, and each other revises the one before."""
    by_pair: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in seen.judgments:
        by_pair[row["item"], row["rater"]][row["id"]] = row
    for (item_id, rater), rows in by_pair.items():
        where = f"item {item_id}, rater {rater}"
        firsts = [id_ for id_, row in rows.items() if row["replaces"] is None]
        if len(firsts) > 1:
            yield f"{where}: judgments {', '.join(firsts)}, and none revises another"
        elsewhere = [id_ for id_, row in rows.items() if row["replaces"] is not None and row["replaces"] not in rows]
        for id_ in elsewhere:
            yield f"{where}: judgment {id_} revises {rows[id_]['replaces']}, which is none of theirs: no chain"
        later: dict[str, list[str]] = defaultdict(list)
        for id_, row in rows.items():
            if row["replaces"] in rows:
                later[row["replaces"]].append(id_)
        for id_, revisions in later.items():
            if len(revisions) > 1:
                yield f"{where}: judgment {id_} is revised more than once, by {', '.join(revisions)}: no chain"
        reached, ahead = set(), firsts + elsewhere
        while ahead:
            id_ = ahead.pop()
            reached.add(id_)
            ahead += later[id_]
        if left := sorted(rows.keys() - reached):
            yield f"{where}: judgments {', '.join(left)} revise each other in a circle: no chain"


def _torn(seen: _Seen) -> Iterator[str]:
    """Rows that one transaction writes together, and that tell different stories."""
    by_assignment: dict[str, set[bool]] = defaultdict(set)
    for row in seen.judgments:
        if row["assignment"] is not None:
            by_assignment[row["assignment"]].add(bool(row["counted"]))
    means = {"submitted": {True}, "surplus": {False}}
    for id_, row in seen.assignments.items():
        if seen.has_places(row["item"]) and by_assignment.get(id_, set()) != means.get(row["state"], set()):
            yield f"assignment {id_} of item {row['item']} is {row['state']}, which its judgments do not say"
    for id_, row in seen.items.items():
        num = len(seen.counted.get(id_, ()))
        if seen.has_places(id_) and num <= row["overlap"] and row["submitted"] != num:
            yield f"item {id_} says that {row['submitted']} judgments count, and {num} do"


@dataclass(frozen=True, slots=True)
class _Hold:
    """A place of an item that somebody had for certain from `since` until `until`."""

    item: str
    rater: str
    assignment: str
    since: float
    until: float


def _handed_out_full(seen: _Seen) -> Iterator[str]:
    """A claim that gave somebody a place that others had: at some moment more than all places were taken."""
    by_item: dict[str, list[_Hold]] = defaultdict(list)
    for hold in _holds(seen):
        by_item[hold.item].append(hold)
    for id_, holds in by_item.items():
        places = seen.items[id_]["overlap"]
        if len(seen.counted.get(id_, ())) > places:
            continue  # said above
        for moment in sorted(hold.since for hold in holds):
            taken = [hold for hold in holds if hold.since <= moment < hold.until]
            if len({hold.rater for hold in taken}) > places:
                last = max((hold for hold in taken if hold.until < math.inf), key=lambda hold: hold.since)
                others = sorted({hold.rater for hold in taken} - {last.rater})
                yield (
                    f"item {id_} was handed out full: assignment {last.assignment} to rater {last.rater} at "
                    f"{_at(last.since)}, while its {places} places were taken by {', '.join(others)}"
                )
                break


def _holds(seen: _Seen) -> Iterator[_Hold]:
    claims: dict[str, Request] = {}
    extends: dict[str, list[Request]] = defaultdict(list)
    spoke: dict[tuple[str, str], float] = {}
    """When a rater first sent a judgment of an item."""
    for request in seen.log:
        if request["kind"] == "claim" and _granted(request) and request["answer"]["assignment"]:
            claims.setdefault(request["answer"]["assignment"]["id"], request)
        elif request["kind"] == "extend":
            extends[request["assignment"]].append(request)
        elif request["kind"] == "submit" and (item_id := seen.item_of(request)) is not None:
            spoke.setdefault((item_id, request["rater"]), request["sent"])
    for id_, row in seen.assignments.items():
        if not seen.has_places(row["item"]) or id_ not in claims or row["state"] == "skipped":
            continue
        claim = claims[id_]
        # A row has the end of the last lease; of one that was extended the first end is what the client was told.
        told = claim["sent"] + claim["answer"]["assignment"]["lease_seconds"]
        leases = [(claim["answered"], told if id_ in extends else row["lease_until"])]
        leases += [
            (one["answered"], one["sent"] + one["answer"]["lease_seconds"])
            for one in extends.get(id_, ())
            if _granted(one)
        ]
        gone = spoke.get((row["item"], row["rater"]), math.inf) if row["state"] == "surplus" else math.inf
        for since, until in leases:
            if since < min(until, gone):
                yield _Hold(row["item"], row["rater"], id_, since, min(until, gone))
    for request in seen.submits:
        kept = seen.stored.get(request["body"]["id"])
        if _granted(request) and kept and kept["counted"] and seen.has_places(kept["item"]):
            yield _Hold(kept["item"], kept["rater"], kept["assignment"], request["answered"], math.inf)


def _blocking(seen: _Seen) -> Iterator[str]:
    """A claim that was told that there is nothing, while an item lacked nothing but the end of a lease that was over.

    Left out: items that another request was about at that moment, for on PostgreSQL a claim passes over an item that
    somebody is changing.
    """
    by_item: dict[str, list[Row]] = defaultdict(list)
    for row in seen.assignments.values():
        by_item[row["item"]].append(row)
    abandoned: dict[str, list[Row]] = defaultdict(list)
    for row in seen.assignments.values():
        in_time = _word(seen.judged, row) <= row["lease_until"]
        if seen.has_places(row["item"]) and row["state"] != "skipped" and not in_time:
            abandoned[seen.items[row["item"]]["project"]].append(row)
    told: set[str] = set()
    for claim in seen.log:
        if claim["kind"] != "claim" or not _granted(claim) or claim["answer"]["assignment"]:
            continue
        sent, answered = claim["sent"], claim["answered"]
        for over in () if claim["body"].get("besides") else abandoned.get(claim["project"], ()):
            late_by = sent - over["lease_until"]
            if over["id"] in told or late_by <= FREE_WITHIN or _word(seen.judged, over) <= answered:
                continue
            others = by_item[over["item"]]
            may_hold = {rater for rater, when in seen.counted.get(over["item"], {}).items() if when <= answered}
            may_hold |= {
                row["rater"]
                for row in others
                if row["created_at"] <= answered and row["lease_until"] >= sent - FREE_WITHIN
            }
            had_it = any(
                row["rater"] == claim["rater"]
                and row["created_at"] <= answered
                and (row["state"] not in ("live", "released") or row["lease_until"] >= sent - FREE_WITHIN)
                for row in others
            )
            full = len(may_hold) >= seen.items[over["item"]]["overlap"]
            if not had_it and not full and not _touched(seen, over["item"], claim):
                told.add(over["id"])
                yield (
                    f"assignment {over['id']} blocks item {over['item']} past its time: {late_by:.1f} s after its "
                    f"lease rater {claim['rater']} was refused at {_at(sent)}"
                )


def _word(words: Mapping[str, Mapping[str, float]], row: Row) -> float:
    """When the rater of an assignment first judged its item, if ever."""
    return words.get(row["item"], {}).get(row["rater"], math.inf)


def _touched(seen: _Seen, item_id: str, claim: Request) -> bool:
    """Whether another request may have held the item's row while `claim` was served."""
    for request in seen.log:
        lost = request["answer"] == NO_ANSWER
        until = request["answered"] + (FREE_WITHIN if lost else 0.0)
        if request is claim or request["sent"] > claim["answered"] or until < claim["sent"]:
            continue
        if (lost and request["kind"] == "claim") or seen.item_of(request) == item_id:
            return True
    return False


def _at(time: float) -> str:
    return f"{time:.3f}"
