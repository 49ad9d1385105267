"""Who comes in, as whom, and who is forgotten."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import typer

from tuneful.cli.options import OptionalProject, StoreUrl
from tuneful.errors import ConfigError

Role = Literal["labeler", "lead", "admin"]


def token_command(
    login: Annotated[str, typer.Argument(help="Login of the person whom the program stands for.", show_default=False)],
    name: Annotated[str, typer.Option(help="What it is for.")] = "script",
    scope: Annotated[list[str] | None, typer.Option(help="read, label or lead; may be repeated.")] = None,
    days: Annotated[float, typer.Option(help="How long it is good; a part of one will do.")] = 90,
    store: StoreUrl = "judgments.db",
) -> None:
    """A token for a program, shown this once; it goes into the header "Authorization: Bearer TOKEN" below /api/v1.

    Example: tuneful label token ada --scope label --scope read
    """
    import time

    from tuneful.feedback.access import Scope, make_token, rater_of
    from tuneful.feedback.store import Store

    scopes = [one for one in get_args(Scope) if one in (scope or ())]
    if not scopes or len(scopes) < len(scope or ()):
        raise ConfigError(f"--scope {' '.join(scope or ['is missing'])}: give one or more of read, label, lead")
    opened = Store.open(store, make=False)
    print(make_token(opened, rater_of(opened, login), name, scopes, days=days, now=time.time()))


def invite_command(
    url: Annotated[
        str, typer.Argument(help="Where the pages are, such as https://labels.example.", show_default=False)
    ],
    project: OptionalProject = None,
    role: Annotated[Role, typer.Option(help="What the person becomes; an admin has no --project.")] = "labeler",
    store: StoreUrl = "judgments.db",
) -> None:
    """A link that lets one person in, within two weeks.

    Example: tuneful label invite http://127.0.0.1:8080 --project helpful
    """
    import time

    from tuneful.feedback.access import invite
    from tuneful.feedback.projects import find_project
    from tuneful.feedback.store import Store
    from tuneful.servers import refuse_no_url

    refuse_no_url("URL", url, example="https://labels.example", keys="give the address of the pages alone")
    if (role == "admin") != (project is None):
        raise ConfigError("--project and --role admin: give one of them")
    opened = Store.open(store, make=False)
    place = None if project is None else find_project(opened, project).id
    print(f"{url.rstrip('/')}/invitation/{invite(opened, project_id=place, role=role, now=time.time())}")


def forget_command(
    login: Annotated[str, typer.Argument(help="Login of the person.", show_default=False)],
    store: StoreUrl = "judgments.db",
) -> None:
    """Erase who a person is: login, name, groups. What they judged stays, under a number.

    Example: tuneful label forget bo
    """
    import time

    from tuneful.feedback.access import erase, rater_of
    from tuneful.feedback.store import Store

    opened = Store.open(store, make=False)
    erase(opened, rater_of(opened, login), now=time.time())
    print(f"{login} is forgotten; the judgments stay")
