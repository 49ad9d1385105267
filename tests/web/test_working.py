"""What pages leave to a worker where there is much of it: asked for in a moment, shown when it is there."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.web.client import form_token, signed_in, visitor
from tuneful.errors import GoneError, UnavailableError
from tuneful.feedback import dataset_files
from tuneful.feedback.completions_wanted import KIND as COMPLETIONS
from tuneful.feedback.dataset_files import packed_dataset, write_file
from tuneful.feedback.dataset_manifest import verify_dataset
from tuneful.feedback.items import add_items, candidates
from tuneful.feedback.jobs import (
    ADAPT,
    DATASET,
    LAST,
    LEASE_SECONDS,
    MOST_LOST,
    QUALITY,
    WIN_RATES,
    Job,
    claim,
    enqueue,
    fail,
    job_of,
    jobs,
    stop,
)
from tuneful.feedback.overview import Agreed, agreement
from tuneful.feedback.quality import latest
from tuneful.feedback.versions import versions
from tuneful.pipeline.work import run_next
from tuneful.records import Candidates, Completion, Prompt
from tuneful.web import deciding, fitting, generating, quality

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def everything_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((deciding, "FEW_TO_WRITE"), (generating, "FEW"), (quality, "FEW")):
        monkeypatch.setattr(module, name, 0)


@pytest.fixture
def project(site: Any) -> str:
    """Four prompts with the answers of two models; the tuned one's are preferred by one labeler."""
    made: str = site.project("comparison", items=0)
    answers = [tuple(Completion(f"{one} {n}", model=one) for one in ("base", "tuned")) for n in range(4)]
    asked = [Candidates(Prompt(f"q{n}"), of) for n, of in enumerate(answers)]
    add_items(site.store, made, asked, overlap=3, now=site.now())
    judge(site, made)
    return made


def judge(site: Any, project: str) -> None:
    client = signed_in(site, site.rater(project))
    while (given := client.post(f"/p/{project}/claim", json={}).json()["assignment"]) is not None:
        ranks = {answer["id"]: 1 if answer["text"].startswith("tuned") else 2 for answer in given["answers"]}
        said = {"id": str(uuid.uuid4()), "ranks": ranks}
        assert client.post(f"/a/{given['id']}/submit", json=said).status_code == 200


def lead_of(site: Any, project: str) -> Any:
    return signed_in(site, site.rater(project, role="lead"))


def work(site: Any) -> bool:
    return run_next(site.store, note=lambda _: None)


PLACES = [("quality", QUALITY, "/quality"), ("answers/rates", WIN_RATES, "/answers"), ("datasets", DATASET, "#export")]


@pytest.mark.parametrize(("asked", "kind", "shown"), PLACES)
def test_it_is_asked_for_once_and_done_by_a_worker(site: Any, project: str, asked: str, kind: str, shown: str) -> None:
    lead = lead_of(site, project)
    for _ in range(2):
        answer = lead.post(f"/lead/{project}/{asked}")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/lead/{project}{shown}")
    (waiting,) = jobs(site.store, project, kind)
    place = f"/lead/{project}{shown.partition('#')[0]}"
    page = lead.get(place).text
    assert f'data-job="{waiting.id}" data-state="waiting"' in page
    assert "Something has waited" not in page
    site.moved += 60
    assert "Something has waited" in lead.get(place).text
    assert work(site)
    assert not work(site)
    (shown_job,) = lead.get(f"/lead/{project}/jobs.json").json()["jobs"]
    assert (shown_job["id"], shown_job["state"]) == (waiting.id, "done")
    assert "data-job=" not in lead.get(place).text


@pytest.mark.parametrize(("asked", "kind", "shown"), PLACES)
def test_what_went_wrong_is_told_and_what_waits_can_be_stopped(
    site: Any, project: str, asked: str, kind: str, shown: str
) -> None:
    lead = lead_of(site, project)
    lead.post(f"/lead/{project}/{asked}")
    (waiting,) = jobs(site.store, project, kind)
    stopped = lead.post(f"/lead/{project}/jobs/{waiting.id}/stop")
    assert (stopped.status_code, stopped.headers["location"]) == (303, f"/lead/{project}{shown}")
    assert not work(site)
    lead.post(f"/lead/{project}/{asked}")
    held = claim(site.store, now=site.now())
    assert held is not None and held.id != waiting.id
    fail(site.store, held, f"{SCRIPT} went wrong", now=site.now())
    page = lead.get(f"/lead/{project}{shown.partition('#')[0]}").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; went wrong" in page
    assert SCRIPT not in page


