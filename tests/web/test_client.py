"""The Python client against a real server: what it does, what it says, and that nothing is doubled by trying again."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import httpx2
import pytest
from clients import Server, add_questions
from markdown_it import MarkdownIt
from pydantic import BaseModel

from tests.web.client import visitor
from tuneful.client import LARGEST_PART, Client
from tuneful.errors import (
    AccessError,
    ConfigError,
    ConflictError,
    GoneError,
    MissingError,
    StoreError,
    UnavailableError,
)
from tuneful.feedback.access import Scope, make_token
from tuneful.feedback.assignment import claim
from tuneful.feedback.consensus import consensus
from tuneful.feedback.decisions import decide, decisions
from tuneful.feedback.export import agreed_comparisons
from tuneful.feedback.items import add_items, candidates
from tuneful.feedback.pages import guides
from tuneful.feedback.projects import add_rater, create_project, judgments, progress
from tuneful.feedback.store import Store
from tuneful.records import Candidates, Completion, Message, Prompt
from tuneful.web import answers
from tuneful.web.app import create_app
from tuneful.web.security import API

DOCS = Path(__file__).resolve().parents[2] / "docs"
ALL: tuple[Scope, ...] = ("read", "label", "lead")


def token(site: Any, rater: str, *scopes: Scope) -> str:
    return make_token(site.store, rater, "script", scopes or ALL, days=1, now=site.now())


def client(site: Any, rater: str, *scopes: Scope, **options: Any) -> Client:
    return Client(site.url, token(site, rater, *scopes), **options)


def best_first(given: Any) -> dict[str, int]:
    """Ranks by text."""
    return {one.id: place for place, one in enumerate(sorted(given.answers, key=lambda one: one.text), start=1)}


class Lossy(httpx2.BaseTransport):
    """The network, on which the next `losses` answers are lost after the server has given them."""

    def __init__(self) -> None:
        self.losses = 0
        self.asked = 0
        self._network = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        answer = self._network.handle_request(request)
        answer.read()
        if self.losses:
            self.losses -= 1
            raise httpx2.ReadError("connection cut", request=request)
        return answer

    def close(self) -> None:
        self._network.close()


@pytest.fixture
def lossy() -> Iterator[Lossy]:
    network = Lossy()
    yield network
    network.close()


def test_from_items_to_pairs(site: Any) -> None:
    project = site.project(items=0)
    lead = site.rater(project, role="lead")
    talk = Prompt((Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "My house is too hot.")))
    items = [
        Candidates(prompt, (Completion("a fan", model="small"), Completion("so what?", model="large")))
        for prompt in (talk, Prompt("plain text"))
    ]
    with client(site, lead, "lead", "read") as mine:
        (found,) = mine.projects()
        assert mine.project(found.name) == mine.project(project) == found
        assert (found.id, found.kind, found.criteria) == (project, "ranking", ("helpful",))
        made = mine.add_items(project, items, overlap=1, priority=2)
        assert mine.add_items(project, items) == made
        version = mine.publish_instructions(project, "Be *kind*.")
        assert [guide.id for guide in guides(site.store, project)][-1] == version
    with client(site, site.rater(project), "label") as judge:
        given = judge.claim(project)
        assert given is not None
        assert (given.item, given.prompt, given.criterion) == (made[0], talk, "helpful")
        assert {(one.text, one.model) for one in given.answers} == {("a fan", None), ("so what?", None)}
        judge.save_draft(given.id, {"ranks": [1]})
        assert 590 < judge.extend(given.id) <= 600
        again = judge.claim(project)
        assert again is not None
        assert (again.id, again.draft) == (given.id, {"ranks": [1]})
        other = judge.claim(project, besides=[given.id])
        assert other is not None
        assert other.prompt == Prompt.user("plain text")
        flagged = {given.answers[0].id: ("unsafe",)}
        receipt = judge.submit(given.id, ranks=best_first(given), flags=flagged, note="clear", seconds=3.5)
        assert (receipt.counted, receipt.late, receipt.again, receipt.feedback) == (True, False, False, None)
        judge.skip(other.id, "not my language")
        assert judge.claim(project) is None
    with client(site, lead, "lead", "read") as mine:
        assert mine.progress(project) == progress(site.store, project)
        (said,) = mine.judgments(project)
        assert [said] == site.judgments(project)
        assert said.flags == flagged
        assert list(mine.completions(project)) == candidates(site.store, project)
        pairs = list(mine.preferences(project))
        assert [(one.chosen, one.rejected) for one in pairs] == [("a fan", "so what?")]
        agreed = agreed_comparisons(consensus(site.judgments(project)), candidates(site.store, project))
        assert [(one.p, one.weight) for one in pairs] == [(one.p, one.weight) for one in agreed]


def test_an_id_that_says_something_else_already_is_a_conflict(site: Any) -> None:
    project = site.project(items=1)
    with client(site, site.rater(project), "label") as judge:
        given = judge.claim(project)
        assert given is not None
        id_, ranks = str(uuid.uuid4()), best_first(given)
        judge.submit(given.id, ranks=ranks, id_=id_)
        assert judge.submit(given.id, ranks=ranks, id_=id_).again
        with pytest.raises(ConflictError, match="is stored already, with other ranks"):
            judge.submit(given.id, ranks=dict.fromkeys(ranks, 1), id_=id_)


@pytest.mark.parametrize("priority", [2**31, -(10**30)])
def test_a_priority_that_no_database_holds_is_refused(site: Any, priority: int) -> None:
    project = site.project(items=0)
    items = [Candidates(Prompt("hot"), (Completion("a"), Completion("b")))]
    with client(site, site.rater(project, role="lead"), "lead") as mine:
        with pytest.raises(StoreError, match="priority: Input should be"):
            mine.add_items(project, items, priority=priority)
        mine.add_items(project, items, priority=2**31 - 1)
    with pytest.raises(StoreError, match=f"priority {priority}: give a number from -2147483647 to 2147483647"):
        add_items(site.store, project, items, overlap=1, priority=priority, now=site.now())


def test_good_and_bad_answers(site: Any) -> None:
    project = site.project("binary", items=2, answers=1)
    with client(site, site.rater(project), "label") as judge:
        while (given := judge.claim(project)) is not None:
            judge.submit(given.id, values={"helpful": int(given.prompt.text.endswith("0 of 2."))})
    with client(site, site.rater(project, role="lead"), "lead") as mine:
        found = {one.prompt.text[-7:]: (one.completion, one.label, one.p) for one in mine.unpaired(project)}
    ((good, good_label, p), (bad, bad_label, q)) = (found["0 of 2."], found["1 of 2."])
    assert (good, good_label, bad, bad_label) == (bad, True, good, False)
    assert p == pytest.approx(1 - q)


def test_what_a_lead_settled(site: Any) -> None:
    """One decision that another one replaced."""
    project = site.project(items=1)
    lead = site.rater(project, role="lead")
    with client(site, site.rater(project), "label") as judge:
        given = judge.claim(project)
        assert given is not None
        judge.submit(given.id, ranks=best_first(given))
    first = decide(site.store, given.item, by=lead, ranks=(1, 2, 3, 4), why="a remedy", now=site.now())
    decide(site.store, given.item, by=lead, ranks=(2, 1, 3, 3), replaces=first, now=site.now() + 1)
    with client(site, lead, "lead", "read") as mine:
        earlier, later = mine.decisions(project)
    assert (earlier.id, earlier.item, earlier.ranks, earlier.why) == (first, given.item, (1, 2, 3, 4), "a remedy")
    assert (later.replaces, later.ranks, later.rater) == (first, (2, 1, 3, 3), lead)
    assert [earlier, later] == decisions(site.store, project)


def test_what_a_labeler_learns_in_the_quiz(site: Any) -> None:
    project = site.project(quiz=1)
    with client(site, site.rater(project)) as judge:
        given = judge.claim(project)
        assert given is not None
        assert given.quiz
        receipt = judge.submit(given.id, ranks=best_first(given))
        assert receipt.feedback is not None
        known = receipt.feedback.gold["ranks"]
        texts = {one.id: one.text for one in given.answers}
        assert texts[min(known, key=known.__getitem__)].startswith("Open a window")
        assert receipt.feedback.gold["why"] == "A remedy is best."


# Nothing twice


def test_answers_that_are_lost_double_nothing(site: Any, lossy: Lossy) -> None:
    """Every request that changes something reaches the server three times, and the client hears the last answer."""
    project = site.project(items=2, overlap=2)
    waits: list[float] = []
    items = [Candidates(Prompt("new"), (Completion("a"), Completion("b")))]
    with client(site, site.rater(project, role="lead"), transport=lossy, sleep=waits.append) as mine:

        def thrice(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
            lossy.losses, lossy.asked = 2, 0
            result = call(*given, **named)
            assert lossy.asked == 3
            return result

        held = thrice(mine.claim, project)
        receipt = thrice(mine.submit, held.id, ranks=best_first(held))
        assert (receipt.again, receipt.counted) == (True, True)
        (said,) = site.judgments(project)
        assert said.id == receipt.judgment
        other = thrice(mine.claim, project)
        assert other.item != held.item
        thrice(mine.save_draft, other.id, {"ranks": []})
        thrice(mine.extend, other.id)
        thrice(mine.skip, other.id)
        made = thrice(mine.add_items, project, items, overlap=1)
        version = thrice(mine.publish_instructions, project, "New.")
    assert len(made) == 1
    assert progress(site.store, project).items == 3
    assert [guide.id for guide in guides(site.store, project)].count(version) == 1
    assert len(guides(site.store, project)) == 2
    assert waits == 8 * [0.5, 1.0]


def test_a_judgment_that_never_got_an_answer_is_sent_again_later(site: Any, lossy: Lossy) -> None:
    project = site.project()
    with client(site, site.rater(project), transport=lossy, retries=2, sleep=lambda _: None) as judge:
        given = judge.claim(project)
        assert given is not None
        lossy.losses = 3
        id_ = str(uuid.uuid4())
        with pytest.raises(UnavailableError, match=rf'judgment "{id_}".*asked 3 times.*submit it again'):
            judge.submit(given.id, ranks=best_first(given), id_=id_)
        assert judge.submit(given.id, ranks=best_first(given), id_=id_).again
    assert [one.id for one in site.judgments(project)] == [id_]


def test_a_server_that_is_killed_and_started_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "judgments.db")
    project = create_project(store, "helpful", now=time.time())
    add_questions(store, project, 2, overlap=1)
    rater = add_rater(store, project, now=time.time())
    secret = make_token(store, rater, "script", ["label"], days=1, now=time.time())
    server = Server(f"sqlite:///{tmp_path / 'judgments.db'}", tmp_path)
    server.start()
    again = Timer(0.2, server.start)
    try:
        with Client(f"http://127.0.0.1:{server.port}", secret) as judge:
            given = judge.claim(project)
            assert given is not None
            server.kill()
            again.start()
            receipt = judge.submit(given.id, ranks=best_first(given))
    finally:
        if again.is_alive():
            again.join()
        server.kill()
    assert [one.id for one in judgments(store, project)] == [receipt.judgment]
    store.close()


def test_busy_is_waited_for_as_long_as_the_server_asks() -> None:
    bodies, waits = [], list[float]()
    receipt = {"judgment": "j", "counted": True, "late": False, "again": False, "feedback": None, "progress": {}}

    def handle(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        if len(bodies) < 3:
            return httpx2.Response(503, json={"error": "the database is busy"}, headers={"retry-after": "2"})
        return httpx2.Response(200, json=receipt)

    with Client("http://there", "t", transport=httpx2.MockTransport(handle), sleep=waits.append) as judge:
        assert judge.submit("a", ranks={"x": 1}).judgment == "j"
    assert waits == [2.0, 2.0]
    assert bodies[0] == bodies[1] == bodies[2]
    assert uuid.UUID(json.loads(bodies[0])["id"]).version == 4


# What is refused


def test_refusals_are_errors_of_their_kind_with_the_server_s_words(site: Any) -> None:
    project = site.project()
    rater = site.rater(project)
    with client(site, rater, sleep=lambda _: pytest.fail("tried again")) as judge:
        given = judge.claim(project)
        assert given is not None
        with pytest.raises(StoreError, match='ranks: "nobody" is no completion of the item'):
            judge.submit(given.id, ranks={"nobody": 1})
        with pytest.raises(StoreError, match="ranks"):
            judge.submit(given.id, ranks={given.answers[0].id: 0})
        with pytest.raises(AccessError, match="for the project's lead"):
            judge.add_items(project, [Candidates(Prompt("new"), given.answers)])
        with pytest.raises(AccessError, match="for the project's lead"):
            next(judge.judgments(project))
        with pytest.raises(MissingError, match="unknown"):
            judge.project("elsewhere")
        judge.submit(given.id, ranks=best_first(given))
        with pytest.raises(GoneError, match="not in hand any more"):
            judge.skip(given.id)
    with client(site, rater, "read") as reader, pytest.raises(AccessError, match='no scope "label"'):
        reader.claim(project)
    unknown = "this token is unknown or over; make one with `tuneful label token`"
    with Client(site.url, "tuneful_wrong") as nobody, pytest.raises(AccessError, match=unknown):
        nobody.projects()
    with pytest.raises(ConfigError, match="is no URL"):
        Client("127.0.0.1:8080", "t")


def test_nobody_there_is_told_with_the_place() -> None:
    told = r"http://127\.0\.0\.1:9: ConnectError.*asked 2 times"
    lost = Client("http://127.0.0.1:9", "t", retries=1, sleep=lambda _: None)
    with lost, pytest.raises(UnavailableError, match=told):
        lost.projects()


def test_a_server_that_never_answered_is_not_waited_for_as_long_as_one_that_did() -> None:
    waits: list[float] = []
    up = False

    def page(_: httpx2.Request) -> httpx2.Response:
        if not up:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(200, json={"projects": []})

    with Client("http://there", "t", transport=httpx2.MockTransport(page), sleep=waits.append) as lost:
        with pytest.raises(UnavailableError, match="asked 4 times"):
            lost.projects()
        assert sum(waits) == 3.5
        up = True
        assert lost.projects() == []
        up = False
        with pytest.raises(UnavailableError, match="asked 7 times"):
            lost.projects()


def test_another_server_s_words_are_no_surprise() -> None:
    def page(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(404 if request.method == "POST" else 200, text="<html>welcome</html>")

    with Client("http://there", "t", transport=httpx2.MockTransport(page)) as lost:
        with pytest.raises(MissingError, match="welcome"):
            lost.claim("p")
        with pytest.raises(StoreError, match="is it a labeling server"):
            lost.projects()


@pytest.mark.parametrize("rest", [b'{"id": "cu', None], ids=["half a row", "no end"])
def test_an_export_that_is_cut_off_is_no_export(site: Any, rest: bytes | None) -> None:
    project = site.project()
    with client(site, site.rater(project, role="lead")) as mine:
        given = mine.claim(project)
        assert given is not None
        mine.submit(given.id, ranks=best_first(given))
    path, key = f"{API}/lead/{project}/export/judgments.jsonl", token(site, site.rater(project, role="lead"))
    line = visitor(site).get(path, headers={"authorization": f"Bearer {key}"}).content

    class Cut(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield line
            if rest is None:
                raise httpx2.RemoteProtocolError("peer closed connection")
            yield rest

    cut = httpx2.MockTransport(lambda _: httpx2.Response(200, stream=Cut()))
    with Client("http://there", "t", transport=cut) as mine:
        rows = mine.judgments("p")
        assert next(rows) == site.judgments(project)[0]
        with pytest.raises(UnavailableError, match="cut off"):
            next(rows)


def test_many_items_are_sent_in_parts(site: Any) -> None:
    project = site.project(items=0)
    sizes = []

    class Weighed(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            sizes.append(len(request.content))
            return super().handle_request(request)

    long = "word " * 30_000
    items = [Candidates(Prompt(f"{n}"), (Completion(long), Completion("short"))) for n in range(20)]
    with client(site, site.rater(project, role="lead"), transport=Weighed()) as mine:
        made = mine.add_items(project, items, overlap=1)
    assert len(set(made)) == 20
    assert [one.prompt for one in candidates(site.store, project)] == [one.prompt for one in items]
    assert len(sizes) > 1
    assert max(sizes) < 2 * LARGEST_PART


# What is told of the routes


def test_the_example_of_the_page_works(site: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    project = create_project(site.store, "helpful", criteria=("helpful",), now=site.now())
    monkeypatch.setenv("TUNEFUL_TOKEN", token(site, site.rater(project, role="lead")))
    page = (DOCS / "how-to" / "program.md").read_text()
    blocks = [one.content for one in MarkdownIt("commonmark").parse(page) if one.type == "fence"]
    code = "".join(block for block in blocks if not block.startswith("$"))
    exec(compile(code.replace("http://127.0.0.1:8080", site.url), "program.md", "exec"), {})
    assert "Open a window at night. So what? 0." in capsys.readouterr().out
    assert len(site.judgments(project)) == 1


def spec() -> dict[str, Any]:
    return create_app(None).openapi()  # type: ignore[arg-type]


def test_every_route_says_what_it_does_and_needs() -> None:
    for path, methods in spec()["paths"].items():
        for route in methods.values():
            assert route["description"], path
            assert route["x-scope"] in ALL, path
            assert {"200", "4XX", "503"} == set(route["responses"]), path


@pytest.mark.parametrize("path", list(spec()["paths"]))
def test_a_token_needs_the_scope_that_is_told(site: Any, path: str) -> None:
    """Asked by a lead, who may do everything, with all scopes but one."""
    project = site.project()
    lead = site.rater(project, role="lead")
    given = claim(site.store, project, lead, now=site.now())
    assert given is not None
    place = path.format(project_id=project, assignment_id=given.id, what="completions")
    bodies = {
        "submit": {"id": str(uuid.uuid4()), "ranks": dict.fromkeys(given.shown_order, 1)},
        "draft": {"content": {}},
        "items": {"items": []},
        "instructions": {"text": "New."},
    }
    for method, route in spec()["paths"][path].items():
        others = [scope for scope in ALL if scope != route["x-scope"]]
        status = {}
        for name, scopes in (("without", others), ("with", [route["x-scope"]])):
            headers = {"authorization": f"Bearer {token(site, lead, *scopes)}"}
            body = bodies.get(place.rpartition("/")[2], {})
            status[name] = visitor(site).request(method, place, headers=headers, json=body).status_code
        assert status == {"without": 403, "with": 200}


def test_answers_have_the_shape_that_is_told(site: Any) -> None:
    """Every field, of the type that is told; of the quiz too."""
    project = site.project(items=3, quiz=1)
    headers = {"authorization": f"Bearer {token(site, site.rater(project, role='lead'))}"}
    quizzed = {"authorization": f"Bearer {token(site, site.rater(project))}"}

    def asked(method: str, path: str, shape: type[BaseModel], body: Any = None, who: Any = headers) -> dict[str, Any]:
        answer = visitor(site).request(method, f"{API}{path}", headers=who, json=body)
        assert answer.status_code == 200, answer.text
        assert shape.model_validate_json(answer.content, strict=True).model_fields_set == set(shape.model_fields)
        return dict(answer.json())

    for who in (headers, quizzed):
        given = asked("POST", f"/p/{project}/claim", answers.Claimed, {}, who)["assignment"]
        said = {"id": str(uuid.uuid4()), "ranks": {one["id"]: n for n, one in enumerate(given["answers"], start=1)}}
        told = asked("POST", f"/a/{given['id']}/submit", answers.Received, said, who)
        assert (told["feedback"] is not None) == given["quiz"] == (who is quizzed)
    given = asked("POST", f"/p/{project}/claim", answers.Claimed, {})["assignment"]
    asked("POST", f"/a/{given['id']}/draft", answers.Nothing, {"content": {"a": 1}})
    asked("POST", f"/a/{given['id']}/extend", answers.Extended)
    asked("POST", f"/a/{given['id']}/skip", answers.Nothing, {})
    asked("GET", f"/p/{project}/instructions", answers.Instructions)
    asked("GET", "/projects", answers.Projects)
    item = {"prompt": [{"role": "user", "content": "new"}], "completions": [{"text": "a"}, {"text": "b"}]}
    asked("POST", f"/lead/{project}/items", answers.Added, {"items": [item]})
    asked("POST", f"/lead/{project}/instructions", answers.Published, {"text": "New."})


def test_prompts_alone_are_items_of_demonstrations_and_come_back(site: Any) -> None:
    project = site.project("demonstration", answers=0, items=0)
    bare = [Candidates(Prompt("hot"), ()), Candidates(Prompt("cold"), ())]
    lead = site.rater(project, role="lead")
    with client(site, lead) as mine:
        assert len(set(mine.add_items(project, bare))) == 2
        given = mine.claim(project)
        assert given is not None
        assert (given.prompt, given.answers) == (Prompt.user("hot"), ())
        assert mine.submit(given.id, text="Open a window.").counted
        assert list(mine.completions(project)) == bare
        assert [one.text for one in mine.judgments(project)] == ["Open a window."]


def test_a_broken_item_is_named_by_its_number(site: Any) -> None:
    project = site.project(items=0)
    whole = Candidates(Prompt("hot"), (Completion("a"), Completion("b")))
    ends = Candidates(Prompt((Message("assistant", "Hello."),)), whole.completions)
    with client(site, site.rater(project, role="lead")) as mine:
        with pytest.raises(StoreError, match=re.escape("items:2: ")):
            mine.add_items(project, [whole, ends])
        with pytest.raises(StoreError, match="has 1 completion; a ranking is of 2 to 9 completions"):
            mine.add_items(project, [whole, Candidates(Prompt("cold"), whole.completions[:1])])
    assert progress(site.store, project).items == 0
