"""A site: the web application over a new store, in a thread of its own, with projects and labelers at hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from fastapi import Request
from fastapi.responses import RedirectResponse

from tests.web.served import Served
from tuneful.feedback.access import sign_in
from tuneful.feedback.gold import Gold
from tuneful.feedback.items import add_gold, add_items
from tuneful.feedback.projects import Role, add_rater, create_project, judgments, publish_instructions, set_quiz
from tuneful.feedback.store import Store
from tuneful.records import Candidates, Completion, Judgment, JudgmentKind, Prompt
from tuneful.web.app import create_app
from tuneful.web.provider import Provider
from tuneful.web.security import SESSION_COOKIE

ANSWERS = (
    "Open a window at night and close it in the morning.",
    "Buy a fan.",
    "It is not hot at all.",
    "That is not my problem.",
    "Draw the curtains while the sun is on them.",
    "Drink cold water.",
    "Move to the cellar.",
    "Ask a neighbour.",
    "Wait for the evening.",
)


class Site:
    """`url` is where it is served; `moved` seconds are added to its clock."""

    def __init__(self, store: Store, provider: Provider | None = None) -> None:
        self.store = store
        self.moved = 0.0
        self.app = create_app(store, clock=self.now, provider=provider)
        self.app.get("/sign-in/{secret}")(_sign_in)
        self._served = Served(self.app)
        self.url = f"http://127.0.0.1:{self._served.port}"

    def now(self) -> float:
        return time.time() + self.moved

    def close(self) -> None:
        self._served.close()

    def project(
        self,
        kind: JudgmentKind = "ranking",
        *,
        answers: int = 4,
        items: int = 5,
        overlap: int = 1,
        texts: Sequence[str] = ANSWERS,
        instructions: str = "Which answer **helps** most?",
        quiz: int = 0,
    ) -> str:
        """The id of a new project whose gold items, if there is a quiz, rank answers as they are stored."""
        name = f"{kind} {len(texts)} {time.monotonic_ns()}"
        made = create_project(self.store, name, kind, criteria=("helpful",), now=self.now())
        publish_instructions(self.store, made, instructions, now=self.now())
        offered = tuple(Completion(text, id=str(n), model="secret-model") for n, text in enumerate(texts[:answers]))
        asked = [Candidates(Prompt.user(f"My house is too hot, {n} of {items}."), offered) for n in range(items)]
        add_items(self.store, made, asked, overlap=overlap, now=self.now())
        known = [Candidates(Prompt.user(f"My room is too hot, {n}."), offered) for n in range(quiz)]
        ranks = tuple(range(1, len(offered) + 1))
        add_gold(self.store, made, [Gold(one, ranks=ranks, why="A remedy is best.") for one in known], now=self.now())
        set_quiz(self.store, made, quiz=quiz, now=self.now())
        return made

    def rater(self, project: str, *, role: Role = "labeler", name: str = "") -> str:
        return add_rater(self.store, project, role=role, name=name, now=self.now())

    def labeler(self, project: str, *, role: Role = "labeler") -> str:
        """A URL that signs a new labeler in and leads to the project's page."""
        secret = sign_in(self.store, self.rater(project, role=role), now=self.now())
        place = f"/p/{project}" if role == "labeler" else f"/lead/{project}"
        return f"{self.url}/sign-in/{secret}?next={place}"

    def judgments(self, project: str) -> list[Judgment]:
        return judgments(self.store, project)


def _sign_in(request: Request, secret: str, next: str) -> RedirectResponse:  # noqa: A002
    answer = RedirectResponse(next, 303)
    answer.set_cookie(SESSION_COOKIE, secret, httponly=True, samesite="lax", path="/")
    return answer


@pytest.fixture
def provider() -> Provider | None:
    """By which people sign in; none where a module of tests names none."""
    return None


@pytest.fixture
def site(tmp_path: Path, provider: Provider | None) -> Iterator[Site]:
    store = Store.open(tmp_path / "judgments.db")
    opened = Site(store, provider)
    yield opened
    opened.close()
    store.close()
