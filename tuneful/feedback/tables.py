"""The tables of the judgment store, the same on SQLite and PostgreSQL.

    project ── instructions (versions of one text)
       ├── prompt ── completion
       ├── item = prompt + completions in stored order + how many raters are asked
       ├── membership ── rater (a person or a model)
       └── assignment = item x rater, under a lease ── draft
                └── judgment (only ever added)

Times are seconds since 1970, UTC. Ids are text: content hashes for prompts and instructions, the client's UUID for a
judgment, ours for the rest. A change of this file needs a migration beside it; a test compares the two.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
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
    _when(),
)

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
        "priority",
        "position",
        sqlite_where=text("submitted < overlap"),
        postgresql_where=text("submitted < overlap"),
    ),
)
"""submitted: judgments that count towards the overlap, so that a claim reads open items alone."""

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
    _when(),
    CheckConstraint("role IN ('lead', 'labeler')", name="role"),
)

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
"""The unique index, not the code, forbids a second one of the same rater on the same item."""

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
    Column("criterion", Text, nullable=False),
    Column("shown_order", JSON, nullable=False),
    _of("instructions", optional=True),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("seconds", Double, nullable=True),
    Column("late", Boolean, nullable=False, server_default=false()),
    Column("counted", Boolean, nullable=False),
    Column("replaces", Text, ForeignKey("judgment.id"), nullable=True, unique=True),
    _when(),
    Index("ix_judgment_project", "project", "created_at"),
    Index("ix_judgment_item", "item"),
)
"""counted: within the overlap; what came after it was full is kept, and marked. A row is never changed: a revision is
another row, and a row is replaced once at most."""
