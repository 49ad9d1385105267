"""Workers of a job that were lost are counted apart from how often it was taken"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("job", sa.Column("lost", sa.Integer(), server_default=sa.text("0"), nullable=False))
