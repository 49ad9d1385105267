"""What the labeling page asks for: claims, judgments, drafts, leases, the quiz."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.feedback.store.conftest import server, store, url  # noqa: F401
from tests.web.client import signed_in
from tests.web.conftest import Site
from tuneful.feedback.access import accept, invite_first_admin
from tuneful.feedback.assignment import LEASE_SECONDS
from tuneful.feedback.consensus import consensus
from tuneful.feedback.projects import progress, publish_instructions
from tuneful.feedback.store import Store


@pytest.fixture
def site(store: Store) -> Iterator[Site]:  # noqa: F811
    """On either database."""
    opened = Site(store)
    yield opened
    opened.close()


JSON = {"content-type": "application/json"}


def claim(client: Any, project: str, *besides: str) -> Any:
    answer = client.post(f"/p/{project}/claim", json={"besides": list(besides)})
    assert answer.status_code == 200, answer.text
    return answer.json()["assignment"]


def word(given: Any, **more: Any) -> dict[str, Any]:
    """A ranking in the order in which the answers are shown."""
    ranks = {answer["id"]: n + 1 for n, answer in enumerate(given["answers"])}
    return {"id": str(uuid.uuid4()), "ranks": ranks} | more


def test_a_claim_shows_the_prompt_and_the_answers_and_no_model_s_name(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    answer = client.post(f"/p/{project}/claim", json={})
    assert "secret-model" not in answer.text
    given = answer.json()["assignment"]
    assert given["prompt"] == [{"role": "user", "content": "My house is too hot, 0 of 5."}]
    assert len(given["answers"]) == 4
    assert given["lease_seconds"] == pytest.approx(LEASE_SECONDS, abs=1)
    assert answer.json()["progress"] == {"mine": 0, "items": 5, "done": 0, "wanted": 5, "up_to": 5, "have": 0}


def test_a_judgment_is_stored_as_it_was_said(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    first, second, third, fourth = (answer["id"] for answer in given["answers"])
    said = word(given, ranks={second: 1, first: 2, third: 2}, flags={fourth: ["unsafe"]}, note="hm", seconds=8.5)
    answer = client.post(f"/a/{given['id']}/submit", json=said).json()
    assert {name: answer[name] for name in ("judgment", "counted", "late", "again", "feedback")} == {
        "judgment": said["id"],
        "counted": True,
        "late": False,
        "again": False,
        "feedback": None,
    }
    (stored,) = site.judgments(project)
    assert dict(zip(stored.completions, stored.ranks, strict=True)) == {second: 1, first: 2, third: 2, fourth: None}
    assert stored.flags == {fourth: ("unsafe",)}
    assert stored.shown_order == (first, second, third, fourth)
    assert stored.seconds == 8.5
    assert stored.criterion == "helpful"


def test_saying_it_again_gives_the_same_answer(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    said = word(given)
    client.post(f"/a/{given['id']}/submit", json=said)
    again = client.post(f"/a/{given['id']}/submit", json=said)
    assert (again.status_code, again.json()["again"]) == (200, True)
    assert len(site.judgments(project)) == 1


def test_what_comes_next_can_be_fetched_before(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    held = [claim(client, project)]
    held += [claim(client, project, *(one["id"] for one in held)) for _ in range(1)]
    held += [claim(client, project, *(one["id"] for one in held))]
    assert len({one["item"] for one in held}) == 3
    assert claim(client, project, *(one["id"] for one in held)) is None  # three at once are enough
    assert claim(client, project)["id"] == held[0]["id"]


def test_a_draft_comes_back_with_the_item(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    assert client.post(f"/a/{given['id']}/draft", json={"content": {"typed": "B D"}}).status_code == 200
    assert claim(client, project)["draft"] == {"typed": "B D"}


def test_late_work_is_kept_and_told(site: Any) -> None:
    project = site.project(items=1)
    slow, quick = (signed_in(site, site.rater(project)) for _ in range(2))
    given = claim(slow, project)
    site.moved = LEASE_SECONDS + 1
    taken = claim(quick, project)
    assert slow.post(f"/a/{given['id']}/extend", json={}).status_code == 409
    assert quick.post(f"/a/{taken['id']}/submit", json=word(taken)).json()["counted"]
    answer = slow.post(f"/a/{given['id']}/submit", json=word(given)).json()
    assert (answer["counted"], answer["late"]) == (False, True)
    assert len(site.judgments(project)) == 2


def test_a_lease_is_extended(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    site.moved = LEASE_SECONDS - 1
    assert client.post(f"/a/{given['id']}/extend", json={}).json()["lease_seconds"] == pytest.approx(
        LEASE_SECONDS, abs=1
    )
    site.moved = LEASE_SECONDS + 60
    assert claim(client, project)["id"] == given["id"]


def test_a_skipped_item_does_not_come_back(site: Any) -> None:
    project = site.project(items=1)
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    assert client.post(f"/a/{given['id']}/skip", json={"reason": "not my language"}).status_code == 200
    assert claim(client, project) is None
    assert claim(signed_in(site, site.rater(project)), project)["item"] == given["item"]


def test_nobody_touches_what_another_one_has(site: Any) -> None:
    project = site.project(overlap=2)
    given = claim(signed_in(site, site.rater(project)), project)
    other = signed_in(site, site.rater(project))
    answers = [
        other.post(f"/a/{given['id']}/submit", json=word(given)),
        other.post(f"/a/{given['id']}/draft", json={"content": {}}),
        other.post(f"/a/{given['id']}/extend", json={}),
        other.post(f"/a/{given['id']}/skip", json={}),
    ]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert site.judgments(project) == []


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"id": "no uuid", "ranks": {}}, "id"),
        ({"id": "0" * 32, "seconds": -1}, "seconds"),
        ({"id": "0" * 32}, "says nothing"),
        ({"id": "0" * 32, "flags": {"none": ["unsafe"]}}, "no completion"),
        ({"id": "0" * 32, "flags": {"none": ["nice"]}}, "flags"),
        ({"id": "0" * 32, "ranks": {"none": 1}}, "no completion"),
        ({"id": "0" * 32, "ranks": {"none": 0}}, "ranks"),
        ({"id": "0" * 32, "ranks": {"none": 10**30}}, "ranks"),
        ({"id": "0" * 32, "note": "a\u0000b", "flags": {}}, "NUL"),
        ({"id": "0" * 32, "instructions": "others"}, "no instructions"),
        ({"id": "0" * 32, "rank": {}}, "rank"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_and_named(site: Any, said: dict[str, Any], named: str) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    answer = client.post(f"/a/{given['id']}/submit", json=said)
    assert answer.status_code == 400
    assert named in answer.json()["error"]
    assert site.judgments(project) == []


def test_a_number_that_is_none_and_half_a_character_are_refused(site: Any) -> None:
    project = site.project("rating", answers=1)
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    for body in (
        '{"id": "%s", "values": {"helpful": NaN}}',
        '{"id": "%s", "text": "\\ud800", "values": {"helpful": 1}}',
    ):
        answer = client.post(f"/a/{given['id']}/submit", content=body % ("0" * 32), headers=JSON)
        assert answer.status_code == 400, answer.text
    assert (
        client.post(f"/a/{given['id']}/draft", content='{"content": {"a": "\\ud800"}}', headers=JSON).status_code == 400
    )


def test_only_flags_are_a_judgment_that_a_consensus_can_read(site: Any) -> None:
    project = site.project(overlap=2, items=1)
    for flagged in (True, False):
        client = signed_in(site, site.rater(project))
        given = claim(client, project)
        flags = {answer["id"]: ["gibberish"] for answer in given["answers"]}
        said = word(given, ranks={}, flags=flags) if flagged else word(given)
        assert client.post(f"/a/{given['id']}/submit", json=said).status_code == 200
    assert len(consensus(site.judgments(project)).pairs) == 6


def test_what_was_written_survives_a_lease_that_ended(site: Any) -> None:
    project = site.project("demonstration", answers=1, items=1)
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    client.post(f"/a/{given['id']}/draft", json={"content": {"text": "Open a"}})
    site.moved = LEASE_SECONDS + 1
    assert claim(client, project)["draft"] == {"text": "Open a"}


def test_a_quiz_judgment_that_is_revised_after_passing_stays_one(site: Any) -> None:
    project = site.project(quiz=1)
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    said = word(given, ranks={answer["id"]: RANK[answer["text"]] for answer in given["answers"]})
    assert client.post(f"/a/{given['id']}/submit", json=said).json()["feedback"]["passed"]
    assert client.post(f"/a/{given['id']}/submit", json=word(given, replaces=said["id"])).status_code == 200
    assert site.judgments(project) == []


def test_the_quiz_cannot_be_skipped(site: Any) -> None:
    project = site.project(quiz=1)
    client = signed_in(site, site.rater(project))
    assert client.post(f"/a/{claim(client, project)['id']}/skip", json={}).status_code == 400


def test_an_admin_may_label_any_project(site: Any) -> None:
    secret = invite_first_admin(site.store, now=site.now())
    assert secret is not None
    client = signed_in(site, accept(site.store, secret, login="ada", password="correct horse", now=site.now()))
    assert claim(client, site.project()) is not None


def test_values_and_texts(site: Any) -> None:
    for kind, values, text in (
        ("binary", {"helpful": 1}, ""),
        ("rating", {"": 6}, ""),
        ("demonstration", {}, "Open a window."),
    ):
        project = site.project(kind, answers=1)
        client = signed_in(site, site.rater(project))
        given = claim(client, project)
        said = {name or given["answers"][0]["id"]: value for name, value in values.items()}
        answer = submit(client, given, values=said, text=text)
        assert answer.status_code == 200, answer.text
        (stored,) = site.judgments(project)
        assert (stored.kind, stored.values, stored.text) == (kind, said, text)


def submit(client: Any, given: dict[str, Any], **said: Any) -> Any:
    """By "a" and "b" the first two answers are meant."""
    names = dict(zip("abc", (answer["id"] for answer in given["answers"]), strict=False))
    named = {
        field: {">".join(names.get(part, part) for part in name.split(">")): value for name, value in table.items()}
        if field in ("ranks", "values")
        else table
        for field, table in said.items()
    }
    return client.post(f"/a/{given['id']}/submit", json={"id": str(uuid.uuid4())} | named)


BOTH = {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("kind", "said", "told"),
    [
        ("rating", {"values": {"a": 99, "b": 2}}, '99 for "'),
        ("rating", {"values": {"a": -1.5, "b": 2}}, '-1.5 for "'),
        ("rating", {"values": {"a": 2.5, "b": 2}}, "a rating takes points from 1 to 7 by answer"),
        ("rating", {"values": {"a": 0, "b": 2}}, '0 for "'),
        ("rating", {"values": {"a": 7, "b": 2, "foo": 1}}, '"foo" is not asked for; a rating takes points'),
        ("rating", {"values": {"helpful": 6}}, '"helpful" is not asked for'),
        ("ranking", {"ranks": BOTH, "values": {"evil": 1e308}}, '"evil" is not asked for; a ranking takes points'),
        ("ranking", {"ranks": BOTH, "values": {"a": 8}}, '8 for "'),
        ("ranking", {"ranks": BOTH, "values": {"strength": 1}}, '"strength" is not asked for'),
        ("ranking", {"ranks": BOTH, "values": {"confidence": 4}}, '4 for "confidence"'),
        ("ranking", {"ranks": BOTH, "values": {"a>b": 1.1}}, "from 0 to 1"),
        ("ranking", {"ranks": BOTH, "values": {"a>a": 0.5}}, "is not asked for"),
        ("ranking", {"ranks": BOTH, "values": {"": 1}}, '"" is not asked for'),
        ("comparison", {"ranks": BOTH, "values": {"strength": 99}}, '99 for "strength"; a comparison takes "strength"'),
        ("comparison", {"ranks": {"a": 1, "b": 1}, "values": {"strength": 1}}, '"strength" where no answer is better'),
        ("comparison", {"ranks": BOTH, "values": {"both_bad": 1}}, '"both_bad" where one answer is better'),
        ("comparison", {"ranks": {"a": 1, "b": 1}, "values": {"both_bad": 0}}, '0 for "both_bad"'),
        ("comparison", {"ranks": BOTH, "values": {"a": 4}}, "is not asked for"),
        ("binary", {"values": {"helpful": 0.5}}, '0.5 for "helpful"; a 0/1 judgment takes 0 or 1 by criterion'),
        ("binary", {"values": {"a": 1}}, "is not asked for; a 0/1 judgment takes"),
        ("binary", {"values": {"foo": 1}}, '"foo" is not asked for'),
        ("demonstration", {"text": "x", "values": {"a": 1}}, "a demonstration takes a text and no values"),
    ],
)
def test_values_that_are_not_asked_for_are_refused_by_name(
    site: Any, kind: str, said: dict[str, Any], told: str
) -> None:
    project = site.project(kind, answers=1 if kind == "binary" else 2)
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    answer = submit(client, given, **said)
    assert answer.status_code == 400
    assert "values: " in answer.json()["error"]
    assert told in answer.json()["error"]
    assert site.judgments(project) == []
    assert claim(client, project)["id"] == given["id"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("rating", {"values": {"a": 1, "b": 7.0}}),
        ("ranking", {"ranks": BOTH, "values": {"a": 7, "confidence": 1, "a>b": 0.25, "b>a": 1}}),
        ("comparison", {"ranks": BOTH, "values": {"strength": 3, "confidence": 3, "a>b": 0}}),
        ("comparison", {"ranks": {"a": 1, "b": 1}, "values": {"both_bad": 1}}),
        ("binary", {"values": {"helpful": 0}}),
        ("demonstration", {"text": "x"}),
    ],
)
def test_values_that_the_page_and_models_send_are_taken(site: Any, kind: str, said: dict[str, Any]) -> None:
    project = site.project(kind, answers=1 if kind == "binary" else 2)
    client = signed_in(site, site.rater(project))
    assert submit(client, claim(client, project), **said).status_code == 200
    (stored,) = site.judgments(project)
    assert sorted(stored.values.values()) == sorted(said.get("values", {}).values())


def test_the_same_id_with_other_words_is_refused_and_the_same_words_are_not(site: Any) -> None:
    """How long it took may differ: who sends it again may have measured again. What was left out may be."""
    project = site.project(answers=2)
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    said = word(given, note="clear", seconds=3.0)
    place = f"/a/{given['id']}/submit"
    assert not client.post(place, json=said).json()["again"]
    for same in (said, said | {"seconds": 4.5}, said | {"instructions": given["instructions"]}):
        answer = client.post(place, json=same)
        assert (answer.status_code, answer.json()["again"]) == (200, True)
    turned = {name: 3 - rank for name, rank in said["ranks"].items()}
    flagged = {given["answers"][0]["id"]: ["unsafe"]}
    for field, other in {"ranks": turned, "note": "", "values": {"confidence": 2}, "flags": flagged}.items():
        answer = client.post(place, json=said | {field: other})
        assert answer.status_code == 409
        assert f'judgment "{said["id"]}": is stored already, with other {field}' in answer.json()["error"]
    (stored,) = site.judgments(project)
    assert dict(zip(stored.completions, stored.ranks, strict=True)) == said["ranks"]


def test_instructions_are_shown_with_what_changed(site: Any) -> None:
    project = site.project(instructions="Be **kind**. <script>alert(1)</script> [go](javascript:alert(1))")
    client = signed_in(site, site.rater(project))
    shown = client.get(f"/p/{project}/instructions").json()
    assert (shown["version"], shown["changed"]) == (1, False)
    assert "<strong>kind</strong>" in shown["html"]
    assert "<script" not in shown["html"]
    assert "<a" not in shown["html"]
    publish_instructions(site.store, project, "Be brief.", now=site.now())
    shown = client.get(f"/p/{project}/instructions").json()
    assert (shown["version"], shown["changed"]) == (2, True)
    assert "kind" in shown["previous_html"]


def test_a_judgment_says_which_instructions_its_rater_had_read(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    given = claim(client, project)
    publish_instructions(site.store, project, "Be brief.", now=site.now())
    client.post(f"/a/{given['id']}/submit", json=word(given, instructions=given["instructions"]))
    (stored,) = site.judgments(project)
    assert stored.instructions == given["instructions"]


def test_the_quiz_comes_first_teaches_and_opens_the_rest(site: Any) -> None:
    """Three gold items and 70 % to get right: one that is upside down is one too many."""
    project = site.project(quiz=3)
    client = signed_in(site, site.rater(project))
    for wrong in (True, False, False):
        given = claim(client, project)
        assert given["quiz"]
        known = sorted((answer["id"] for answer in given["answers"]), key=lambda one: RANK[text_of(given, one)])
        order = reversed(known) if wrong else known
        said = word(given, ranks={one: n + 1 for n, one in enumerate(order)})
        told = client.post(f"/a/{given['id']}/submit", json=said).json()["feedback"]
        assert told["right"] == (0.0 if wrong else 1.0)
        assert told["ranks"] == {one: RANK[text_of(given, one)] for one in known}
        assert told["why"] == "A remedy is best."
        assert not told["passed"]
    assert claim(client, project) is None  # two of three right are 67 %, and nothing opens
    lead = signed_in(site, site.rater(project, role="lead"))
    assert "in the quiz<small>3 answered, 67 % right; 70 % pass</small>" in lead.get(f"/lead/{project}").text
    assert site.judgments(project) == []
    assert progress(site.store, project).have == 0


def test_who_passes_the_quiz_goes_on_to_the_items(site: Any) -> None:
    project = site.project(quiz=2)
    client = signed_in(site, site.rater(project))
    for left in (1, 0):
        claimed = client.post(f"/p/{project}/claim", json={}).json()
        so_far = None if left == 1 else 1.0
        assert claimed["quiz"] == {"quiz": 2, "pass_share": 0.7, "answered": 1 - left, "right": so_far}
        given = claimed["assignment"]
        said = word(given, ranks={answer["id"]: RANK[answer["text"]] for answer in given["answers"]})
        first = client.post(f"/a/{given['id']}/submit", json=said).json()
        assert first["feedback"]["passed"] == (left == 0)
        assert (first["quiz"] is None) == (left == 0)
        again = client.post(f"/a/{given['id']}/submit", json=said).json()
        assert again["feedback"] == first["feedback"]
    given = claim(client, project)
    assert not given["quiz"]
    told = client.post(f"/a/{given['id']}/submit", json=word(given)).json()
    assert told["feedback"] is None
    assert told["counted"]


def text_of(given: Any, id_: str) -> str:
    return next(answer["text"] for answer in given["answers"] if answer["id"] == id_)


RANK = {
    "Open a window at night and close it in the morning.": 1,
    "Buy a fan.": 2,
    "It is not hot at all.": 3,
    "That is not my problem.": 4,
}
