"""The lead's pages, from an empty store to pairs for a reward model."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.web.client import form_token, signed_in, visitor
from tuneful.data.formats import read_comparisons, read_unpaired
from tuneful.feedback.access import accept, invite_first_admin
from tuneful.feedback.items import candidates
from tuneful.feedback.judgments import read_judgments
from tuneful.feedback.projects import create_project, progress

ROWS = [
    {"prompt": f"question {n}", "completions": [{"text": f"answer {k}", "id": f"{n}-{k}"} for k in range(3)]}
    for n in range(4)
]


def admin(site: Any) -> Any:
    secret = invite_first_admin(site.store, now=site.now())
    assert secret is not None
    return signed_in(site, accept(site.store, secret, login="ada", password="correct horse", now=site.now()))


def items(rows: list[dict[str, Any]] | str) -> dict[str, Any]:
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    return {"file": ("items.jsonl", text.encode())}


def test_from_nothing_to_pairs(site: Any, tmp_path: Path) -> None:
    lead = admin(site)
    filled = {"name": "helpful answers", "kind": "ranking", "criterion": "helpful", "instructions": "# Read *first*"}
    place = lead.post("/lead/new", data=filled).headers["location"]
    project = place.removeprefix("/lead/")
    assert lead.post(f"{place}/items", files=items(ROWS), data={"overlap": "2"}).status_code == 303
    link = lead.post(f"{place}/invitations", data={"role": "labeler"}).text.split('readonly value="')[1].split('"')[0]
    for login in ("bo", "cy"):
        join(site, link, login, project)
        link = lead.post(f"{place}/invitations").text.split('readonly value="')[1].split('"')[0]
    page = lead.get(place).text
    assert "8 of 8 judgments, 4 of 4 items finished" in page
    assert "<em>first</em>" in page
    (tmp_path / "preferences.jsonl").write_bytes(lead.get(f"{place}/export/preferences.jsonl").content)
    pairs = read_comparisons(tmp_path / "preferences.jsonl")
    assert len(pairs) == 4 * 3
    assert all(pair.chosen < pair.rejected and pair.p > 0.5 for pair in pairs)  # both liked "answer 0" best
    (tmp_path / "judgments.jsonl").write_bytes(lead.get(f"{place}/export/judgments.jsonl").content)
    assert read_judgments(tmp_path / "judgments.jsonl") == site.judgments(project)


def test_yes_and_no_is_taken_home_as_good_and_bad_answers(site: Any, tmp_path: Path) -> None:
    project = site.project("binary", items=4, answers=1, overlap=2)
    lead = signed_in(site, site.rater(project, role="lead"))
    assert "/export/preferences.jsonl" not in (page := lead.get(f"/lead/{project}").text)
    assert "no answer yet" in page
    for _ in range(2):
        answer_all(site, project, lambda item, _: {"helpful": int(item < 2)})
    assert f"/lead/{project}/export/unpaired.jsonl" in lead.get(f"/lead/{project}").text
    (tmp_path / "unpaired.jsonl").write_bytes(lead.get(f"/lead/{project}/export/unpaired.jsonl").content)
    answers = read_unpaired(tmp_path / "unpaired.jsonl")
    assert [one.label for one in sorted(answers, key=lambda one: one.prompt.text)] == [True, True, False, False]
    assert all(one.p is not None and (one.p > 0.8 or one.p < 0.2) for one in answers)


def test_ratings_are_taken_home_as_pairs(site: Any, tmp_path: Path) -> None:
    project = site.project("rating", items=3, answers=2, overlap=2)
    lead = signed_in(site, site.rater(project, role="lead"))
    assert "nobody rated two answers of an item yet" in lead.get(f"/lead/{project}").text
    for _ in range(2):
        answer_all(site, project, lambda _, ids: dict(zip(sorted(ids), (6, 2), strict=True)))
    assert f"/lead/{project}/export/preferences.jsonl" in lead.get(f"/lead/{project}").text
    (tmp_path / "preferences.jsonl").write_bytes(lead.get(f"/lead/{project}/export/preferences.jsonl").content)
    pairs = read_comparisons(tmp_path / "preferences.jsonl")
    assert len(pairs) == 3
    texts = {one.id: one.text for item in candidates(site.store, project) for one in item.completions}
    best = {(texts[min(one.completions)], texts[max(one.completions)]) for one in site.judgments(project)}
    assert {(pair.chosen, pair.rejected) for pair in pairs} == best
    assert all(pair.p > 0.5 for pair in pairs)


def test_ratings_of_single_answers_are_no_trouble(site: Any) -> None:
    project = site.project("rating", items=2, answers=1)
    answer_all(site, project, lambda _, ids: {ids[0]: 4})
    page = signed_in(site, site.rater(project, role="lead")).get(f"/lead/{project}").text
    assert "nobody rated two answers of an item yet" in page
    assert "There is no consensus" not in page


def answer_all(site: Any, project: str, values: Callable[[int, list[str]], dict[str, float]]) -> None:
    """Somebody new who judges every item by its number and the ids of its answers."""
    labeler = signed_in(site, site.rater(project))
    while (given := labeler.post(f"/p/{project}/claim", json={}).json()["assignment"]) is not None:
        number = int(given["prompt"][-1]["content"].split("hot, ")[1].split(" ")[0])
        said = {"id": str(uuid.uuid4()), "values": values(number, [answer["id"] for answer in given["answers"]])}
        assert labeler.post(f"/a/{given['id']}/submit", json=said).status_code == 200


def join(site: Any, link: str, login: str, project: str) -> None:
    """Accept an invitation and rank everything, answers with lower numbers first."""
    client = visitor(site)
    path = link.removeprefix("http://site")
    filled = {"csrf": form_token(client.get(path).text), "login": login, "password": "correct horse"}
    assert client.post(path, data=filled).headers["location"] == f"/p/{project}"
    token = form_token(client.get("/").text)
    client.headers["x-csrf-token"] = token
    while (given := client.post(f"/p/{project}/claim", json={}).json()["assignment"]) is not None:
        order = sorted(given["answers"], key=lambda answer: answer["text"])
        said = {"id": str(uuid.uuid4()), "ranks": {answer["id"]: n + 1 for n, answer in enumerate(order)}}
        assert client.post(f"/a/{given['id']}/submit", json=said).status_code == 200


def test_a_broken_file_is_refused_with_its_line_and_nothing_is_taken(site: Any) -> None:
    lead = admin(site)
    place = lead.post("/lead/new", data={"name": "a"}).headers["location"]
    broken = json.dumps(ROWS[0]) + "\n" + '{"prompt": 7, "completions": []}\n'
    answer = lead.post(f"{place}/items", files=items(broken))
    assert answer.status_code == 400
    assert "items.jsonl" in answer.json()["error"]
    assert "2" in answer.json()["error"]
    assert "0 of 0 judgments" in lead.get(place).text


def test_every_fault_of_an_upload_is_told_by_the_lead_s_name_of_the_file(site: Any) -> None:
    lead = admin(site)
    place = lead.post("/lead/new", data={"name": "a"}).headers["location"]
    answer = lead.post(
        f"{place}/items", files=items([ROWS[0], *({"prompt": f"p{n}", "completions": ["a"]} for n in range(5))])
    )
    assert answer.status_code == 400
    told = [
        f"items.jsonl:{n + 2}: prompt 'p{n}': has 1 completion; a ranking is of 2 to 9 completions" for n in range(3)
    ]
    mend = 'mend them, or tick "Take the rest of a file with errors"'
    assert f"{' | '.join(told)} | and 2 more; {mend}" in answer.json()["error"]
    assert "0 of 0 judgments" in lead.get(place).text


def test_the_rest_of_a_file_is_taken_where_it_is_asked_for(site: Any) -> None:
    lead = admin(site)
    place = lead.post("/lead/new", data={"name": "a"}).headers["location"]
    rows = [ROWS[0], {"prompt": "<b>p</b>", "completions": ["a"]}, ROWS[1]]
    for told in ("2 items added", "No items added; 2 were there already"):
        answer = lead.post(f"{place}/items", files=items(rows), data={"skip_broken": "true"}, headers=PAGE)
        assert answer.status_code == 200
        assert told in " ".join(answer.text.split())
        assert "1 part of the file is broken and was left out" in answer.text
        assert '<li dir="auto">line 2: prompt &#39;&lt;b&gt;p&lt;/b&gt;&#39;: has 1 completion' in answer.text
    assert "0 of 6 judgments" in lead.get(place).text


def test_prompts_alone_can_be_uploaded_for_demonstrations(site: Any) -> None:
    lead = admin(site)
    place = lead.post("/lead/new", data={"name": "a", "kind": "demonstration"}).headers["location"]
    assert lead.post(f"{place}/items", files=items([{"prompt": "hot"}]), data={"overlap": "1"}).status_code == 303
    assert "0 of 1 judgments" in lead.get(place).text
    given = lead.post(f"/p/{place.removeprefix('/lead/')}/claim", json={}).json()["assignment"]
    assert (given["prompt"][0]["content"], given["answers"]) == ("hot", [])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('{"prompt": "What?", "completions": [{"text": "a"', "valid JSON"),
        (json.dumps({"completions": [{"text": "a"}]}), "prompt"),
        ("[1, 2]", "object"),
    ],
)
def test_a_broken_row_is_named_by_its_line_and_no_other_is_taken(site: Any, row: str, told: str) -> None:
    project = site.project(items=2)
    lead = signed_in(site, site.rater(project, role="lead"))
    whole = [json.dumps({"prompt": f"new {n}", "completions": [{"text": "a"}, {"text": "b"}]}) for n in range(2)]
    file = ("<b>items</b>.jsonl", "\n".join([whole[0], "", row, whole[1]]).encode())
    answer = lead.post(f"/lead/{project}/items", files={"file": file}, headers={"accept": "text/html"})
    assert answer.status_code == 400
    assert "&lt;b&gt;items&lt;/b&gt;.jsonl:3: " in answer.text
    assert told in answer.text
    assert progress(site.store, project).items == 2


PAGE = {"accept": "text/html"}


def offered(page: str) -> set[str]:
    return set(re.findall(r"/export/(\w+)\.jsonl", page))


def told_of(page: str) -> str:
    (told,) = re.findall(r'<p class="notice[^>]*role="(?:status|alert)">(.*?)</p>', page, re.DOTALL)
    return " ".join(unescape(told).split())


def test_how_many_items_were_added_is_said(site: Any) -> None:
    lead = admin(site)
    place = lead.post("/lead/new", data={"name": "a"}).headers["location"]
    told = [
        told_of(lead.get(lead.post(f"{place}/items", files=items(rows), data=asked).headers["location"]).text)
        for rows, asked in ((ROWS[:1], {}), (ROWS[:3], {}), (ROWS[:3], {"overlap": "5"}), (ROWS[:1], {"overlap": "5"}))
    ]
    assert told == [
        "1 item added.",
        "2 items added; 1 was there already and stays as it is, for as many labelers as before.",
        "No items added; 3 were there already and stay as they are, for as many labelers as before.",
        "No items added; 1 was there already and stays as it is, for as many labelers as before.",
    ]
    assert "0 of 9 judgments" in lead.get(place).text


def test_invitations_are_taken_back_and_members_removed(site: Any) -> None:
    lead = admin(site)
    place = lead.post("/lead/new", data={"name": "a"}).headers["location"]
    project = place.removeprefix("/lead/")
    lead.post(f"{place}/items", files=items(ROWS), data={"overlap": "1"})
    link = lead.post(f"{place}/invitations").text.split('readonly value="')[1].split('"')[0]
    (back,) = re.findall(r'action="([^"]*/taken-back)"', lead.get(place).text)
    assert lead.post(back).headers["location"] == f"{place}#people"
    assert visitor(site).get(link.removeprefix("http://site")).status_code == 403
    assert "taken-back" not in lead.get(place).text
    assert lead.post(back).status_code == 404
    rater = site.rater(project, name="Bo")
    (out,) = re.findall(r'action="([^"]*/removed)"', lead.get(place).text)  # nobody removes themselves
    labeler = signed_in(site, rater)
    assert labeler.post(out).status_code == 403
    assert labeler.post(f"/p/{project}/claim", json={}).json()["assignment"]
    assert lead.post(out).headers["location"] == f"{place}#people"
    assert labeler.post(f"/p/{project}/claim", json={}).status_code == 403
    assert "Bo" not in lead.get(place).text  # who judged nothing is no part of it


def test_a_form_that_was_refused_is_shown_again_as_it_was_filled(site: Any) -> None:
    lead = admin(site)
    lead.post("/lead/new", data={"name": "a"})
    filled = {"name": "a", "kind": "rating", "criterion": "honest <b>", "instructions": "Read *this*\nfirst"}
    refused = lead.post("/lead/new", data=filled, headers=PAGE)
    assert refused.status_code == 400
    assert told_of(refused.text) == 'project "a": there is one of that name; choose another'
    for part in ('value="a"', "<option selected>rating</option>", 'value="honest &lt;b&gt;"', ">Read *this*\nfirst<"):
        assert part in refused.text
    for nameless in ("", "  "):
        assert told_of(lead.post("/lead/new", data={"name": nameless}, headers=PAGE).text) == "a project needs a name"
    unstorable = lead.post("/lead/new", data={"name": "b", "instructions": "a\0b"}, headers=PAGE)
    assert unstorable.status_code == 400
    assert lead.post("/lead/new", data={"name": "b"}).status_code == 303  # nothing was made of it


def test_a_file_of_items_that_was_refused_is_told_beside_its_form(site: Any) -> None:
    project = site.project(items=1)
    lead = signed_in(site, site.rater(project, role="lead"))
    lone = [{"prompt": "p", "completions": [{"text": "a"}]}]
    refused = lead.post(f"/lead/{project}/items", files=items(lone), data={"overlap": "7"}, headers=PAGE)
    assert refused.status_code == 400
    told = "No item was added: items.jsonl: 1 broken part, so nothing was taken: items.jsonl:1: prompt 'p'"
    assert told_of(refused.text).startswith(told)
    assert 'name="overlap" value="7"' in refused.text
    assert progress(site.store, project).items == 1


def test_of_a_file_with_many_faults_the_page_lists_all(site: Any) -> None:
    project = site.project(items=1)
    lead = signed_in(site, site.rater(project, role="lead"))
    rows = [{"prompt": f"<b>{n}</b>", "completions": ["a"]} for n in range(5)]
    refused = lead.post(f"/lead/{project}/items", files=items(rows), headers=PAGE)
    assert refused.status_code == 400
    assert told_of(refused.text).endswith("Add items</a>")
    assert "| and 2 more; mend them" in told_of(refused.text)
    listed = re.findall(r'<li dir="auto">(line .*?)</li>', refused.text)
    assert [unescape(line).split("</b>")[0] for line in listed] == [f"line {n + 1}: prompt '<b>{n}" for n in range(5)]
    assert "5 parts of the file are broken, and nothing was taken" in refused.text
    assert progress(site.store, project).items == 1


def test_demonstrations_have_no_known_items(site: Any) -> None:
    project = site.project("demonstration", items=1)
    lead = signed_in(site, site.rater(project, role="lead"))
    shown = lead.get(f"/lead/{project}/gold", headers=PAGE).text
    assert "projects of demonstrations have no known items and no quiz" in " ".join(shown.split())
    assert "tuneful label gold" not in shown


@pytest.mark.parametrize("kind", ["ranking", "binary", "demonstration"])
def test_what_is_not_there_yet_is_not_offered(site: Any, kind: Any) -> None:
    made = create_project(site.store, f"empty {kind}", kind, now=site.now())
    lead = signed_in(site, site.rater(made, role="lead"))
    page = lead.get(f"/lead/{made}").text
    assert offered(page) == set()
    assert "Write a dataset" not in page
    assert ("preferences.jsonl" in page) == (kind == "ranking")
    assert ("decisions.jsonl" in page) == (kind != "demonstration")
    for refused in (
        lead.get(f"/lead/{made}/export/preferences.jsonl", headers=PAGE),
        lead.post(f"/lead/{made}/datasets", headers=PAGE),
    ):
        assert refused.status_code == 400
        assert refused.headers["content-type"].startswith("text/html")
        assert f'href="/lead/{made}">Back to the project' in refused.text
    assert "there are none yet" in lead.get(f"/lead/{made}/export/preferences.jsonl").json()["error"]


def test_what_is_there_is_offered(site: Any) -> None:
    project = site.project(items=1, answers=2)
    lead = signed_in(site, site.rater(project, role="lead"))
    assert offered(lead.get(f"/lead/{project}").text) == {"completions"}
    client = signed_in(site, site.rater(project))
    given = client.post(f"/p/{project}/claim", json={}).json()["assignment"]
    ranks = {answer["id"]: n + 1 for n, answer in enumerate(given["answers"])}
    client.post(f"/a/{given['id']}/submit", json={"id": str(uuid.uuid4()), "ranks": ranks})
    page = lead.get(f"/lead/{project}").text
    assert offered(page) == {"preferences", "judgments", "completions"}
    assert "Write a dataset" in page
    assert "nothing settled yet" in page
    lead.post(f"/lead/{project}/decisions", data={"item": site.judgments(project)[0].item, "rank": ["1", "2"]})
    assert offered(lead.get(f"/lead/{project}").text) == {"preferences", "judgments", "completions", "decisions"}


def test_who_may_not_see_a_project_is_not_led_to_it(site: Any) -> None:
    project = site.project(items=1)
    refused = signed_in(site, site.rater(project)).get(f"/lead/{project}/gold", headers=PAGE)
    assert (refused.status_code, "Back to the project" in refused.text) == (403, False)


def test_two_projects_cannot_share_a_name(site: Any) -> None:
    lead = admin(site)
    lead.post("/lead/new", data={"name": "a"})
    answer = lead.post("/lead/new", data={"name": "a"})
    assert (answer.status_code, "choose another" in answer.json()["error"]) == (400, True)


def test_how_far_an_overlap_may_grow_is_set_on_the_page(site: Any) -> None:
    project = site.project(items=3, overlap=2)
    lead = signed_in(site, site.rater(project, role="lead"))
    assert "up to" not in lead.get(f"/lead/{project}").text.split("Progress")[1].split("</p>")[0]
    assert lead.post(f"/lead/{project}/overlap", data={"most": "5", "sure": "0.85"}).status_code == 303
    page = lead.get(f"/lead/{project}").text
    assert 'name="most" value="5"' in page
    assert 'name="sure" value="0.85"' in page
    assert "0 of 6 judgments asked for now (up to 15), 0 of 3 items finished" in page
    refused = lead.post(f"/lead/{project}/overlap", data={"most": "5", "sure": "1"})
    assert (refused.status_code, "never reached" in refused.json()["error"]) == (400, True)
    labeler = signed_in(site, site.rater(project))
    assert labeler.post(f"/lead/{project}/overlap", data={"most": "5", "sure": "0.85"}).status_code == 403


def test_no_overlap_adapts_to_what_orders_nothing(site: Any) -> None:
    project = site.project("rating", answers=3)
    lead = signed_in(site, site.rater(project, role="lead"))
    assert f"/lead/{project}/overlap" not in lead.get(f"/lead/{project}").text
    assert lead.post(f"/lead/{project}/overlap", data={"most": "5", "sure": "0.9"}).status_code == 400


def test_hostile_text_is_shown_as_text(site: Any) -> None:
    project = site.project(texts=["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'], answers=2, overlap=2)
    for _ in range(2):
        client = signed_in(site, site.rater(project, name="<b>Bo</b>"))
        given = client.post(f"/p/{project}/claim", json={}).json()["assignment"]
        ranks = {answer["id"]: n + 1 for n, answer in enumerate(given["answers"])}
        client.post(f"/a/{given['id']}/submit", json={"id": str(uuid.uuid4()), "ranks": ranks})
    page = signed_in(site, site.rater(project, role="lead")).get(f"/lead/{project}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "<b>Bo" not in page


def test_many_projects_are_listed_with_as_few_queries_as_one(site: Any) -> None:
    lead = admin(site)
    said = list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    def queries() -> int:
        said.clear()
        event.listen(Engine, "before_cursor_execute", note)
        page = lead.get("/")
        event.remove(Engine, "before_cursor_execute", note)
        assert page.status_code == 200
        return sum(" FROM " in one for one in said)

    site.project(items=2)
    one = queries()
    names = [site.project(items=n, overlap=2) for n in range(5)]
    assert queries() == one
    page = lead.get("/").text
    for n, name in enumerate(names):
        card = page[page.index(f'href="/p/{name}"') :]
        assert f"0 of {2 * n} judgments" in card.partition("</li>")[0]
