"""Run the migrations over the connection of `Database`."""

from alembic import context

from simdistill.study.tables import Table

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Table.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
