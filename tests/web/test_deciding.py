"""The lead's pages on items, on either database: look, settle, make gold, instruct, write a dataset down."""

from __future__ import annotations

import io
import json
import re
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.feedback.store.conftest import server, store, url  # noqa: F401
from tests.web.browser.hostile import families
from tests.web.client import signed_in
from tests.web.conftest import ANSWERS, Site
from tuneful.cli.main import app
from tuneful.data.formats import read_comparisons
from tuneful.feedback import trail
from tuneful.feedback.access import accept, invite
from tuneful.feedback.dataset_manifest import verify_dataset
from tuneful.feedback.decisions import decisions
from tuneful.feedback.pages import guides
from tuneful.feedback.projects import create_project, find_project
from tuneful.feedback.settling import read_decisions
from tuneful.feedback.store import Store
from tuneful.feedback.versions import versions


@pytest.fixture
def site(store: Store) -> Iterator[Site]:  # noqa: F811
    """On either database."""
    opened = Site(store)
    yield opened
    opened.close()


def judge(site: Any, project: str, values: Sequence[float] = (), **said: Any) -> str:
    """A labeler who ranks everything, answers in the order of their texts, or gives the first answer these values."""
    rater = site.rater(project)
    client = signed_in(site, rater)
    while (given := client.post(f"/p/{project}/claim", json={}).json()["assignment"]) is not None:
        order = sorted(given["answers"], key=lambda answer: answer["text"])[:: said.get("sign", 1)]
        word = {"id": str(uuid.uuid4()), "ranks": {answer["id"]: n + 1 for n, answer in enumerate(order)}}
        word |= {name: value for name, value in said.items() if name != "sign"}
        if values:
            kind = find_project(site.store, project).kind
            word |= {"ranks": {}, "values": {order[0]["id"] if kind == "rating" else "helpful": values[0]}}
        assert client.post(f"/a/{given['id']}/submit", json=word).status_code == 200
    return str(rater)


def lead_of(site: Any, project: str) -> Any:
    return signed_in(site, site.rater(project, role="lead"))


def items_in(page: str, project: str) -> list[str]:
    return [unescape(one) for one in re.findall(rf'href="/lead/{project}/items/([^"?]+)"', page)]


def test_a_disputed_item_is_found_settled_and_exported(site: Any) -> None:
    """Two labelers have contrary opinions of all; the lead settles the first item as the second of them has it."""
    project = site.project(items=3, answers=2, overlap=2)
    raters = [judge(site, project, sign=sign, note=f"note {sign}") for sign in (1, -1)]
    lead = lead_of(site, project)
    place = f"/lead/{project}"
    table = lead.get(f"{place}/items").text
    assert "3 unsure" in table
    item = items_in(table, project)[0]
    page = lead.get(f"{place}/items/{item}").text
    for text in (ANSWERS[0], ANSWERS[1], "note 1", "note -1", *(rater[:8] for rater in raters)):
        assert text in page
    assert "0.50" in page  # the consensus knows nothing of which is better
    answer = {"item": item, "replaces": "", "rank": ["2", "1"], "why": "It is cheaper."}
    assert lead.post(f"{place}/decisions", data=answer).headers["location"] == f"{place}/items/{item}"
    page = lead.get(f"{place}/items/{item}").text
    assert "It is cheaper." in page
    assert "A 2, B 1" in " ".join(page.split())
    assert "2 unsure" in lead.get(f"{place}/items").text
    assert items_in(lead.get(f"{place}/items?show=decided").text, project) == [item]
    rows = [json.loads(line) for line in lead.get(f"{place}/export/preferences.jsonl").text.splitlines()]
    (decided,) = [row for row in rows if row["group"] == item]
    assert (decided["chosen"], decided["p"]) == ([{"role": "assistant", "content": ANSWERS[1]}], 1.0)
    assert all(row["p"] < 1 for row in rows if row["group"] != item)


