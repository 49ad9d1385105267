"""The history checker finds each fault that is planted, alone and by name, and none in a history that is good."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.feedback.store.history import NO_ANSWER, Rows, read_log, read_rows, violations
from tuneful.feedback.assignment import claim
from tuneful.feedback.items import add_items
from tuneful.feedback.projects import add_rater, create_project
from tuneful.feedback.store import Store
from tuneful.feedback.submission import Said, submit
from tuneful.records import Candidates, Completion, Prompt

LEASE = 600.0


class History:
    """Logs and rows as a server that keeps its word would leave them, and ways to spoil them."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.judgments: dict[str, dict[str, Any]] = {}
        self.assignments: dict[str, dict[str, Any]] = {}
        self.items: dict[str, dict[str, Any]] = {}

    def found(self) -> list[str]:
        rows = Rows(list(self.judgments.values()), list(self.assignments.values()), list(self.items.values()))
        return violations(self.log, rows)

    def item(self, name: str, overlap: int) -> None:
        row = {"id": name, "project": "p", "overlap": overlap, "submitted": 0, "gold": None}
        self.items[name] = row | {"completions": [f"{name}-x", f"{name}-y"]}

    def claim(self, rater: str, item: str, at: float, *, name: str = "", lost: bool = False) -> None:
        """The rater gets the item, as assignment "rater-item". lost: and nobody told them."""
        id_ = name or f"{rater}-{item}"
        row = {"id": id_, "item": item, "rater": rater, "state": "live", "lease_until": at + LEASE, "created_at": at}
        self.assignments.setdefault(id_, row)
        left = self.assignments[id_]["lease_until"] - at
        self.ask(rater, "claim", at, {"assignment": {"id": id_, "item": item, "lease_seconds": left}}, lost=lost)

    def refused(self, rater: str, at: float) -> None:
        self.ask(rater, "claim", at, {"assignment": None})

    def extend(self, rater: str, item: str, at: float) -> None:
        self.assignments[f"{rater}-{item}"]["lease_until"] = at + LEASE
        self.ask(rater, "extend", at, {"lease_seconds": LEASE}, assignment=f"{rater}-{item}")

    def submit(
        self,
        rater: str,
        item: str,
        at: float,
        id_: str,
        *,
        lost: bool = False,
        late: bool = False,
        counted: bool = True,
        replaces: str | None = None,
        ranks: tuple[int | None, int | None] = (1, 2),
    ) -> None:
        """A judgment, stored unless it has been. lost: and nobody told the rater."""
        again, of = id_ in self.judgments, self.assignments[f"{rater}-{item}"]
        completions = self.items[item]["completions"]
        if not again:
            said = {"ranks": list(ranks), "flags": {completions[0]: ["unsafe"]}, "values": {"sure": 1.0}, "text": ""}
            said |= {"note": "", "seconds": 2.5, "replaces": replaces, "counted": counted, "late": late}
            about = {"id": id_, "item": item, "rater": rater, "assignment": of["id"], "created_at": at}
            self.judgments[id_] = about | said
            if counted and replaces is None:
                self.items[item]["submitted"] += 1
            of["state"] = "submitted" if counted else "surplus"
        kept = self.judgments[id_]
        body = {"id": id_, "ranks": dict(zip(completions, kept["ranks"], strict=True)), "replaces": kept["replaces"]}
        body |= {"flags": {completions[0]: ["unsafe"], completions[1]: []}, "values": {"sure": 1}, "seconds": 2.5}
        answer = {"judgment": id_, "counted": kept["counted"], "late": kept["late"], "again": again}
        self.ask(rater, "submit", at, answer, lost=lost, assignment=of["id"], body=body)

    def ask(self, rater: str, kind: str, at: float, answer: dict[str, Any], *, lost: bool = False, **more: Any) -> None:
        """A line of the log: a tenth of a second on the way, half of it there."""
        line = {"client": f"client of {rater}", "rater": rater, "kind": kind, "project": "p", "body": {}}
        line |= {"sent": at - 0.05, "answered": at + 0.05, "status": None if lost else 200}
        self.log.append(line | {"answer": NO_ANSWER if lost else answer} | more)


