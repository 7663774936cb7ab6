"""How the database came to be as it is: Alembic's migrations, run whenever a study is opened."""
