"""Twins, jobs, the nodes that run them, and secrets of the hub."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    device = sa.column("module_id", sa.Text) == sa.literal_column("''")
    op.create_index(
        "identities_devices", "identities", ["enabled", "module_id"], sqlite_where=device, postgresql_where=device
    )
    create_twins()
    create_jobs()
    create_device_jobs()
    op.create_table(
        "nodes",
        sa.Column("node_id", id_type(), primary_key=True),
        sa.Column("alive_until", sa.Double, nullable=False),
    )
    op.create_table(
        "secrets",
        sa.Column("name", id_type(), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )


def id_type() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def create_twins() -> None:
    op.create_table(
        "twins",
        sa.Column("device_id", id_type(), primary_key=True),
        sa.Column("module_id", id_type(), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("desired", sa.Text, nullable=False),
        sa.Column("desired_metadata", sa.Text, nullable=False),
        sa.Column("desired_version", sa.BigInteger, nullable=False),
        sa.Column("reported", sa.Text, nullable=False),
        sa.Column("reported_metadata", sa.Text, nullable=False),
        sa.Column("reported_version", sa.BigInteger, nullable=False),
        sa.Column("model_id", sa.Text),
        sa.ForeignKeyConstraint(
            ["device_id", "module_id"],
            ["identities.device_id", "identities.module_id"],
            name="twins_identity",
            ondelete="CASCADE",
        ),
    )


def create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", id_type(), primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("query_condition", sa.Text, nullable=False),
        sa.Column("created_time", sa.Double, nullable=False),
        sa.Column("start_time", sa.Double, nullable=False),
        sa.Column("end_time", sa.Double),
        sa.Column("max_execution_seconds", sa.Integer, nullable=False),
        sa.Column("work", sa.LargeBinary, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("failure_reason", sa.Text),
        sa.Column("selecting", sa.Boolean, nullable=False),
        sa.Column("selected_device_id", id_type(), nullable=False),
        sa.Column("selected_module_id", id_type(), nullable=False),
        sa.Column("staged", sa.Boolean, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("device_count", sa.Integer, nullable=False),
        sa.Column("pending_count", sa.Integer, nullable=False),
        sa.Column("running_count", sa.Integer, nullable=False),
        sa.Column("succeeded_count", sa.Integer, nullable=False),
        sa.Column("failed_count", sa.Integer, nullable=False),
        sa.Column("canceled_count", sa.Integer, nullable=False),
    )
    op.create_index("jobs_status", "jobs", ["status", "start_time"])


def create_device_jobs() -> None:
    op.create_table(
        "device_jobs",
        sa.Column("job_id", id_type(), primary_key=True),
        sa.Column("device_id", id_type(), primary_key=True),
        sa.Column("module_id", id_type(), primary_key=True),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_time", sa.Double, nullable=False),
        sa.Column("start_time", sa.Double),
        sa.Column("end_time", sa.Double),
        sa.Column("updated_time", sa.Double, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Double, nullable=False),
        sa.Column("lease_node", sa.Text),
        sa.Column("outcome_status", sa.Integer),
        sa.Column("outcome_payload", sa.LargeBinary),
        sa.Column("error_code", sa.Text),
        sa.Column("error_description", sa.Text),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name="device_jobs_job", ondelete="CASCADE"),
    )
    op.create_index("device_jobs_due", "device_jobs", ["job_id", "status", "not_before", "ordinal"])
    pending = sa.column("status", sa.Text) == sa.literal_column("'pending'")
    op.create_index(
        "device_jobs_pending",
        "device_jobs",
        ["device_id", "module_id"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    running = sa.column("status", sa.Text) == sa.literal_column("'running'")
    op.create_index(
        "device_jobs_running", "device_jobs", ["lease_node"], sqlite_where=running, postgresql_where=running
    )
