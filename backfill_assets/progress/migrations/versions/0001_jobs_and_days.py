"""The tables of jobs and of their days."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "backfill_assets_jobs",
        sa.Column("job_id", sa.String(32), primary_key=True),
        sa.Column("request_id", sa.String(100), unique=True, nullable=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("requester", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False, index=True),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("percent", sa.Float, nullable=False),
        sa.Column("snapshot", sa.Text, nullable=False),
    )
    op.create_table(
        "backfill_assets_job_days",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("backfill_assets_jobs.job_id"), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("snapshot", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Remove both tables."""
    op.drop_table("backfill_assets_job_days")
    op.drop_table("backfill_assets_jobs")
