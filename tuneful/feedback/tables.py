"""The tables of the judgment store, the same on SQLite and PostgreSQL.

    project ── instructions (versions of one text)
       ├── prompt ── completion
       ├── item = prompt + completions in stored order + how many raters are asked
       ├── matchup (models that gave the texts of an item again, or gave equal ones)
       ├── membership ── rater (a person or a model) ── account ── session, token, identity
       ├── invitation
       ├── job (work that pages ask for), snapshot (what was made of the judgments)
       ├── dataset_version (what was exported) ── dataset_part (the newest one's packed file)
       ├── decision (what a lead settled), event (what leads did, each holding the hash of the one before)
       └── assignment = item x rater, under a lease ── draft
                └── judgment (only ever added)

Times are seconds since 1970, UTC. Ids are text: content hashes for prompts and instructions, the client's UUID for a
judgment, ours for the rest. A change of this file needs a migration beside it; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _of(table: str, *, optional: bool = False) -> Column[str]:
    """A column that names a row of another table."""
    return Column(table, Text, ForeignKey(f"{table}.id"), nullable=optional)


def _when(name: str = "created_at", *, optional: bool = False) -> Column[float]:
    return Column(name, Double, nullable=optional)


project = Table(
    "project",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("criteria", JSON, nullable=False),
    Column("quiz", Integer, nullable=False, server_default=text("0")),
    Column("pass_share", Double, nullable=False, server_default=text("0.7")),
    Column("gold_every", Integer, nullable=False, server_default=text("0")),
    Column("most_overlap", Integer, nullable=False, server_default=text("0")),
    Column("sure", Double, nullable=False, server_default=text("0.9")),
    _when(),
)
"""quiz: gold items that a labeler begins with, and has to get `pass_share` right of. gold_every: afterwards one item in
so many is a gold one; 0 leaves them out. most_overlap: up to how many raters are asked about an item whose order is not
yet `sure`; 0 asks as many as the item says."""

instructions = Table(
    "instructions",
    metadata,
    _id(),
    _of("project"),
    Column("version", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("hash", Text, nullable=False),
    _when(),
    UniqueConstraint("project", "version"),
)

prompt = Table(
    "prompt",
    metadata,
    Column("id", Text, primary_key=True),
    Column("project", Text, ForeignKey("project.id"), primary_key=True),
    Column("content", JSON, nullable=False),
    _when(),
)

completion = Table(
    "completion",
    metadata,
    _id(),
    _of("project"),
    Column("prompt", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("model", Text, nullable=True),
    Column("settings", JSON, nullable=False),
    _when(),
)

item = Table(
    "item",
    metadata,
    _id(),
    _of("project"),
    Column("prompt", Text, nullable=False),
    Column("completions", JSON, nullable=False),
    Column("overlap", Integer, nullable=False),
    Column("submitted", Integer, nullable=False, server_default=text("0")),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("position", Integer, nullable=False),
    Column("gold", JSON(none_as_null=True), nullable=True),
    _when(),
    CheckConstraint("overlap > 0", name="overlap"),
    CheckConstraint("submitted >= 0 AND submitted <= overlap", name="submitted"),
    Index(
        "ix_item_open",
        "project",
        text("priority DESC"),
        "position",
        sqlite_where=text("submitted < overlap"),
        postgresql_where=text("submitted < overlap"),
    ),
)
"""submitted: judgments that count towards the overlap, no model's among them, so that a claim reads open items alone,
in the order of their index, and stops at the first. gold: the known answer of an item that everybody is asked once,
{"ranks" or "values", "why"}; it has no part in a project's progress."""

matchup = Table(
    "matchup",
    metadata,
    _id(),
    _of("project"),
    Column("prompt", Text, nullable=False),
    _of("item", optional=True),
    Column("completions", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    _when(),
    Index("ix_matchup_project", "project"),
)
"""Models whose answers an item asks about already, or whose answers read the same, and then there is no item
(feedback.matchups). models: of the completions, in their order."""

rater = Table(
    "rater",
    metadata,
    _id(),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=True),
    Column("email", Text, nullable=True),
    Column("groups", JSON, nullable=False),
    _when(),
)
"""name, email and groups are personal and can be erased; judgments stay under the id."""