@pytest.mark.parametrize(("asked", "kind", "shown"), PLACES)
def test_only_a_lead_who_is_logged_in_asks_for_it_and_stops_it(
    site: Any, project: str, asked: str, kind: str, shown: str
) -> None:
    """Each of them comes from a page of ours, with its token: it is not for want of that that they are refused."""
    lead_of(site, project).post(f"/lead/{project}/{asked}")
    (waiting,) = jobs(site.store, project, kind)
    other = site.project("comparison", answers=2)
    stranger = visitor(site)
    stranger.headers["x-csrf-token"] = form_token(stranger.get("/login").text)
    for client, code, said in (
        (signed_in(site, site.rater(project)), 403, "this page is for the project's lead"),
        (lead_of(site, other), 403, "this page is for the project's lead"),
        (stranger, 401, "log in first"),
    ):
        for path in (asked, f"jobs/{waiting.id}/stop"):
            refused = client.post(f"/lead/{project}/{path}")
            assert (refused.status_code, refused.json()["error"]) == (code, said)
    assert [one.state for one in jobs(site.store, project, kind)] == ["waiting"]


def test_many_quick_jobs_hide_no_long_one(site: Any, project: str) -> None:
    """The page of a long job asks how far it is for as long as it shows it."""
    long = enqueue(site.store, project, COMPLETIONS, {}, by=None, now=site.now() - 1000)
    for _ in range(LAST + 1):
        quick = enqueue(site.store, project, WIN_RATES, {}, by=None, now=site.now())
        stop(site.store, project, quick, now=site.now())
    told = lead_of(site, project).get(f"/lead/{project}/jobs.json").json()["jobs"]
    assert [one["state"] for one in told if one["id"] == long] == ["waiting"]


def test_a_job_that_no_page_shows_can_be_stopped(site: Any, project: str) -> None:
    id_ = enqueue(site.store, project, ADAPT, {}, by=None, now=site.now())
    stopped = lead_of(site, project).post(f"/lead/{project}/jobs/{id_}/stop")
    assert (stopped.status_code, stopped.headers["location"]) == (303, f"/lead/{project}")
    assert job_of(site.store, id_).state == "stopped"


def test_quality_is_shown_as_it_was_measured(site: Any, project: str) -> None:
    lead = lead_of(site, project)
    place = f"/lead/{project}/quality"
    assert "Not measured yet: 4 judgments" in lead.get(place).text
    lead.post(place)
    assert latest(site.store, project) is None
    work(site)
    assert "4 judgments of 1 person, measured just now." in lead.get(place).text
    judge(site, project)
    assert "4 judgments of 1 person, measured just now; 4 came since." in lead.get(place).text


def test_a_group_that_is_too_small_fails_in_words(site: Any, project: str) -> None:
    lead = lead_of(site, project)
    answer = lead.post(f"/lead/{project}/quality", data={"group": SCRIPT})
    assert answer.headers["location"].startswith(f"/lead/{project}/quality?group=%3Cscript")
    work(site)
    page = lead.get(f"/lead/{project}/quality").text
    assert "fewer than 5" in page
    assert "<script>alert" not in page
    assert latest(site.store, project) is None


def test_win_rates_are_shown_as_they_were_counted(site: Any, project: str) -> None:
    lead = lead_of(site, project)
    place = f"/lead/{project}/answers"
    assert "Not counted yet: 4 judgments" in lead.get(place).text
    lead.post(f"{place}/rates")
    work(site)
    page = lead.get(place).text
    assert "0, 0, 4" in page  # the base lost all four
    assert "Count now" not in page
    judge(site, project)
    page = lead.get(place).text
    assert "Counted just now; 4 judgments came since." in page
    assert "0, 0, 4" in page
    lead.post(f"{place}/rates")
    work(site)
    page = lead.get(place).text
    assert "0, 0, 8" in page and "Count now" not in page
    again = candidates(site.store, project)[0]
    swapped = [replace(one, model={"base": "tuned", "tuned": "base"}[str(one.model)]) for one in again.completions]
    add_items(site.store, project, [replace(again, completions=tuple(swapped))], overlap=1, now=site.now())
    page = lead.get(place).text
    assert "0 judgments came since, and models answered more." in page and "Count now" in page


def test_answers_of_no_two_models_have_no_win_rates(site: Any) -> None:
    project = site.project("comparison", answers=2, items=2)
    judge(site, project)
    lead = lead_of(site, project)
    lead.post(f"/lead/{project}/answers/rates")
    work(site)
    judge(site, site.project("comparison", answers=2, items=2))
    assert "Which model people prefer" not in lead.get(f"/lead/{project}/answers").text