def test_people_are_called_by_their_names(site: Any) -> None:
    """A labeler by the name they gave, a lead without one by the login; a labeler without one by no login."""
    project = site.project(items=1, answers=2, overlap=2)
    (lead, plain), named = (account(site, project, login) for login in ("ada", "cy")), site.rater(project, name="Bo")
    for rater in (named, plain):
        client = signed_in(site, rater)
        given = client.post(f"/p/{project}/claim", json={}).json()["assignment"]
        ranks = {answer["id"]: n + 1 for n, answer in enumerate(given["answers"])}
        said = {"id": str(uuid.uuid4()), "ranks": ranks, "note": "a note"}
        assert client.post(f"/a/{given['id']}/submit", json=said).status_code == 200
    client = signed_in(site, lead)
    (item,) = items_in(client.get(f"/lead/{project}/items?show=all").text, project)
    assert client.post(f"/lead/{project}/decisions", data={"item": item, "rank": ["1", "2"]}).status_code == 303
    pages = [client.get(f"/lead/{project}{place}").text for place in (f"/items/{item}", "", "/quality")]
    for page in pages[:2]:
        assert f"<bdi>{plain[:8]}</bdi>" in page
        assert f"<bdi>{named[:8]}" not in page and f"<bdi>{lead[:8]}" not in page
    for page in pages:
        assert "<bdi>Bo</bdi>" in page and "<bdi>cy</bdi>" not in page
        assert "ada</bdi>" in page.partition("<main")[2]


def account(site: Any, project: str, login: str) -> str:
    """Somebody with an account and no name: "ada" leads."""
    role: Any = "lead" if login == "ada" else "labeler"
    secret = invite(site.store, project_id=project, role=role, now=site.now())
    return str(accept(site.store, secret, login=login, password="correct horse", now=site.now()))


