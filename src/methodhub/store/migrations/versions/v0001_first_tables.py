"""The first tables: identities, policies, device sessions. Never edited: a change is a new revision."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_identities()
    op.create_table(
        "policies",
        sa.Column("name", id_type(), primary_key=True),
        sa.Column("rights", sa.Text, nullable=False),
        sa.Column("primary_key", sa.Text, nullable=False),
        sa.Column("secondary_key", sa.Text, nullable=False),
    )
    op.create_table(
        "device_sessions",
        sa.Column("device_id", id_type(), primary_key=True),
        sa.Column("module_id", id_type(), primary_key=True),
        sa.Column("generation_id", sa.Text, nullable=False),
        sa.Column("subscriptions", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id", "module_id"],
            ["identities.device_id", "identities.module_id"],
            name="device_sessions_identity",
            ondelete="CASCADE",
        ),
    )


def id_type() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def create_identities() -> None:
    op.create_table(
        "identities",
        sa.Column("device_id", id_type(), primary_key=True),
        sa.Column("module_id", id_type(), primary_key=True),
        sa.Column("parent_module_id", id_type()),
        sa.Column("generation_id", sa.Text, nullable=False),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("authentication_type", sa.Text, nullable=False),
        sa.Column("primary_key", sa.Text),
        sa.Column("secondary_key", sa.Text),
        sa.Column("primary_thumbprint", sa.Text),
        sa.Column("secondary_thumbprint", sa.Text),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("status_reason", sa.Text),
        sa.Column("status_updated_time", sa.Double),
        sa.Column("iot_edge", sa.Boolean, nullable=False),
        sa.Column("device_scope", sa.Text),
        sa.Column("parent_scopes", sa.Text, nullable=False),
        sa.Column("managed_by", sa.Text),
        sa.Column("connected", sa.Boolean, nullable=False),
        sa.Column("connection_updated_time", sa.Double),
        sa.Column("last_activity_time", sa.Double),
        sa.ForeignKeyConstraint(
            ["device_id", "parent_module_id"],
            ["identities.device_id", "identities.module_id"],
            name="identities_device",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "(module_id = '') = (parent_module_id IS NULL) AND coalesce(parent_module_id, '') = ''",
            name="identities_parent",
        ),
    )
    connected = sa.column("connected", sa.Boolean).is_(True)
    op.create_index(
        "identities_connected",
        "identities",
        ["device_id", "module_id"],
        sqlite_where=connected,
        postgresql_where=connected,
    )