def test_the_file_of_the_newest_dataset_is_kept(
    site: Any, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_files, "PART", 1000)  # so that there are several
    lead = lead_of(site, project)
    place = f"/lead/{project}/datasets"
    lead.post(place)
    assert lead.get(f"{place}/1.zip").status_code == 404
    work(site)
    assert f'href="{place}/1.zip"' in lead.get(f"/lead/{project}").text
    got = lead.get(f"{place}/1.zip")
    assert (got.status_code, int(got.headers["content-length"])) == (200, len(got.content))
    assert len(got.content) > 3000
    zipfile.ZipFile(io.BytesIO(got.content)).extractall(tmp_path / "d")
    assert verify_dataset(tmp_path / "d") == []
    assert packed_dataset(site.store, project, by=None, now=site.now()) == (1, got.content)
    lead.post(place)  # of the same judgments it is the same file
    work(site)
    assert lead.get(f"{place}/1.zip").content == got.content
    judge(site, project)
    lead.post(place)
    work(site)
    assert lead.get(f"{place}/1.zip").status_code == 404
    page = lead.get(f"/lead/{project}").text
    assert f'href="{place}/2.zip"' in page
    assert f'href="{place}/1.zip"' not in page
    assert lead.get(f"{place}/9.zip").status_code == 404
    assert signed_in(site, site.rater(project)).get(f"{place}/2.zip").status_code == 403


def test_a_dataset_that_is_stopped_or_begun_again_is_kept_whole_or_not_at_all(
    site: Any, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset_files, "PART", 1000)
    lead = lead_of(site, project)

    def stop_after(held: Job, parts: int) -> None:
        """Writes so many parts, each of which asks for the time once, and hears that the job was stopped."""
        asked = 0

        def clock() -> float:
            nonlocal asked
            asked += 1
            if asked == parts + 2:  # one for the version, one for the beginning
                stop(site.store, project, held.id, now=site.now())
            return float(site.now())

        with pytest.raises(GoneError):
            write_file(site.store, held, clock=clock)

    for parts in (1, 2):
        enqueue(site.store, project, DATASET, {}, by=None, now=site.now())
        held = claim(site.store, now=site.now())
        assert held is not None
        stop_after(held, parts)
        assert [one.size for one in versions(site.store, project)] == [None]
        assert lead.get(f"/lead/{project}/datasets/1.zip").status_code == 404
    enqueue(site.store, project, DATASET, {}, by=None, now=site.now())
    work(site)
    got = lead.get(f"/lead/{project}/datasets/1.zip").content
    assert got == packed_dataset(site.store, project, by=None, now=site.now())[1]


def test_a_dataset_that_ends_its_worker_each_time_fails_in_the_end(
    site: Any, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first part, as where the memory is too small; each worker begins with the first part again."""
    monkeypatch.setattr(dataset_files, "PART", 1000)

    class Killed(BaseException): ...

    def clock_of(start: float) -> Callable[[], float]:
        asked = 0

        def clock() -> float:
            nonlocal asked
            asked += 1
            if asked == 4:  # one for the version, one for the beginning, one for the first part
                raise Killed
            return start

        return clock

    id_ = enqueue(site.store, project, DATASET, {}, by=None, now=site.now())
    now = site.now()
    for attempt in range(MOST_LOST):
        held = claim(site.store, now=now)
        assert held is not None and held.lost == attempt
        with pytest.raises(Killed):
            write_file(site.store, held, clock=clock_of(now))
        assert job_of(site.store, id_).done == 1
        now += LEASE_SECONDS + 1
    assert claim(site.store, now=now) is None
    assert job_of(site.store, id_).state == "failed"


def test_the_page_of_a_project_shows_what_was_fitted_last_while_it_is_fitted_anew(
    site: Any, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "FEW", 0)
    may_end, begun = Event(), list[str]()

    def slow(store: Any, project_id: str) -> Agreed:
        begun.append(project_id)
        assert may_end.wait(60)
        return agreement(store, project_id)

    monkeypatch.setattr(fitting, "agreement", slow)
    lead = lead_of(site, project)
    for _ in range(2):
        page = lead.get(f"/lead/{project}").text
        assert "is being found anew" in page
        assert "4 of 12 judgments" in page
        assert "Where people agree least" not in page
        assert lead.get(f"/lead/{project}/items").status_code == 200
    assert begun == [project]
    may_end.set()
    site.app.state.fits.wait(project)
    page = lead.get(f"/lead/{project}").text
    assert "is being found anew" not in page
    assert "Where people agree least" in page
    may_end.clear()
    judge(site, project)
    page = lead.get(f"/lead/{project}").text
    assert "is being found anew; load the page again in a minute. This is from the first 4." in page
    assert "8 of 12 judgments" in page
    assert "Where people agree least" in page
    may_end.set()
    site.app.state.fits.wait(project)


def test_a_fit_that_failed_is_begun_again(site: Any, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "FEW", 0)
    tried = list[str]()

    def broken(_: Any, project_id: str) -> Agreed:
        tried.append(project_id)
        raise UnavailableError("the database: away")

    monkeypatch.setattr(fitting, "agreement", broken)
    lead = lead_of(site, project)
    for _ in range(2):
        assert lead.get(f"/lead/{project}").status_code == 200
        site.app.state.fits.wait(project)
    assert tried == [project, project]
