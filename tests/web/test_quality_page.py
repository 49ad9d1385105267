"""The lead's page of quality: what is on it, when it is measured, and what it does not tell."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, update

from tests.web.client import signed_in
from tuneful.feedback import quality as measured
from tuneful.feedback.decisions import mend_gold
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold
from tuneful.feedback.projects import find_project, publish_instructions, set_quiz
from tuneful.feedback.quality import latest
from tuneful.feedback.tables import rater, snapshot
from tuneful.pipeline.work import run_next
from tuneful.records import Candidates, Completion, Prompt
from tuneful.web import quality as pages

KNOWN = Candidates(Prompt("A known one?"), tuple(Completion(text) for text in ("Yes.", "Perhaps.", "No.")))

SCRIPT = "<script>alert(1)</script>"


def judge(site: Any, project: str, *, name: str = "", key: Callable[[int], int] = lambda place: place) -> str:
    """Somebody new who judges every item, by `key` of the places at which its answers are stored: the lowest is best,
    has 1 point and is answered with yes where it is 0."""
    who = site.rater(project, name=name)
    client = signed_in(site, who)
    kind = find_project(site.store, project).kind
    while (given := client.post(f"/p/{project}/claim", json={}).json()["assignment"]) is not None:
        keys = [key(n) for n in range(len(given["answers"]))]
        ids = sorted(answer["id"] for answer in given["answers"])
        ranks = {id_: 1 + sorted(keys).index(own) for id_, own in zip(ids, keys, strict=True)}
        values = {"binary": {"helpful": int(keys[0] == 0)}, "rating": ranks}.get(kind, {})
        said = {"ranks": ranks if kind in ("ranking", "comparison") else {}, "values": values, "text": "I would …"}
        said |= {"id": str(uuid.uuid4()), "seconds": 12}
        assert client.post(f"/a/{given['id']}/submit", json=said).status_code == 200
    return str(who)


def lead(site: Any, project: str) -> Any:
    return signed_in(site, site.rater(project, role="lead"))


def of_group(site: Any, name: str, raters: list[str]) -> None:
    query = update(rater).where(rater.c.id.in_(raters)).values(groups=[name])
    site.store.write(lambda connection: connection.execute(query))


def num_snapshots(site: Any) -> int:
    with site.store.read() as connection:
        return int(connection.execute(select(func.count()).select_from(snapshot)).scalar_one())


def test_a_project_without_judgments_says_so(site: Any) -> None:
    project = site.project()
    page = lead(site, project).get(f"/lead/{project}/quality")
    assert page.status_code == 200
    assert "Nothing was judged yet" in page.text


def test_labelers_agreement_and_hard_items_are_on_the_page(site: Any) -> None:
    project = site.project(items=8, overlap=3)
    judge(site, project, name="Ann")
    publish_instructions(site.store, project, "Now read *this*.", now=site.now())
    judge(site, project, name="Bo")
    judge(site, project, key=lambda place: -place)
    site.rater(project, name="Idle Ida")
    client = lead(site, project)
    assert f'href="/lead/{project}/quality"' in client.get(f"/lead/{project}").text
    page = client.get(f"/lead/{project}/quality").text
    for expected in ("Ann", "Bo", "24 judgments of 3 people", "version 2", "Idle Ida", "My house is too hot, 0 of 8."):
        assert expected in page
    for heading in ("Labelers", "Over time", "Who agrees with whom", "Hardest items"):
        assert f">{heading}</h" in page
    assert page.count("<svg") == 3
    (first, last) = re.findall(r'<text x="\d+" y="176"[^>]*>([^<]*)</text>', page)
    times = sorted(one.created_at[:16].replace("T", " ") for one in site.judgments(project))
    assert (first, last) == (times[0], f"{times[-1]} UTC")
    hard = page.partition("Hardest items")[2]
    linked = set(re.findall(rf'href="/lead/{project}/items/([^"]+)"', hard))
    assert linked and linked <= {one.item for one in site.judgments(project)}
    assert re.search(r'class="cell heat-8"><title>\d and \d: 100% of 48 alike', page)
    assert re.search(r'class="cell heat-0"><title>\d and \d: 0% of 48 alike', page)


@pytest.mark.parametrize(
    ("kind", "answers", "told"),
    [
        ("comparison", 2, "Who agrees with whom"),
        ("binary", 1, "Dawid and Skene"),
        ("rating", 3, "the rankings they imply"),
        ("demonstration", 1, "no agreement to measure"),
    ],
)
def test_every_kind_has_a_page(site: Any, kind: Any, answers: int, told: str) -> None:
    project = site.project(kind, answers=answers, items=6, overlap=2)
    for _ in range(2):
        judge(site, project)
    page = lead(site, project).get(f"/lead/{project}/quality")
    assert page.status_code == 200
    assert told in page.text


def test_nothing_on_it_is_styled_or_scripted_in_line(site: Any) -> None:
    project = site.project(items=4, overlap=2)
    for _ in range(2):
        judge(site, project)
    page = lead(site, project).get(f"/lead/{project}/quality").text
    assert not re.search(r"<[^>]* (style|on\w+)=", page)
    assert "<style" not in page


def test_hostile_names_and_texts_are_shown_as_text(site: Any) -> None:
    project = site.project(items=2, overlap=5, answers=2, texts=[SCRIPT, '"><img src=x onerror=alert(1)>'])
    raters = [judge(site, project, name=f"{SCRIPT}{n}\u202e") for n in range(5)]
    of_group(site, f'"><b>{SCRIPT}', raters)
    client = lead(site, project)
    page = client.get(f"/lead/{project}/quality").text
    assert "&lt;script&gt;alert(1)" in page
    for refused in ("<script>alert", "<img src=x", "<b>"):
        assert refused not in page
    answer = client.get(f"/lead/{project}/quality", params={"group": SCRIPT}, headers={"accept": "text/html"})
    assert answer.status_code == 400
    assert "<script>alert" not in answer.text


def test_groups_are_compared_and_shown_alone_without_people(site: Any) -> None:
    project = site.project(items=3, answers=2, overlap=11)
    nurses = [judge(site, project, name=f"Nurse {n}") for n in range(5)]
    bakers = [judge(site, project, name=f"Baker {n}", key=lambda place: -place) for n in range(5)]
    of_group(site, "nurse", nurses)
    of_group(site, "baker", bakers)
    of_group(site, "queen", [judge(site, project, name="Liz")])
    client = lead(site, project)
    page = client.get(f"/lead/{project}/quality").text
    assert '<option value="nurse">nurse (5)</option>' in page
    assert "queen" not in page
    assert "Groups of fewer than 5 people, which are not shown: 1." in page
    assert "Groups of people" in page
    alone = client.get(f"/lead/{project}/quality", params={"group": "nurse"}).text
    assert "15 judgments of 5 people who say they are of" in alone
    assert "Nurse 0" not in alone
    refused = client.get(f"/lead/{project}/quality", params={"group": "queen"})
    assert (refused.status_code, "fewer than 5" in refused.json()["error"]) == (400, True)


def test_few_judgments_are_measured_for_the_page_and_not_kept(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project = site.project(items=2, overlap=3)
    judge(site, project)
    client = lead(site, project)
    times = []
    monkeypatch.setattr(pages, "measure", lambda *given, **more: times.append(1) or measured.measure(*given, **more))
    for _ in range(2):
        assert "2 judgments of 1 person" in client.get(f"/lead/{project}/quality").text
    assert (len(times), num_snapshots(site)) == (1, 0)
    judge(site, project)
    assert "4 judgments of 2 people" in client.get(f"/lead/{project}/quality").text
    assert (len(times), num_snapshots(site)) == (2, 0)


def test_many_judgments_are_shown_as_they_were_measured_last(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "FEW", 3)
    project = site.project(items=2, overlap=3)
    for _ in range(2):
        judge(site, project)
    client = lead(site, project)
    place = f"/lead/{project}/quality"
    assert "Not measured yet: 4 judgments" in client.get(place).text
    answer = client.post(place)
    assert (answer.status_code, answer.headers["location"]) == (303, place)
    assert num_snapshots(site) == 0  # a worker does it
    assert run_next(site.store, note=lambda _: None)
    assert num_snapshots(site) == 1
    assert "measured just now." in client.get(place).text
    judge(site, project)
    site.moved += 7300
    assert "4 judgments of 2 people, measured 2 hours ago; 2 came since." in client.get(place).text
    client.post(place)
    assert run_next(site.store, note=lambda _: None)
    assert latest(site.store, project).judgments == 6  # type: ignore[union-attr]


@pytest.mark.parametrize("change", ["known answer", "instructions"])
def test_what_judgments_are_held_against_makes_a_measurement_old(
    site: Any, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """No judgment comes, and what was measured is not so any more: few are measured again, for many there is a button.
    A known order that is turned round makes of each pair that was right one that is wrong."""
    project = site.project(items=2, overlap=3)
    made = add_gold(site.store, project, [Gold(KNOWN, ranks=(1, 2, 3))], now=site.now())
    set_quiz(site.store, project, quiz=0, gold_every=2, now=site.now())
    judge(site, project)
    client, place = lead(site, project), f"/lead/{project}/quality"
    client.post(place)
    before = latest(site.store, project)
    assert "Measure now" not in client.get(place).text
    if change == "instructions":
        publish_instructions(site.store, project, "Now read this.", now=site.now())
    else:
        mend_gold(site.store, made[0], by=site.rater(project, role="lead"), ranks=(3, 2, 1), why="", now=site.now())
    monkeypatch.setattr(pages, "FEW", 0)
    page = client.get(place).text
    assert "have changed since" in page and "Measure now" in page
    monkeypatch.undo()
    again = client.get(place).text
    assert "have changed since" not in again
    client.post(place)
    after = latest(site.store, project)
    assert before is not None and after is not None
    was, now_is = (card.gold.value for one in (before, after) for card in one.cards if card.gold is not None)
    assert now_is == pytest.approx(was if change == "instructions" else 1 - was)
    monkeypatch.setattr(pages, "FEW", 0)
    assert "Measure now" not in client.get(place).text


def test_a_measurement_with_other_groups_is_not_shown(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who was forgotten may make a group too small to be shown."""
    project = site.project(items=2, overlap=5)
    raters = [judge(site, project) for _ in range(5)]
    of_group(site, "nurse", raters)
    client = lead(site, project)
    client.post(f"/lead/{project}/quality")
    assert ">nurse</bdi>" in client.get(f"/lead/{project}/quality").text
    of_group(site, "", raters[:1])
    monkeypatch.setattr(pages, "FEW", 0)
    assert "nurse" not in client.get(f"/lead/{project}/quality").text


def test_labelers_and_strangers_do_not_see_it(site: Any) -> None:
    project = site.project()
    client = signed_in(site, site.rater(project))
    assert client.get(f"/lead/{project}/quality").status_code == 403
    assert client.post(f"/lead/{project}/quality").status_code == 403
