"""The packed file of a project's newest dataset"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("dataset_version", sa.Column("size", sa.BigInteger(), nullable=True))
    op.create_table(
        "dataset_part",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["version"], ["dataset_version.id"], name=op.f("fk_dataset_part_version")),
        sa.PrimaryKeyConstraint("version", "number", name=op.f("pk_dataset_part")),
    )
