"""People who come in by a provider of OpenID Connect: who they are to it, and no password if they have none"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.batch_alter_table("account") as account:
        account.alter_column("password", existing_type=sa.Text(), nullable=True)
    op.create_table(
        "identity",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("rater", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["rater"], ["rater.id"], name=op.f("fk_identity_rater")),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_identity")),
        sa.UniqueConstraint("rater", "issuer", name=op.f("uq_identity_rater_issuer")),
    )
    op.create_table(
        "spent_state",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spent_state")),
    )
    op.create_index("ix_spent_state_until", "spent_state", ["until"], unique=False)