membership = Table(
    "membership",
    metadata,
    Column("project", Text, ForeignKey("project.id"), primary_key=True),
    Column("rater", Text, ForeignKey("rater.id"), primary_key=True),
    Column("role", Text, nullable=False),
    _when("passed_at", optional=True),
    _when(),
    CheckConstraint("role IN ('lead', 'labeler')", name="role"),
)
"""passed_at: when the quiz at the beginning was passed."""

assignment = Table(
    "assignment",
    metadata,
    _id(),
    _of("item"),
    _of("rater"),
    Column("state", Text, nullable=False),
    _when("lease_until"),
    Column("shown_order", JSON, nullable=False),
    _of("instructions", optional=True),
    Column("reason", Text, nullable=False, server_default=text("''")),
    _when(),
    CheckConstraint("state IN ('live', 'submitted', 'surplus', 'skipped', 'released')", name="state"),
    Index(
        "uq_assignment_once",
        "item",
        "rater",
        unique=True,
        sqlite_where=text("state <> 'released'"),
        postgresql_where=text("state <> 'released'"),
    ),
    Index(
        "ix_assignment_live",
        "item",
        "lease_until",
        sqlite_where=text("state = 'live'"),
        postgresql_where=text("state = 'live'"),
    ),
    Index("ix_assignment_rater", "rater", "state"),
)
"""The unique index, not the code, forbids a second one of the same rater on the same item. lease_until: of a model's
when it began, so that it is in nobody's way. reason: of a skip."""

draft = Table(
    "draft",
    metadata,
    Column("assignment", Text, ForeignKey("assignment.id"), primary_key=True),
    Column("content", JSON, nullable=False),
    _when("saved_at"),
)

judgment = Table(
    "judgment",
    metadata,
    _id(),
    _of("project"),
    _of("item"),
    _of("rater"),
    _of("assignment", optional=True),
    Column("ranks", JSON, nullable=False),
    Column("flags", JSON, nullable=False),
    Column("values", JSON, nullable=False),
    Column("text", Text, nullable=False, server_default=text("''")),
    Column("criterion", Text, nullable=False),
    Column("shown_order", JSON, nullable=False),
    Column("instructions", Text, nullable=True),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("seconds", Double, nullable=True),
    Column("late", Boolean, nullable=False, server_default=false()),
    Column("counted", Boolean, nullable=False),
    Column("quiz", Boolean, nullable=False, server_default=false()),
    Column("replaces", Text, ForeignKey("judgment.id"), nullable=True, unique=True),
    _when(),
    Index("ix_judgment_project", "project", "created_at"),
    Index("ix_judgment_item", "item"),
    Index("ix_judgment_rater", "rater", "project", "created_at"),
)
"""instructions: the id of the version that was read, or what a judgment made elsewhere calls it. counted: within the
overlap; what came after it was full is kept, and marked, and so is what models say, who take no place. quiz: said
before the quiz was passed, and of use to nobody but the labeler. A row is never changed: a revision is another row, and
a row is replaced once at most."""

account = Table(
    "account",
    metadata,
    Column("rater", Text, ForeignKey("rater.id"), primary_key=True),
    Column("login", Text, nullable=False, unique=True),
    Column("password", Text, nullable=True),
    Column("admin", Boolean, nullable=False, server_default=false()),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    _when("wait_until", optional=True),
    _when(),
)
"""password: its argon2id hash; none of somebody who comes in by a provider alone. failures: wrong passwords since the
last right one; after some of them the next try has to wait."""

identity = Table(
    "identity",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    _of("rater"),
    _when(),
    UniqueConstraint("rater", "issuer"),
)
"""Who a rater is to a provider of OpenID Connect: the subject, which means something beside its issuer alone."""

