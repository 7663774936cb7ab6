"""Participants excluded from the results by the owner."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; nobody is excluded yet."""
    op.add_column("participants", sa.Column("excluded", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drop the column; everybody counts again."""
    with op.batch_alter_table("participants") as table:
        table.drop_column("excluded")