def good() -> History:
    """Retries, duplicates, reordering, an answer that never came, late work that counts and late work that does not."""
    told = History()
    for name, overlap in (("shared", 2), ("left", 1), ("slow", 1), ("last", 2)):
        told.item(name, overlap)
    told.claim("ann", "shared", 10)
    told.claim("bob", "shared", 11)
    told.submit("ann", "shared", 20, "a1", lost=True)  # stored, the server was killed before it answered
    told.submit("ann", "shared", 21, "a1")
    told.submit("bob", "shared", 25, "b1")
    told.submit("bob", "shared", 26, "b2", replaces="b1", ranks=(2, 1))
    told.submit("bob", "shared", 27, "b1")  # an old letter after its revision
    told.submit("ann", "shared", 30, "a1")

    told.claim("cat", "left", 10)  # and goes away
    told.refused("dan", 100)
    told.refused("dan", 610.9)
    told.claim("dan", "left", 611.5)
    told.submit("dan", "left", 620, "d1")
    told.submit("cat", "left", 630, "c1", late=True, counted=False)
    told.submit("cat", "left", 631, "c2", replaces="c1", counted=False)

    told.claim("eve", "slow", 100)
    told.submit("eve", "slow", 710, "e1", late=True, ranks=(1, None))

    told.claim("fay", "last", 12, lost=True)
    told.claim("fay", "last", 13)
    told.extend("fay", "last", 14)
    told.submit("fay", "last", 15, "f1", lost=True)  # and never asked again
    told.claim("gus", "last", 16)
    told.ask("gus", "submit", 17, {}, lost=True, assignment="gus-last", body={"id": "g0"})  # never arrived
    return told


def test_a_good_history_has_none() -> None:
    assert good().found() == []


def lose(told: History) -> None:
    """The receipt of d1 came back, and its whole transaction is gone."""
    del told.judgments["d1"]
    told.items["left"]["submitted"] = 0
    told.assignments["dan-left"]["state"] = "live"


def change(told: History) -> None:
    told.judgments["d1"]["ranks"] = [2, 1]


def change_the_rater(told: History) -> None:
    told.judgments["e1"]["rater"] = told.assignments["eve-slow"]["rater"] = "eva"


def change_the_receipt(told: History) -> None:
    told.submit("dan", "left", 640, "d1")
    told.log[-1]["answer"]["counted"] = False


def store_twice(told: History) -> None:
    told.judgments["d1 once more"] = dict(told.judgments["d1"])


def invent(told: History) -> None:
    told.item("new", 1)
    told.claim("hal", "new", 40)
    told.submit("hal", "new", 41, "h1")
    del told.log[-1]


def count_too_many(told: History) -> None:
    """Late work that had to be surplus: dan's place was taken when it came."""
    told.judgments["c1"]["counted"] = told.judgments["c2"]["counted"] = True
    for line in told.log:
        if line["kind"] == "submit" and line["body"]["id"] in ("c1", "c2"):
            line["answer"]["counted"] = True
    told.assignments["cat-left"]["state"] = "submitted"
    told.items["left"]["submitted"] = 2


def judge_twice(told: History) -> None:
    told.submit("bob", "shared", 50, "b3", replaces="b2")
    told.judgments["b3"]["replaces"] = told.log[-1]["body"]["replaces"] = None


def hand_out_judged(told: History) -> None:
    """Both places of the item have judgments that were acknowledged by 25.05."""
    told.claim("hal", "shared", 60)


def hand_out_in_hand(told: History) -> None:
    """cat's lease of the only place ends at 610."""
    told.claim("hal", "left", 300)
    told.assignments["hal-left"]["lease_until"] = 400.0


def hand_out_extended(told: History) -> None:
    """fay's first lease would have ended at 612, gus has the other place until 616; fay extended at 14, until 614."""
    told.claim("hal", "last", 613)


def block(told: History) -> None:
    told.refused("dan", 611.2)


def revise_another(told: History) -> None:
    told.judgments["c2"]["replaces"] = "d1"
    for line in told.log:
        if line["kind"] == "submit" and line["body"]["id"] == "c2":
            line["body"]["replaces"] = "d1"


def revise_twice(told: History) -> None:
    told.submit("bob", "shared", 50, "b3", replaces="b1")


def revise_in_a_circle(told: History) -> None:
    told.judgments["b1"]["replaces"] = "b2"


def tear_the_assignment(told: History) -> None:
    told.assignments["dan-left"]["state"] = "live"


