"""The database's history: Alembic migrations, run whenever a study is opened."""
