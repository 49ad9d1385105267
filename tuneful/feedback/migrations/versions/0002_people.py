"""People: accounts, sessions, invitations and tokens; the quiz, and what labelers write"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("rater", sa.Text(), nullable=False),
        sa.Column("login", sa.Text(), nullable=False),
        sa.Column("password", sa.Text(), nullable=False),
        sa.Column("admin", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("wait_until", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["rater"], ["rater.id"], name=op.f("fk_account_rater")),
        sa.PrimaryKeyConstraint("rater", name=op.f("pk_account")),
        sa.UniqueConstraint("login", name=op.f("uq_account_login")),
    )
    op.create_table(
        "invitation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=True),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("used_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint("role IN ('lead', 'labeler', 'admin')", name=op.f("ck_invitation_role")),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_invitation_project")),
        sa.ForeignKeyConstraint(["used_by"], ["rater.id"], name=op.f("fk_invitation_used_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitation")),
    )
    op.create_table(
        "session",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rater", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["rater"], ["rater.id"], name=op.f("fk_session_rater")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_session")),
    )
    op.create_index("ix_session_rater", "session", ["rater"], unique=False)
    op.create_table(
        "token",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rater", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["rater"], ["rater.id"], name=op.f("fk_token_rater")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
    )
    op.add_column("assignment", sa.Column("reason", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("judgment", sa.Column("text", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.add_column("judgment", sa.Column("quiz", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index("ix_judgment_rater", "judgment", ["rater", "project", "created_at"], unique=False)
    op.add_column("membership", sa.Column("passed_at", sa.Double(), nullable=True))
    op.add_column("project", sa.Column("quiz", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.add_column("project", sa.Column("pass_share", sa.Double(), server_default=sa.text("0.7"), nullable=False))
    op.add_column("project", sa.Column("gold_every", sa.Integer(), server_default=sa.text("0"), nullable=False))
    # From the first row on in the order of a claim: with rising priorities SQLite sorted all open items each time.
    op.drop_index("ix_item_open", table_name="item")
    op.create_index(
        "ix_item_open",
        "item",
        ["project", sa.text("priority DESC"), "position"],
        sqlite_where=sa.text("submitted < overlap"),
        postgresql_where=sa.text("submitted < overlap"),
    )