def tear_the_item(told: History) -> None:
    told.items["shared"]["submitted"] = 1


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (lose, r"^judgment d1 is lost: client of dan .* 620\.050, for assignment dan-left$"),
        (change, r"^judgment d1 of client of dan was acknowledged, but its ranks differ$"),
        (change_the_rater, r"^judgment e1 of client of eve was acknowledged, but its rater differ$"),
        (change_the_receipt, r'^judgment d1 of client of dan .* receipt \("counted"\) differ$'),
        (store_twice, r"^judgment d1 is stored 2 times$"),
        (invent, r"^judgment h1 of item new by rater hal is stored, but nobody sent it$"),
        (count_too_many, r"^item left has 2 judgments that count and an overlap of 1: cat, dan$"),
        (judge_twice, r"^item shared, rater bob: judgments b1, b3, and none revises another$"),
        (hand_out_judged, r"^item shared .* full: assignment hal-shared to rater hal at 60\.050, .* ann, bob$"),
        (hand_out_in_hand, r"^item left .* full: assignment hal-left to rater hal at 300\.050, .* by cat$"),
        (hand_out_extended, r"^item last .* full: assignment hal-last to rater hal at 613\.050, .* fay, gus$"),
        (
            block,
            r"^assignment cat-left blocks item left .*: 1\.[12] s after its lease rater dan was refused at 611\.150$",
        ),
        (revise_another, r"^item left, rater cat: judgment c2 revises d1, which is none of theirs: no chain$"),
        (revise_twice, r"^item shared, rater bob: judgment b1 is revised more than once, by b2, b3: no chain$"),
        (revise_in_a_circle, r"^item shared, rater bob: judgments b1, b2 revise each other in a circle: no chain$"),
        (tear_the_assignment, r"^assignment dan-left of item left is live, which its judgments do not say$"),
        (tear_the_item, r"^item shared says that 1 judgments count, and 2 do$"),
    ],
)
def test_a_planted_fault_is_found_alone(plant: Callable[[History], None], named: str) -> None:
    told = good()
    plant(told)
    (only,) = told.found()
    assert re.search(named, only), only


def test_two_faults_are_two() -> None:
    told = good()
    lose(told)
    judge_twice(told)
    assert len(told.found()) == 2


def test_what_nobody_was_told_is_no_loss() -> None:
    """A kill may take what had no receipt: f1 with its transaction, and a claim."""
    told = good()
    del told.judgments["f1"]
    told.items["last"]["submitted"] = 0
    told.assignments["fay-last"]["state"] = "live"
    assert told.found() == []


def test_a_claim_that_met_another_request_is_no_refusal() -> None:
    """PostgreSQL's claims pass over an item that somebody is changing at that moment."""
    told = good()
    told.refused("hal", 620)  # gus's lease of "last" ended at 616
    told.submit("fay", "last", 620, "f1")
    assert told.found() == []
    told.log[-1] |= {"sent": 630.0, "answered": 630.1}
    (only,) = told.found()
    assert re.search("^assignment gus-last blocks item last .* rater hal was refused", only), only


def test_gold_goes_to_everybody() -> None:
    told = good()
    told.items["shared"]["gold"] = {"ranks": [1, 2]}
    told.claim("hal", "shared", 60)
    told.submit("hal", "shared", 61, "h1")
    assert told.found() == []


def test_a_log_is_lines(tmp_path: Path) -> None:
    told = good()
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in told.log), encoding="utf-8")
    assert read_log(path) == told.log


def test_the_rows_of_a_real_store(store: Store) -> None:
    """The same fields as above, of either database: a judgment as it was said, and one that was changed afterwards."""
    project = create_project(store, "helpful", now=0.0)
    answers = (Completion("yes", id="yes"), Completion("no", id="no"))
    add_items(store, project, [Candidates(Prompt("question"), answers)], overlap=1, now=0.0)
    ann = add_rater(store, project, now=0.0)
    given = claim(store, project, ann, now=1.0)
    assert given is not None
    about = {"client": "c", "rater": ann, "sent": 0.9, "answered": 1.1, "status": 200}
    told = {"id": given.id, "item": given.item, "lease_seconds": LEASE}
    log = [about | {"kind": "claim", "project": project, "body": {}, "answer": {"assignment": told}}]
    said = Said(id="j", ranks=(2, 1), flags={given.shown_order[0]: ("unsafe",)}, values={"confidence": 2}, seconds=3.0)
    receipt = submit(store, given.id, ann, said, now=2.0)
    (first, second) = next(row["completions"] for row in read_rows(store).items)
    body = {"id": "j", "ranks": {first: 2, second: 1}, "flags": {given.shown_order[0]: ["unsafe"]}}
    body |= {"values": {"confidence": 2}, "seconds": 3.0}
    answer = {"judgment": "j", "counted": receipt.counted, "late": receipt.late, "again": receipt.again}
    about |= {"sent": 1.9, "answered": 2.1, "assignment": given.id}
    log.append(about | {"kind": "submit", "body": body, "answer": answer})
    assert violations(log, read_rows(store)) == []
    log[1]["body"]["ranks"] = {first: 1, second: 2}
    assert violations(log, read_rows(store)) == ["judgment j of c was acknowledged, but its ranks differ"]
