"""Pages from templates. Everything put into one is escaped, but for instructions, whose Markdown is rendered here.

Characters that are not seen, and those that turn the direction of writing, are named in all that a page tells, so that
nobody decides on another text than the one that is there. What a form sends back stays as it is: `|e` in a template.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from markupsafe import Markup

from tuneful import __version__
from tuneful.feedback.access import Who
from tuneful.visible import visible
from tuneful.web.security import API, SESSION_COOKIE, VISIT_COOKIE, csrf, new_visit

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

FOLDER: Final = Path(__file__).parent

_templates = Jinja2Templates(FOLDER / "templates")
_templates.env.finalize = lambda value: (
    visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
)
_templates.env.filters["utc"] = lambda time: datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M")


def page(request: Request, name: str, who: Who | None, *, status: int = 200, **shown: Any) -> HTMLResponse:
    """A page of `templates/`, with the token that its forms send back."""
    first_visit = not request.cookies.get(SESSION_COOKIE) and not request.cookies.get(VISIT_COOKIE)
    if first_visit:
        request.state.visit = new_visit()
    provider = request.app.state.provider
    values = {"who": who, "csrf": csrf(request), "version": __version__, "provider": provider and provider.name} | shown
    answer = _templates.TemplateResponse(request, name, values, status_code=status)
    if first_visit:
        set_cookie(request, answer, VISIT_COOKIE, request.state.visit)
    return answer


def wants_page(request: Request) -> bool:
    """Whether a browser asks, for somebody to read; scripts and programs are answered with JSON."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(API)


def set_cookie(request: Request, answer: Any, name: str, value: str, *, seconds: int | None = None) -> None:
    secure = request.url.scheme == "https"
    answer.set_cookie(name, value, max_age=seconds, httponly=True, samesite="lax", secure=secure, path="/")


def instructions_html(text: str) -> str:
    """HTML of instructions in Markdown: no raw HTML, no images, and links that are shown and lead nowhere."""
    return str(_markdown().render(visible(text)))


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])


def age(seconds: float) -> str:
    """How long ago, in the largest unit of which there is a whole one."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
