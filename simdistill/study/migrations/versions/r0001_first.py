"""The tables of the first version."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table("study", sa.Column("identity", sa.String(32), primary_key=True))
    op.create_table(
        "participants",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("consented", sa.DateTime, nullable=False),
    )
    op.create_table(
        "presentations",
        sa.Column("participant_id", sa.Integer, sa.ForeignKey("participants.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True),
        sa.Column("pair", sa.Integer, nullable=False),
        sa.Column("repetition", sa.Integer, nullable=False),
        sa.Column("left", sa.String(1), nullable=False),
        sa.Column("shown", sa.DateTime),
        sa.UniqueConstraint("participant_id", "pair", "repetition", name="one_a_repetition"),
        sa.CheckConstraint("\"left\" IN ('a', 'b')", name="left_is_a_side"),
    )
    op.create_table(
        "votes",
        sa.Column("participant_id", sa.Integer, primary_key=True),
        sa.Column("place", sa.Integer, primary_key=True),
        sa.Column("question", sa.String(16), primary_key=True),
        sa.Column("choice", sa.String(5), nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(
            ["participant_id", "place"], ["presentations.participant_id", "presentations.place"], ondelete="CASCADE"
        ),
        sa.CheckConstraint("choice IN ('left', 'right', 'tie')", name="choice_is_known"),
    )
    op.create_table(
        "reviews",
        sa.Column("pair", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
    )


def downgrade() -> None:
    """Drop all tables."""
    for name in ("reviews", "votes", "presentations", "participants", "study"):
        op.drop_table(name)
