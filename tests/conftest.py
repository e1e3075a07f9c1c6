"""Databases for tests: SQLite files and a real PostgreSQL, each test with one of its own."""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from loguru import logger
from sqlalchemy import URL, create_engine, make_url, text

from app.core.config import Settings
from app.db.database import make_engine
from app.db.schema import upgrade
from app.scheduler.engines.choice import prepare
from tests.integration.local_web import LocalWeb
from tests.postgres import postgres_server

# Tests must not depend on the settings of whoever runs them, nor do the processes they start.
for _name in [name for name in os.environ if name.lower() in Settings.model_fields]:
    del os.environ[_name]
Settings.model_config["env_file"] = None

# How long a busy machine takes for an example is no failure; an example that is one says how to try it again.
_slow_is_fine = [HealthCheck.too_slow]
settings.register_profile(
    "contenthub", settings(), deadline=None, suppress_health_check=_slow_is_fine, print_blob=True
)
settings.load_profile("contenthub")


@pytest.fixture(scope="session")
def postgres_url_of_server() -> Iterator[URL]:
    """A PostgreSQL server for the session."""
    with postgres_server() as server:
        yield make_url(server.get_uri())


def _administer(server: URL, statement: str) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture(scope="session")
def postgres_template(postgres_url_of_server: URL) -> str:
    """Name of a database that has the schema; copying it is faster than migrating."""
    _administer(postgres_url_of_server, "CREATE DATABASE template_contenthub")
    upgrade(Settings(database_url=_text(postgres_url_of_server.set(database="template_contenthub"))))
    return "template_contenthub"


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


@contextmanager
def _new_database(server: URL, template: str = "template1") -> Iterator[str]:
    """The URL of a database that is gone afterwards."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _text(server.set(database=name))
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_url_of_server: URL, postgres_template: str) -> Iterator[str]:
    """A PostgreSQL database with the schema, for one test."""
    with _new_database(postgres_url_of_server, postgres_template) as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_url_of_server: URL) -> Iterator[str]:
    """A PostgreSQL database without any table."""
    with _new_database(postgres_url_of_server) as url:
        yield url


@pytest.fixture(scope="session")
def new_postgres_database(postgres_url_of_server: URL) -> Callable[[], AbstractContextManager[str]]:
    """Makes PostgreSQL databases without any table, for fixtures that live longer than a test."""
    return lambda: _new_database(postgres_url_of_server)


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


@pytest.fixture
def web() -> Iterator[LocalWeb]:
    """A web server on this machine that answers as the test says."""
    with LocalWeb().serving() as web:
        yield web


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
