"""The page on which a lead asks models for answers: what it writes down, who may, and what it shows of it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.web.client import signed_in, visitor
from tuneful.feedback.access import accept, invite_first_admin
from tuneful.feedback.completions_wanted import KIND, wanted_by
from tuneful.feedback.items import add_items
from tuneful.feedback.jobs import add_job, claim, fail, jobs, report
from tuneful.records import Candidates, Completion, Prompt

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def admin(site: Any) -> Any:
    secret = invite_first_admin(site.store, now=site.now())
    assert secret is not None
    return signed_in(site, accept(site.store, secret, login="ada", password="correct horse", now=site.now()))


def prompts(text: str = "hot house\ncold tea\n", name: str = "prompts.txt") -> dict[str, Any]:
    return {"file": (name, text.encode())}


def asked(site: Any, project: str, **request: Any) -> str:
    given = {"models": ["a", "b"], "samples": 1, "temperature": 1.0, "max_new_tokens": 8, "prompts": ["hot"]}
    made = given | request
    return site.store.write(lambda c: add_job(c, project, KIND, made, by=None, total=10, now=site.now()))


def test_what_an_admin_asks_for_waits_for_a_worker(site: Any, admin: Any) -> None:
    project = site.project("comparison", answers=2)
    place = f"/lead/{project}/answers"
    assert place in admin.get(f"/lead/{project}").text
    filled = {"models": "runs/a\r\n\r\n runs/b \r\n", "samples": "3", "temperature": "0.5", "max_new_tokens": "9"}
    answer = admin.post(place, files=prompts(), data=filled | {"overlap": "2", "max_prompt_tokens": ""})
    assert (answer.status_code, answer.headers["location"]) == (303, place)
    job = claim(site.store, now=site.now())
    assert job is not None
    wanted = wanted_by(site.store, job)
    assert (wanted.prompts, wanted.models) == ((Prompt("hot house"), Prompt("cold tea")), ("runs/a", "runs/b"))
    assert (wanted.samples, wanted.temperature, wanted.max_new_tokens, wanted.overlap) == (3, 0.5, 9, 2)
    assert (wanted.max_prompt_tokens, job.total) == (None, 2)
    page = admin.get(place).text
    assert "runs/a" in page
    assert "0 of 2" in page


def test_two_asked_for_alike_are_not_answered_alike(site: Any, admin: Any) -> None:
    project = site.project("comparison", answers=2)
    for _ in range(2):
        admin.post(f"/lead/{project}/answers", files=prompts(), data={"models": "a\nb"})
    one, other = (claim(site.store, now=site.now()) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.request["seed"] != other.request["seed"]


@pytest.mark.parametrize(
    ("filled", "text", "said"),
    [
        ({"models": "a\nb\nc"}, "hot", "a comparison is of 2 answers"),
        ({"models": "a\na"}, "hot", "named twice"),
        ({"models": " \n"}, "hot", "no model is named"),
        ({"models": "a\nb"}, "", "prompts.txt: holds no prompts"),
        ({"models": "a\nb", "samples": "0"}, "hot", "from 1 to 64"),
        ({"models": "a\nb", "temperature": "nan"}, "hot", "0 or above"),
        ({"models": "a\nb"}, '{"prompt": 7}', "prompts.txt:1"),
    ],
)
def test_a_mistake_is_told_on_the_page_and_nothing_is_asked(
    site: Any, admin: Any, filled: dict[str, str], text: str, said: str
) -> None:
    project = site.project("comparison", answers=2)
    answer = admin.post(f"/lead/{project}/answers", files=prompts(text), data=filled)
    assert answer.status_code == 400
    assert said in answer.text
    assert jobs(site.store, project, KIND) == []


def test_only_an_admin_names_models_of_the_server(site: Any) -> None:
    project = site.project("comparison", answers=2)
    lead = signed_in(site, site.rater(project, role="lead"))
    place = f"/lead/{project}/answers"
    assert 'name="models"' not in lead.get(place).text
    assert lead.post(place, files=prompts(), data={"models": "/etc\n/root"}).status_code == 403
    assert jobs(site.store, project, KIND) == []
    labeler = signed_in(site, site.rater(project))
    for path in (place, f"/lead/{project}/jobs.json"):
        assert labeler.get(path).status_code == 403
        assert visitor(site).get(path).status_code == 401


def test_a_lead_sees_how_far_it_is_and_stops_it(site: Any) -> None:
    project, other = site.project(), site.project()
    lead = signed_in(site, site.rater(project, role="lead"))
    id_ = asked(site, project)
    place = f"/lead/{project}/answers"
    assert "Something has waited" not in lead.get(place).text
    site.moved = 60.0
    assert "Something has waited" in lead.get(place).text
    job = claim(site.store, now=site.now())
    assert job is not None
    report(site.store, job, 4, 10, now=site.now())
    (shown,) = lead.get(f"/lead/{project}/jobs.json").json()["jobs"]
    assert shown == {"id": id_, "state": "running", "done": 4, "total": 10, "message": ""}
    assert "4 of 10" in lead.get(place).text
    assert lead.post(f"/lead/{other}/jobs/{id_}/stop").status_code == 403
    assert lead.post(f"/lead/{project}/jobs/nothing/stop").status_code == 404
    stopped = lead.post(f"/lead/{project}/jobs/{id_}/stop")
    assert (stopped.status_code, stopped.headers["location"]) == (303, place)
    page = lead.get(place).text
    assert "stopped" in page
    assert f"{id_}/stop" not in page


def test_hostile_names_and_messages_are_shown_as_text(site: Any, admin: Any) -> None:
    project = site.project()
    asked(site, project, models=[HOSTILE, "b"])
    job = claim(site.store, now=site.now())
    assert job is not None
    fail(site.store, job, f'{HOSTILE}"><img src=x onerror=alert(1)>', now=site.now())
    page = admin.get(f"/lead/{project}/answers").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def compared(site: Any, project: str, prefers: str) -> str:
    """A new labeler who prefers the model's answers everywhere; what they were sent meanwhile."""
    client = signed_in(site, site.rater(project))
    seen = client.get(f"/p/{project}").text
    while (given := client.post(f"/p/{project}/claim", json={}).json()["assignment"]) is not None:
        seen += json.dumps(given)
        ranks = {answer["id"]: 1 if answer["text"].startswith(prefers) else 2 for answer in given["answers"]}
        said = client.post(f"/a/{given['id']}/submit", json={"id": str(uuid.uuid4()), "ranks": ranks})
        seen += said.text
    return seen


def test_the_lead_sees_which_model_is_preferred_and_labelers_never_do(site: Any) -> None:
    project = site.project("comparison", items=0)
    names = {"tuned": f"runs/tuned{HOSTILE}", "base": "runs/base"}
    add_items(
        site.store,
        project,
        [
            Candidates(Prompt(f"q{n}"), tuple(Completion(f"{text} {n}", model=model) for text, model in names.items()))
            for n in range(4)
        ],
        overlap=2,
        now=site.now(),
    )
    lead = signed_in(site, site.rater(project, role="lead"))
    assert "Which model people prefer" not in lead.get(f"/lead/{project}/answers").text
    seen = compared(site, project, "tuned")
    page = lead.get(f"/lead/{project}/answers").text
    assert "Which model people prefer" in page
    assert "0, 0, 4" in page  # the base, whose name comes first, lost all four
    assert "<script>alert" not in page
    compared(site, project, "base")
    assert "4, 0, 4" in lead.get(f"/lead/{project}/answers").text
    assert "runs/" not in seen
