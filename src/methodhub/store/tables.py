"""The tables, for SQLite and PostgreSQL alike. What a column means is the domain's business."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    String,
    Table,
    Text,
    literal_column,
)

SCHEMA_VERSION = "0004"
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
    Column("connected_node", Text),  # the node that wrote it; NULL: the only one
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

# Counts of devices are read from this index alone. It holds module_id, else SQLite would look at each row for it.
DEVICES = identities.c.module_id == literal_column("''")
Index(
    "identities_devices", identities.c.enabled, identities.c.module_id, sqlite_where=DEVICES, postgresql_where=DEVICES
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

# A target without a row has the twin that every identity begins with.
twins = Table(
    "twins",
    metadata,
    Column("device_id", _Id, primary_key=True),
    Column("module_id", _Id, primary_key=True),
    Column("version", BigInteger, nullable=False),  # counts every change; the etag is made of it
    # JSON objects as text
    Column("tags", Text, nullable=False),
    Column("desired", Text, nullable=False),
    Column("desired_metadata", Text, nullable=False),
    Column("desired_version", BigInteger, nullable=False),
    Column("reported", Text, nullable=False),
    Column("reported_metadata", Text, nullable=False),
    Column("reported_version", BigInteger, nullable=False),
    Column("model_id", Text),
    ForeignKeyConstraint(
        ["device_id", "module_id"],
        ["identities.device_id", "identities.module_id"],
        name="twins_identity",
        ondelete="CASCADE",
    ),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", _Id, primary_key=True),
    Column("type", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("query_condition", Text, nullable=False),
    Column("created_time", Double, nullable=False),
    Column("start_time", Double, nullable=False),
    Column("end_time", Double),
    Column("max_execution_seconds", Integer, nullable=False),
    Column("work", LargeBinary, nullable=False),  # JSON: the method or the twin's update, as it was given
    Column("options", Text, nullable=False),  # a JSON object: rate, concurrency, retry and so on
    Column("failure_reason", Text),
    Column("selecting", Boolean, nullable=False),  # devices are still being chosen, behind these ids
    Column("selected_device_id", _Id, nullable=False),
    Column("selected_module_id", _Id, nullable=False),
    Column("staged", Boolean, nullable=False),  # only the first devices of a rollout may be called as yet
    Column("cancel_requested", Boolean, nullable=False),
    # How many of its devices are in each state: changed in the transactions that change their states.
    Column("device_count", Integer, nullable=False),
    Column("pending_count", Integer, nullable=False),
    Column("running_count", Integer, nullable=False),
    Column("succeeded_count", Integer, nullable=False),
    Column("failed_count", Integer, nullable=False),
    Column("canceled_count", Integer, nullable=False),
)
Index("jobs_status", jobs.c.status, jobs.c.start_time)

device_jobs = Table(
    "device_jobs",
    metadata,
    Column("job_id", _Id, primary_key=True),
    Column("device_id", _Id, primary_key=True),
    Column("module_id", _Id, primary_key=True),
    Column("ordinal", Integer, nullable=False),  # counts the devices of a job in the order they were chosen, from 0
    Column("status", Text, nullable=False),
    Column("created_time", Double, nullable=False),
    Column("start_time", Double),
    Column("end_time", Double),
    Column("updated_time", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Double, nullable=False),  # when it may be tried; a device that is away waits for its connect
    Column("lease_node", Text),  # the node that has it while it runs
    Column("outcome_status", Integer),
    Column("outcome_payload", LargeBinary),  # the answer's own bytes
    Column("error_code", Text),
    Column("error_description", Text),
    ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name="device_jobs_job", ondelete="CASCADE"),
)
Index("device_jobs_due", device_jobs.c.job_id, device_jobs.c.status, device_jobs.c.not_before, device_jobs.c.ordinal)
_PENDING = device_jobs.c.status == literal_column("'pending'")
Index(
    "device_jobs_pending",
    device_jobs.c.device_id,
    device_jobs.c.module_id,
    sqlite_where=_PENDING,
    postgresql_where=_PENDING,
)
_RUNNING = device_jobs.c.status == literal_column("'running'")
Index("device_jobs_running", device_jobs.c.lease_node, sqlite_where=_RUNNING, postgresql_where=_RUNNING)

# Orders the connections of a target over all nodes. SQLite has none: its nodes share one machine and its clock.
generations = Sequence("generations", metadata=metadata)

# A node's leases hold as long as it is alive, by the database's clock.
nodes = Table(
    "nodes",
    metadata,
    Column("node_id", _Id, primary_key=True),
    Column("alive_until", Double, nullable=False),  # seconds since 1970, UTC
)

# What the hub signs with and never shows.
secrets = Table(
    "secrets",
    metadata,
    Column("name", _Id, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# Read and written by Alembic too: its shape is Alembic's.
schema_version = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
