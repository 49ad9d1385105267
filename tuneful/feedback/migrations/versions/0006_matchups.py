"""Matchups of models whose texts an item asked about already, or that read the same"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "matchup",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("item", sa.Text(), nullable=True),
        sa.Column("completions", sa.JSON(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project"], ["project.id"], name=op.f("fk_matchup_project")),
        sa.ForeignKeyConstraint(["item"], ["item.id"], name=op.f("fk_matchup_item")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_matchup")),
    )
    op.create_index("ix_matchup_project", "matchup", ["project"], unique=False)
