"""CA certificates, and an index of the identities that prove themselves by a certificate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "certificate_authorities",
        sa.Column("name", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), primary_key=True),
        sa.Column("pem", sa.Text, nullable=False),
        sa.Column("verified", sa.Boolean, nullable=False),
        sa.Column("verification_code", sa.Text, nullable=False),
    )
    by_certificate = sa.column("authentication_type", sa.Text).in_(
        [sa.literal_column("'certificateAuthority'"), sa.literal_column("'selfSigned'")]
    )
    op.create_index(
        "identities_certificates",
        "identities",
        ["authentication_type"],
        sqlite_where=by_certificate,
        postgresql_where=by_certificate,
    )
