"""The tables, for SQLite and PostgreSQL alike. What a column means is the domain's business."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    literal_column,
)

SCHEMA_VERSION = "0002"
"""The newest revision in `migrations/versions`. Revisions are numbers of four digits."""

metadata = MetaData()

# Ids are case-sensitive and pages follow the order of their bytes: SQLite's default, "C" in PostgreSQL.
_Id = Text().with_variant(Text(collation="C"), "postgresql")

identities = Table(
    "identities",
    metadata,
    Column("device_id", _Id, primary_key=True),
    Column("module_id", _Id, primary_key=True),  # '' for the device itself
    Column("parent_module_id", _Id),  # '' for a module, NULL for a device: the other half of the foreign key
    Column("generation_id", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("authentication_type", Text, nullable=False),
    Column("primary_key", Text),
    Column("secondary_key", Text),
    Column("primary_thumbprint", Text),
    Column("secondary_thumbprint", Text),
    Column("enabled", Boolean, nullable=False),
    Column("status_reason", Text),
    Column("status_updated_time", Double),
    Column("iot_edge", Boolean, nullable=False),
    Column("device_scope", Text),
    Column("parent_scopes", Text, nullable=False),  # a JSON array of text
    Column("managed_by", Text),
    Column("connected", Boolean, nullable=False),
    Column("connection_updated_time", Double),
    Column("last_activity_time", Double),
    ForeignKeyConstraint(
        ["device_id", "parent_module_id"],
        ["identities.device_id", "identities.module_id"],
        name="identities_device",
        ondelete="CASCADE",
    ),
    CheckConstraint(
        "(module_id = '') = (parent_module_id IS NULL) AND coalesce(parent_module_id, '') = ''",
        name="identities_parent",
    ),
)

# A start resets who is recorded as connected: without this index it would read every row.
Index(
    "identities_connected",
    identities.c.device_id,
    identities.c.module_id,
    sqlite_where=identities.c.connected.is_(True),
    postgresql_where=identities.c.connected.is_(True),
)

# Whether there are any decides if browsers are asked for a certificate, and is looked up after each change.
BY_CERTIFICATE = identities.c.authentication_type.in_(
    [literal_column("'certificateAuthority'"), literal_column("'selfSigned'")]
)
Index(
    "identities_certificates",
    identities.c.authentication_type,
    sqlite_where=BY_CERTIFICATE,
    postgresql_where=BY_CERTIFICATE,
)

policies = Table(
    "policies",
    metadata,
    Column("name", _Id, primary_key=True),
    Column("rights", Text, nullable=False),  # names joined by commas
    Column("primary_key", Text, nullable=False),
    Column("secondary_key", Text, nullable=False),
)

certificate_authorities = Table(
    "certificate_authorities",
    metadata,
    Column("name", _Id, primary_key=True),
    Column("pem", Text, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("verification_code", Text, nullable=False),  # '' once verified
)

device_sessions = Table(
    "device_sessions",
    metadata,
    Column("device_id", _Id, primary_key=True),
    Column("module_id", _Id, primary_key=True),
    Column("generation_id", Text, nullable=False),
    Column("subscriptions", Text, nullable=False),  # a JSON array of [filter, QoS]
    ForeignKeyConstraint(
        ["device_id", "module_id"],
        ["identities.device_id", "identities.module_id"],
        name="device_sessions_identity",
        ondelete="CASCADE",
    ),
)

# Read and written by Alembic too: its shape is Alembic's.
schema_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
