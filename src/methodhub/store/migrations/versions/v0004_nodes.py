"""Which node a target is connected to, and a sequence that orders its connections.

[HUB-rollback] Only adds, and what the version before writes fits: its processes go on beside new ones, and it can be
gone back to by setting `alembic_version` back. What is there already from such a journey is left as it is.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.schema import CreateSequence

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    connection = op.get_bind()
    if "connected_node" not in {column["name"] for column in sa.inspect(connection).get_columns("identities")}:
        op.add_column("identities", sa.Column("connected_node", sa.Text))
    if connection.dialect.supports_sequences:
        op.execute(CreateSequence(sa.Sequence("generations"), if_not_exists=True))
