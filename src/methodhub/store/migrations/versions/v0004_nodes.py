"""Which node a target is connected to, and a sequence that orders its connections."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import CreateSequence

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("identities", sa.Column("connected_node", sa.Text))
    if op.get_bind().dialect.supports_sequences:
        op.execute(CreateSequence(sa.Sequence("generations")))
