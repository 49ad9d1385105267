"""What models judged takes no place of the overlap, which is people's; items that had given them one are open again

Judgments that were imported stay as they are: their items want as many raters as came with them.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

_MODELS = "SELECT id FROM rater WHERE kind = 'ai'"


def upgrade() -> None:
    theirs = f"assignment IS NOT NULL AND rater IN ({_MODELS})"
    counted = "SELECT count(DISTINCT rater) FROM judgment WHERE judgment.item = item.id AND counted"
    op.execute(f"UPDATE judgment SET counted = false WHERE counted AND {theirs}")
    op.execute(f"UPDATE item SET submitted = ({counted}) WHERE id IN (SELECT item FROM judgment WHERE {theirs})")
    op.execute(f"UPDATE assignment SET state = 'surplus' WHERE state = 'submitted' AND rater IN ({_MODELS})")
    op.execute(f"UPDATE assignment SET lease_until = created_at WHERE state = 'live' AND rater IN ({_MODELS})")