def test_what_pages_export_is_what_the_command_exports(site: Any, tmp_path: Path) -> None:
    """The three files of the lead's page beside each other are all that the command needs for the fourth."""
    project = site.project(items=3, answers=3, overlap=2)
    for sign in (1, -1):
        judge(site, project, sign=sign)
    lead = lead_of(site, project)
    place = f"/lead/{project}"
    item = items_in(lead.get(f"{place}/items").text, project)[0]
    answer = {"item": item, "replaces": "", "rank": ["3", "1", "2"], "why": "It is cheaper."}
    assert lead.post(f"{place}/decisions", data=answer).status_code == 303
    for name in ("preferences", "judgments", "completions", "decisions"):
        (tmp_path / f"{name}.jsonl").write_bytes(lead.get(f"{place}/export/{name}.jsonl").content)
    (made,) = read_decisions(tmp_path / "decisions.jsonl")
    assert (made.item, made.ranks, made.why) == (item, (3, 1, 2), "It is cheaper.")
    given = ("--judgments", tmp_path / "judgments.jsonl", "--in", tmp_path / "completions.jsonl")
    done = CliRunner().invoke(app, [str(one) for one in ("label", "export", *given, "--out", tmp_path / "again.jsonl")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "preferences.jsonl").read_bytes()
    decided = [row for row in read_comparisons(tmp_path / "again.jsonl") if row.group == item]
    assert [row.p for row in decided] == [1.0, 1.0, 1.0]


def test_of_two_decisions_the_one_that_did_not_see_the_other_is_refused(site: Any) -> None:
    project = site.project(items=1, answers=2)
    judge(site, project)
    lead = lead_of(site, project)
    (item,) = items_in(lead.get(f"/lead/{project}/items?show=all").text, project)
    answer = {"item": item, "rank": ["1", "2"]}
    assert lead.post(f"/lead/{project}/decisions", data=answer).status_code == 303
    again = lead.post(f"/lead/{project}/decisions", data=answer)
    assert (again.status_code, "decided a moment ago" in again.text) == (400, True)
    typed = {"item": item, "rank": ["2", "1"], "why": "<b> is better"}
    shown = lead.post(f"/lead/{project}/decisions", data=typed, headers={"accept": "text/html"})
    assert shown.status_code == 400
    assert "It was not decided" in shown.text
    assert re.findall(r"<option selected>(\d)</option>", shown.text) == ["2", "1"]
    assert "&lt;b&gt; is better</textarea>" in shown.text
    (made,) = decisions(site.store, project)
    page = lead.get(f"/lead/{project}/items/{item}").text
    assert f'name="replaces" value="{made.id}"' in page
    assert lead.post(f"/lead/{project}/decisions", data=answer | {"replaces": made.id}).status_code == 303


@pytest.mark.parametrize(("kind", "sent", "kept"), [("binary", "0", 0.0), ("rating", "6.5", 6.5)])
def test_other_kinds_are_decided_by_values(site: Any, kind: Any, sent: str, kept: float) -> None:
    project = site.project(kind, items=1, answers=1)
    judge(site, project, values=(1.0,))
    lead = lead_of(site, project)
    (item,) = items_in(lead.get(f"/lead/{project}/items?show=all").text, project)
    page = lead.get(f"/lead/{project}/items/{item}").text
    (name,) = re.findall(r'name="name" value="([^"]+)"', page)
    answer = {"item": item, "name": name, "value": sent}
    assert lead.post(f"/lead/{project}/decisions", data=answer).status_code == 303
    (made,) = decisions(site.store, project)
    assert made.values == {name: kept}


def test_a_gold_item_is_made_of_a_decided_one_and_its_results_are_told(site: Any) -> None:
    project = site.project(items=1, answers=2, quiz=1)
    lead = lead_of(site, project)
    for _ in range(3):
        rater = site.rater(project)
        client = signed_in(site, rater)
        given = client.post(f"/p/{project}/claim", json={}).json()["assignment"]
        assert given["quiz"]
        worst_first = sorted(given["answers"], key=lambda answer: answer["text"])  # gold has them as they are stored
        ranks = {answer["id"]: n + 1 for n, answer in enumerate(worst_first)}
        assert (
            client.post(f"/a/{given['id']}/submit", json={"id": str(uuid.uuid4()), "ranks": ranks}).status_code == 200
        )
    page = lead.get(f"/lead/{project}/gold").text
    assert "probably a wrong gold item" in " ".join(page.split())
    (known,) = items_in(page, project)
    (item,) = set(items_in(lead.get(f"/lead/{project}/items?show=all").text, project)) - {known}
    lead.post(f"/lead/{project}/gold/answer", data={"item": known, "rank": ["2", "1"], "why": "It is cheaper."})
    assert "probably a wrong gold item" not in " ".join(lead.get(f"/lead/{project}/gold").text.split())
    me = signed_in(site, site.rater(project, role="lead"))
    given = me.post(f"/p/{project}/claim", json={}).json()["assignment"]
    ranks = {answer["id"]: n + 1 for n, answer in enumerate(given["answers"])}
    me.post(f"/a/{given['id']}/submit", json={"id": str(uuid.uuid4()), "ranks": ranks})
    lead.post(f"/lead/{project}/decisions", data={"item": item, "rank": ["1", "2"], "why": "A window is free."})
    made = lead.post(f"/lead/{project}/gold", data={"item": item, "why": "Told."}).headers["location"]
    shown = lead.get(made).text
    assert "An item whose answer is known" in shown
    assert "Told." in shown
    assert len(items_in(lead.get(f"/lead/{project}/gold").text, project)) == 2


def test_an_item_of_another_project_is_none_of_this_one(site: Any) -> None:
    mine, other = (site.project(items=1, answers=2) for _ in range(2))
    judge(site, other)
    (item,) = items_in(lead_of(site, other).get(f"/lead/{other}/items?show=all").text, other)
    lead = lead_of(site, mine)
    assert lead.get(f"/lead/{mine}/items/{item}").status_code == 404
    for place in ("decisions", "gold", "gold/answer"):
        assert lead.post(f"/lead/{mine}/{place}", data={"item": item, "rank": ["1", "2"]}).status_code == 404
        assert lead.post(f"/lead/{other}/{place}", data={"item": item, "rank": ["1", "2"]}).status_code == 403


def test_labelers_see_none_of_these_pages(site: Any) -> None:
    project = site.project(items=1)
    client = signed_in(site, site.rater(project))
    for place in ("items", "items/x", "gold", "instructions"):
        assert client.get(f"/lead/{project}/{place}").status_code == 403
    for place in ("decisions", "gold", "gold/answer", "instructions", "datasets"):
        assert client.post(f"/lead/{project}/{place}", data={"item": "x", "text": "x"}).status_code == 403


def test_what_forms_cannot_send_is_refused(site: Any) -> None:
    project = site.project(items=1, answers=2)
    judge(site, project)
    lead = lead_of(site, project)
    (item,) = items_in(lead.get(f"/lead/{project}/items?show=all").text, project)
    wrong: list[dict[str, Any]] = [
        {"rank": ["1", ""]},
        {"rank": ["1"]},
        {"rank": ["1", "x"]},
        {"name": ["a", "b"], "value": ["1"]},
        {"name": "helpful", "value": "nan"},
        {},
    ]
    for answer in wrong:
        assert lead.post(f"/lead/{project}/decisions", data={"item": item} | answer).status_code == 400, answer
    assert decisions(site.store, project) == []
    assert lead.get(f"/lead/{project}/items?show=nothing").status_code == 400
    assert lead.get(f"/lead/{project}/items?page=0").status_code == 400
    assert "Page 7" not in lead.get(f"/lead/{project}/items?page=7").text


def test_instructions_begin_with_a_template_and_are_looked_at_first(site: Any) -> None:
    project = site.project(items=1, instructions="# Rule\n\nBe kind.\nBe short.")
    lead = lead_of(site, project)
    place = f"/lead/{project}/instructions"
    preview = lead.post(place, data={"text": "# Rule\r\n\r\nBe **honest**.\r\nBe short.", "preview": "1"})
    assert "<strong>honest</strong>" in preview.text
    assert "<del>- Be kind.</del>" in preview.text
    assert "<ins>+ Be **honest**.</ins>" in preview.text
    assert "<ins>+ Be short." not in preview.text
    assert [one.text for one in guides(site.store, project)] == ["# Rule\n\nBe kind.\nBe short."]
    assert lead.post(place, data={"text": "# Rule\r\n\r\nBe **honest**.\r\nBe short."}).status_code == 303
    assert [one.text for one in guides(site.store, project)][1:] == ["# Rule\n\nBe **honest**.\nBe short."]
    page = lead.get(place).text
    assert "Version 2" in page
    assert "<del>- Be kind.</del>" in page
    assert "Put examples of" not in page


def sent_with(page: str) -> str:
    """The version that the form of instructions is written against."""
    (seen,) = re.findall(r'name="seen" value="(\d+)"', page)
    return str(seen)


def test_instructions_that_were_published_meanwhile_are_not_taken_back(site: Any) -> None:
    project = site.project(items=1, instructions="Be kind.")
    place = f"/lead/{project}/instructions"
    ada = signed_in(site, site.rater(project, role="lead", name="Ada"))
    bo = signed_in(site, site.rater(project, role="lead", name="Bo"))
    seen = [sent_with(client.get(where).text) for client, where in ((ada, f"/lead/{project}"), (bo, place))]
    assert seen == ["1", "1"]
    assert ada.post(place, data={"text": "A edit", "seen": "1"}).status_code == 303
    preview = bo.post(place, data={"text": "B edit", "seen": "1", "preview": "1"}).text
    assert sent_with(preview) == "1"  # who has seen a preview has not seen the other version
    refused = bo.post(place, data={"text": "B edit", "seen": "1"})
    assert refused.status_code == 400
    assert "published a moment ago by Ada: look at it first" in refused.text
    assert "required>B edit</textarea>" in refused.text
    assert "<del>- A edit</del>" in refused.text
    assert "<ins>+ B edit</ins>" in refused.text
    assert [one.text for one in guides(site.store, project)] == ["Be kind.", "A edit"]
    assert bo.post(place, data={"text": "B edit", "seen": sent_with(refused.text)}).status_code == 303
    assert [one.text for one in guides(site.store, project)] == ["Be kind.", "A edit", "B edit"]


def test_the_first_instructions_do_not_replace_others(site: Any) -> None:
    project = create_project(site.store, "new", now=site.now())
    lead, place = lead_of(site, project), f"/lead/{project}/instructions"
    assert sent_with(lead.get(f"/lead/{project}").text) == sent_with(lead.get(place).text) == "0"
    assert lead.post(place, data={"text": "A", "seen": "0"}).status_code == 303
    assert lead.post(place, data={"text": "B", "seen": "0"}).status_code == 400
    assert lead.post(place, data={"text": "A", "seen": "0"}).status_code == 303  # says the same: nothing is lost


def test_a_project_without_instructions_is_offered_some(site: Any) -> None:
    project = create_project(site.store, "new", "rating", criteria=("harmless",), now=site.now())
    page = lead_of(site, project).get(f"/lead/{project}/instructions").text
    assert "Nobody sees" not in page
    assert "An answer is harmless when" in page
    assert "1 to 7 points" in page
    assert guides(site.store, project) == []


def test_a_dataset_is_packed_and_listed(site: Any, tmp_path: Path) -> None:
    project = site.project(items=2, answers=2)
    judge(site, project)
    lead = lead_of(site, project)
    packed = lead.post(f"/lead/{project}/datasets")
    assert packed.headers["content-type"] == "application/zip"
    assert 'filename="dataset-1.zip"' in packed.headers["content-disposition"]
    zipfile.ZipFile(io.BytesIO(packed.content)).extractall(tmp_path / "d")
    assert verify_dataset(tmp_path / "d") == []
    (row,) = versions(site.store, project)
    assert json.loads((tmp_path / "d" / "manifest.json").read_text()) == row.manifest
    assert trail.holds(site.store, row.manifest["trail"]["events"], row.manifest["trail"]["head"])
    assert row.hash[:16] in lead.get(f"/lead/{project}").text
    assert lead.post(f"/lead/{project}/datasets").content == packed.content
    assert len(versions(site.store, project)) == 1
    lead.get(f"/lead/{project}/export/preferences.jsonl")
    assert len(versions(site.store, project)) == 1


def test_who_did_it_stands_in_the_trail(site: Any) -> None:
    project = site.project(items=1, answers=2)
    judge(site, project)
    ada = site.rater(project, role="lead")
    lead = signed_in(site, ada)
    (item,) = items_in(lead.get(f"/lead/{project}/items?show=all").text, project)
    lead.post(f"/lead/{project}/decisions", data={"item": item, "rank": ["1", "2"]})
    lead.post(f"/lead/{project}/gold", data={"item": item})
    lead.post(f"/lead/{project}/instructions", data={"text": "Be kind."})
    lead.post(f"/lead/{project}/invitations", data={"role": "labeler"})
    lead.post(f"/lead/{project}/datasets")
    mine = [one.what for one in trail.events(site.store, project) if one.rater == ada]
    assert mine == [
        *("item decided", "gold answer set", "instructions published", "invitation made", "dataset written")
    ]


def test_hostile_text_is_shown_as_text(site: Any) -> None:
    nasty = [text for name in ("tags", "attributes") for text in families()[name]][:9]
    project = site.project(items=1, answers=len(nasty), texts=nasty, instructions="\n".join(nasty))
    judge(site, project, note=nasty[0])
    lead = lead_of(site, project)
    (item,) = items_in(lead.get(f"/lead/{project}/items?show=all").text, project)
    ranks = [str(n + 1) for n in range(len(nasty))]
    lead.post(f"/lead/{project}/decisions", data={"item": item, "rank": ranks, "why": nasty[1]})
    made = lead.post(f"/lead/{project}/gold", data={"item": item, "why": nasty[2]}).headers["location"]
    lead.post(f"/lead/{project}/instructions", data={"text": nasty[3]})
    pages = [
        lead.get(f"/lead/{project}/items/{item}"),
        lead.get(made),
        lead.get(f"/lead/{project}/gold"),
        lead.get(f"/lead/{project}/items?show=all"),
        lead.get(f"/lead/{project}/instructions"),
        lead.post(f"/lead/{project}/instructions", data={"text": "\n".join(nasty), "preview": "1"}),
        lead.get(f"/lead/{project}/items/{nasty[0]}", headers={"accept": "text/html"}),
    ]
    for page in pages:
        assert page.status_code in (200, 404)
        for text in nasty:
            assert text not in page.text
