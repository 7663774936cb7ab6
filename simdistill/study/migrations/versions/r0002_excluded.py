"""Participants whom the owner leaves out of the results."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Nobody is left out yet."""
    op.add_column("participants", sa.Column("excluded", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """All count again."""
    with op.batch_alter_table("participants") as table:
        table.drop_column("excluded")
