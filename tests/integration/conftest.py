"""What integration tests stand on: settings, engine and sessions on a database of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.core.config import Settings
from app.db.database import make_engine


@pytest.fixture
def settings(database_url: str) -> Settings:
    """Settings on a database of each kind that has the schema."""
    return Settings(database_url=database_url)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """The engine the application would make of `settings`."""
    engine = make_engine(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions as `SessionLocal` gives them."""
    return sessionmaker(engine, expire_on_commit=False)