spent_state = Table("spent_state", metadata, _id(), _when("until"), Index("ix_spent_state_until", "until"))
"""States of sign-ins by a provider that let somebody in, kept until they are too old to be used again. id: the SHA-256
of one."""

session = Table(
    "session",
    metadata,
    _id(),
    _of("rater"),
    _when("seen_at"),
    _when(),
    Index("ix_session_rater", "rater"),
)
"""id, here and below: the SHA-256 of a secret that only its holder has."""

invitation = Table(
    "invitation",
    metadata,
    _id(),
    _of("project", optional=True),
    Column("role", Text, nullable=False),
    _when("until"),
    _when("used_at", optional=True),
    Column("used_by", Text, ForeignKey("rater.id"), nullable=True),
    _when(),
    CheckConstraint("role IN ('lead', 'labeler', 'admin')", name="role"),
)

token = Table(
    "token",
    metadata,
    _id(),
    _of("rater"),
    Column("name", Text, nullable=False),
    Column("scopes", JSON, nullable=False),
    _when("until"),
    _when("used_at", optional=True),
    _when(),
)

job = Table(
    "job",
    metadata,
    _id(),
    _of("project"),
    _of("rater", optional=True),
    Column("kind", Text, nullable=False),
    Column("request", JSON, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'waiting'")),
    Column("done", Integer, nullable=False, server_default=text("0")),
    Column("total", Integer, nullable=False, server_default=text("0")),
    Column("message", Text, nullable=False, server_default=text("''")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("lost", Integer, nullable=False, server_default=text("0")),
    _when("lease_until", optional=True),
    _when("finished_at", optional=True),
    _when(),
    CheckConstraint("state IN ('waiting', 'running', 'done', 'failed', 'stopped')", name="state"),
    Index(
        "ix_job_open",
        "created_at",
        sqlite_where=text("finished_at IS NULL"),
        postgresql_where=text("finished_at IS NULL"),
    ),
    Index("ix_job_project", "project", "created_at"),
)
"""Work for `tuneful worker`. rater: who asked for it. done, total: how far it is. attempts: how often it was
taken; lost: how many of those who took it last were gone without a word, or could not do it. A running job whose lease
is over belongs to nobody, and is begun again."""

decision = Table(
    "decision",
    metadata,
    _id(),
    _of("project"),
    _of("item"),
    _of("rater"),
    Column("ranks", JSON, nullable=False),
    Column("values", JSON, nullable=False),
    Column("why", Text, nullable=False, server_default=text("''")),
    Column("replaces", Text, ForeignKey("decision.id"), nullable=True, unique=True),
    _when(),
    Index("ix_decision_item", "item"),
    Index("ix_decision_project", "project"),
)
"""What a lead settled about an item on which people do not agree. A row is never changed: another one replaces it."""

snapshot = Table(
    "snapshot",
    metadata,
    _id(),
    _of("project"),
    Column("kind", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("judgments", Integer, nullable=False),
    Column("result", JSON, nullable=False),
    _when(),
    Index("ix_snapshot_project", "project", "kind", "created_at"),
)
"""inputs: the hash of the judgments that it was made of; judgments: how many they were."""

dataset_version = Table(
    "dataset_version",
    metadata,
    _id(),
    _of("project"),
    Column("version", Integer, nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("hash", Text, nullable=False),
    Column("size", BigInteger, nullable=True),
    _when(),
    UniqueConstraint("project", "version"),
)
"""size: of the packed dataset, in bytes; None where it is not kept."""

dataset_part = Table(
    "dataset_part",
    metadata,
    Column("version", Text, ForeignKey("dataset_version.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    _of("project", optional=True),
    _of("rater", optional=True),
    Column("what", Text, nullable=False),
    Column("about", JSON, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
    _when(),
    Index("ix_event_project", "project", "number"),
)
"""hash: of the row and `previous`, the hash of the row before, so that none can be changed or taken out unseen."""
