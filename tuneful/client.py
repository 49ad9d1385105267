"""A labeling server from a program: claim items and judge them, fill projects, take judgments home.

    with Client("http://127.0.0.1:8080", token) as client:
        project = client.project("helpful")
        while (given := client.claim(project.id)) is not None:
            client.submit(given.id, ranks={answer.id: place for place, answer in enumerate(best_first(given), 1)})

A request that gets no answer, or is refused for the moment, is made again after growing waits. That never stores a
judgment twice: it bears a UUID made here, and whatever else changes something says the same when it is said again.
Tokens come from `tuneful label token`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import quote

from tuneful.data import completions, preferences, unpaired
from tuneful.data.row import Row
from tuneful.errors import (
    AccessError,
    ConflictError,
    GoneError,
    MissingError,
    StoreError,
    UnavailableError,
    did_you_mean,
)
from tuneful.feedback.judgments import judgment_in
from tuneful.feedback.projects import Progress, Project
from tuneful.feedback.settling import Decision, decision_in
from tuneful.feedback.submission import Feedback, Receipt
from tuneful.records import Candidates, Comparison, Completion, Judgment, Message, Prompt, UnpairedPreference
from tuneful.servers import NoAnswerError, ask, refuse_no_url

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

REFUSED: Final[Mapping[int, type[StoreError]]] = {
    401: AccessError,
    403: AccessError,
    404: MissingError,
    409: GoneError,
}

FIRST_RETRIES: Final = 3
"""Until a server has answered once, so often at most: 3.5 seconds, and a wrong address is told."""

LARGEST_PART: Final = 2**20
"""Bytes of items that are sent at once; the server takes bodies of up to 2 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An item in hand. lease_seconds: for how long; answers: in this labeler's order, without their models' names.

    instructions: id of the newest version; draft: the last one saved; quiz: one of the known items at the beginning.
    """

    id: str
    item: str
    lease_seconds: float
    criterion: str
    prompt: Prompt
    answers: tuple[Completion, ...]
    instructions: str | None
    draft: Mapping[str, Any] | None
    quiz: bool


class Client:
    """One token's connection to a server. Every method raises StoreError or one of its kinds: AccessError for a token
    that may not, MissingError for what is not there, GoneError for an item that is not in hand any more,
    UnavailableError when no answer came for as long as it was tried."""

    def __init__(
        self,
        url: str,
        token: str,
        *,
        retries: int = 6,
        timeout: float = 30.0,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """url: where the pages are. retries: how often a request is made again, after half a second, one, two, four …;
        before the first answer FIRST_RETRIES at most. timeout: seconds without a sign of the server. transport: another
        way to it than the network.

        Raises ConfigError for what is no URL.
        """
        import httpx2

        refuse_no_url("url", url, example="http://127.0.0.1:8080", keys="give the token apart")
        self.url = url.rstrip("/")
        self._retries, self._sleep = retries, sleep
        self._answered = False
        self._connections = httpx2.Client(
            base_url=f"{self.url}/api/v1",
            headers={"authorization": f"Bearer {token}"},
            timeout=timeout,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connections.close()

    # Any project of the token's holder

    def projects(self) -> list[Project]:
        """Those that the holder is in, oldest first. Scope `read`."""
        return [_only(Project, row | {"criteria": tuple(row["criteria"])}) for row in self._projects()]

    def project(self, name_or_id: str) -> Project:
        """Scope `read`. Raises MissingError, naming those there are."""
        found = self.projects()
        for one in found:
            if name_or_id in (one.id, one.name):
                return one
        raise MissingError(f'project "{name_or_id}": unknown{did_you_mean(name_or_id, [one.name for one in found])}')

    def progress(self, project_id: str) -> Progress:
        """How far a project is. Scope `read`."""
        for row in self._projects():
            if row["id"] == project_id:
                return _only(Progress, row["progress"])
        raise MissingError(f'project "{project_id}": unknown')

    # Labeling

    def claim(self, project_id: str, *, besides: Sequence[str] = ()) -> Held | None:
        """The item in hand, else the next one; None when there is none. Scope `label`.

        besides: assignments that are in hand and not asked for, to have what comes after them.
        """
        given = self._post(f"/p/{quote(project_id)}/claim", {"besides": list(besides)})["assignment"]
        return None if given is None else _held(given)

    def submit(
        self,
        assignment_id: str,
        *,
        ranks: Mapping[str, int | None] | None = None,
        flags: Mapping[str, Sequence[str]] | None = None,
        values: Mapping[str, float] | None = None,
        text: str = "",
        note: str = "",
        seconds: float | None = None,
        instructions: str | None = None,
        replaces: str | None = None,
        id_: str | None = None,
    ) -> Receipt:
        """Store a judgment, for good. Scope `label`.

        ranks, flags: by the answer's id; 1 is best, equal numbers tie, None or left out was not ranked. values: by
        answer or criterion. text: a demonstration. seconds: how long it took. instructions: the version that was read,
        where it is not the claim's. replaces: the judgment that this one revises. id_: a UUID, a new one else.

        Raises UnavailableError, which names the UUID, when no answer came: whether it is stored is not known then, and
        to submit the same with the same UUID later is safe. Raises ConflictError where the UUID stands for another
        judgment, or for other words, already; those stay.
        """
        id_ = id_ or str(uuid.uuid4())
        said = {
            "id": id_,
            "ranks": dict(ranks or {}),
            "flags": {name: list(given) for name, given in (flags or {}).items()},
            "values": dict(values or {}),
            "text": text,
            "note": note,
            "seconds": seconds,
            "instructions": instructions,
            "replaces": replaces,
        }
        try:
            told = self._post(f"/a/{quote(assignment_id)}/submit", said)
        except UnavailableError as error:
            raise UnavailableError(f'judgment "{id_}": {error}; submit it again with this id_') from None
        except GoneError as error:  # by its status, 409; what is sent late is taken
            raise ConflictError(str(error)) from None
        learned = told["feedback"]
        feedback = None if learned is None else _feedback(learned)
        return _only(Receipt, told | {"feedback": feedback})

    def save_draft(self, assignment_id: str, content: Mapping[str, Any]) -> None:
        """Keep what there is so far; the next claim of the item gives it back. Scope `label`."""
        self._post(f"/a/{quote(assignment_id)}/draft", {"content": dict(content)})

    def extend(self, assignment_id: str) -> float:
        """Begin the lease anew; seconds until it ends. Scope `label`."""
        return float(self._post(f"/a/{quote(assignment_id)}/extend", {})["lease_seconds"])

    def skip(self, assignment_id: str, reason: str = "") -> None:
        """Give the item back for good. Scope `label`."""
        self._post(f"/a/{quote(assignment_id)}/skip", {"reason": reason})

    # A lead's projects

    def add_items(
        self, project_id: str, items: Sequence[Candidates], *, overlap: int = 3, priority: int = 0
    ) -> list[str]:
        """Ids of the items, to be judged by `overlap` people each; one that is there already is left as it is.

        More than a MiB is sent in parts, each of which is taken whole or not at all; the same call goes on where one
        stopped. Scope `lead`.
        """
        made: list[str] = []
        for part in _parts([_item(one) for one in items]):
            body = {"items": part, "overlap": overlap, "priority": priority}
            made += self._post(f"/lead/{quote(project_id)}/items", body)["items"]
        return made

    def publish_instructions(self, project_id: str, text: str) -> str:
        """Id of a new version of the instructions (Markdown), or of the newest when it says the same. Scope `lead`."""
        return str(self._post(f"/lead/{quote(project_id)}/instructions", {"text": text})["id"])

    def judgments(self, project_id: str) -> Iterator[Judgment]:
        """What each rater said, oldest first, in its last revision. Scope `lead`."""
        return map(judgment_in, self._rows(project_id, "judgments"))

    def preferences(self, project_id: str) -> Iterator[Comparison]:
        """The pairs of the consensus, with p and weight. Scope `lead`."""
        return preferences.comparisons(self._rows(project_id, "preferences"), lambda _: None)

    def unpaired(self, project_id: str) -> Iterator[UnpairedPreference]:
        """Of 0/1 judgments, good and bad answers with p; what is as likely one as the other is left out. Scope
        `lead`."""
        return unpaired.unpaired(self._rows(project_id, "unpaired"), lambda _: None)

    def completions(self, project_id: str) -> Iterator[Candidates]:
        """The items, with the models that wrote the answers. Scope `lead`."""
        return completions.candidates(self._rows(project_id, "completions"), lambda _: None, bare=True)

    def decisions(self, project_id: str) -> Iterator[Decision]:
        """What leads settled, oldest first, also what they replaced. Scope `lead`."""
        return map(decision_in, self._rows(project_id, "decisions"))

    def _projects(self) -> list[dict[str, Any]]:
        answer = self._asked(lambda: self._connections.get("/projects"))
        return list(_object(answer)["projects"])

    def _rows(self, project_id: str, what: str) -> Iterator[Row]:
        """The rows of an export as they come in. Raises UnavailableError where it is cut off."""
        import httpx2

        request = self._connections.build_request("GET", f"/lead/{quote(project_id)}/export/{what}.jsonl")
        with closing(self._asked(lambda: self._connections.send(request, stream=True))) as answer:
            try:
                for number, line in enumerate(answer.iter_lines(), start=1):
                    yield Row(Path(f"{what}.jsonl"), number, json.loads(line))
            except (httpx2.RequestError, json.JSONDecodeError) as error:
                problem = f"the {what} of {self.url} were cut off ({type(error).__name__}); ask for them again"
                raise UnavailableError(problem) from None

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return _object(self._asked(lambda: self._connections.post(path, json=body)))

    def _asked(self, request: Callable[[], httpx2.Response]) -> httpx2.Response:
        """The answer to a request that may be made several times."""
        why = ""

        def once() -> httpx2.Response:
            nonlocal why
            why = ""
            answer = request()
            self._answered = True
            if answer.status_code != 200:
                answer.read()
                why = _reason(answer)
            return answer

        retries = self._retries if self._answered else min(self._retries, FIRST_RETRIES)
        try:
            return ask(once, retries=retries, sleep=self._sleep)
        except NoAnswerError as error:
            told = f"{self.url}: {why or error.problem}"
            if error.status is None:
                raise UnavailableError(f"{told} (asked {error.tries} times)") from None
            raise REFUSED.get(error.status, StoreError)(told) from None


def _reason(answer: httpx2.Response) -> str:
    """What the server says, "" when it is no server of ours that does."""
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return ""


def _object(answer: httpx2.Response) -> dict[str, Any]:
    try:
        return dict(answer.json())
    except (ValueError, TypeError):
        raise StoreError(f"{answer.url}: answers with no JSON object; is it a labeling server?") from None


def _only(cls: type[T], row: Mapping[str, Any]) -> T:
    """The record of a row; a newer server may tell more than it holds."""
    try:
        return cls(**{field.name: row[field.name] for field in fields(cls)})  # type: ignore[arg-type]
    except KeyError as error:
        raise StoreError(f"the server does not tell {error}; is it older than this client?") from None


def _held(given: Mapping[str, Any]) -> Held:
    turns = tuple(Message(turn["role"], turn["content"]) for turn in given["prompt"])
    answers = tuple(Completion(one["text"], id=one["id"]) for one in given["answers"])
    return _only(Held, {**given, "prompt": Prompt(turns), "answers": answers})


def _feedback(learned: Mapping[str, Any]) -> Feedback:
    gold = {name: learned[name] for name in ("ranks", "values", "why")}
    return Feedback(right=learned["right"], gold=gold, passed=learned["passed"])


def _item(given: Candidates) -> dict[str, Any]:
    answers = [{"text": one.text, "model": one.model} for one in given.completions]
    return {"prompt": given.prompt.as_json(), "completions": answers}


def _parts(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows in order, in parts of up to LARGEST_PART."""
    part: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        size += len(json.dumps(row))
        if part and size > LARGEST_PART:
            yield part
            part, size = [], len(json.dumps(row))
        part.append(row)
    if part:
        yield part
