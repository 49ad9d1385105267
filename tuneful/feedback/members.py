"""Who belongs to a project, and who may still come: members leave it, and invitations are taken back.

What somebody has judged stays and counts: rows of judgments are never changed. Whoever is invited again goes on where
they were.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from tuneful.errors import MissingError, StoreError
from tuneful.feedback import trail
from tuneful.feedback.access import NAMED
from tuneful.feedback.store import Store
from tuneful.feedback.tables import assignment, invitation, item, membership


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An invitation that nobody has used yet. id: the beginning of its hash, as the trail has it; until: its end."""

    id: str
    role: str
    until: float


def open_invitations(store: Store, project_id: str, *, now: float) -> list[Open]:
    """Those that can still be used, the oldest first."""
    usable = (invitation.c.project == project_id, invitation.c.used_at.is_(None), invitation.c.until > now)
    with store.read() as connection:
        rows = connection.execute(select(invitation).where(*usable).order_by(invitation.c.until, invitation.c.id)).all()
    return [Open(id=row.id[:NAMED], role=row.role, until=row.until) for row in rows]


def take_back(store: Store, project_id: str, invitation_id: str, *, by: str | None = None, now: float) -> None:
    """Nobody can use it any more. Raises MissingError where there is none of that id to be used."""

    def work(connection: Connection) -> None:
        named = (invitation.c.project == project_id, invitation.c.used_at.is_(None))
        ids = connection.execute(select(invitation.c.id).where(*named)).scalars()
        whole = [one for one in ids if one[:NAMED] == invitation_id]
        if not whole or not connection.execute(delete(invitation).where(invitation.c.id.in_(whole), *named)).rowcount:
            raise MissingError(f'invitation "{invitation_id}": it was used, or taken back already')
        about = {"invitation": invitation_id}
        trail.add(connection, "invitation taken back", project=project_id, rater=by, about=about, now=now)

    store.write(work)


def remove_member(store: Store, project_id: str, rater_id: str, *, by: str | None = None, now: float) -> None:
    """Somebody belongs to the project no more: what they have in hand goes to others, and no more is taken of them.

    Raises StoreError for whoever does it themselves, who could leave a project without a lead, and MissingError for
    one who is no member.
    """
    if by == rater_id:
        raise StoreError("you cannot remove yourself; another lead or an admin can")

    def work(connection: Connection) -> None:
        theirs = (membership.c.project == project_id, membership.c.rater == rater_id)
        if connection.execute(delete(membership).where(*theirs)).rowcount == 0:
            raise MissingError(f'rater "{rater_id}": is no member of the project')
        of_project = select(item.c.id).where(item.c.project == project_id)
        held = (assignment.c.rater == rater_id, assignment.c.state == "live", assignment.c.item.in_(of_project))
        connection.execute(update(assignment).where(*held).values(state="released"))
        trail.add(connection, "member removed", project=project_id, rater=by, about={"rater": rater_id}, now=now)

    store.write(work)
