"""A real SQLite file with the content tables and account 1, as the first boot leaves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from app.core.config import Settings
from app.db.database import Base, make_engine
from app.models.content import Account, Content, Publication, ensure_default_account

TABLES = [model.metadata.tables[model.__tablename__] for model in (Account, Content, Publication)]


@contextmanager
def content_database(folder: Path) -> Iterator[sessionmaker[Session]]:
    """Sessions on `folder/content.db`, which is made if it is not there."""
    engine = make_engine(Settings(_env_file=None, database_url=f"sqlite:///{folder}/content.db"))
    Base.metadata.create_all(engine, tables=TABLES)
    sessions = sessionmaker(engine, expire_on_commit=False)
    with sessions() as session:
        ensure_default_account(session)
        session.commit()
    try:
        yield sessions
    finally:
        engine.dispose()
