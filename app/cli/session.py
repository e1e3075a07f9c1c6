"""What every command that needs the database opens first: settings, a service, a schema that fits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.core.config import Settings, get_settings
from app.core.errors import FieldError, InvalidRequest, SchedulerUnavailable
from app.core.logging import configure_logging

if TYPE_CHECKING:
    from app.scheduler.runtime import Runtime


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        InvalidRequest: the environment or `.env` has a wrong value; `errors` names the variables.
    """
    try:
        return get_settings()
    except ValidationError as error:
        raise InvalidRequest(
            FieldError(_variable(item["loc"]), item["msg"].removeprefix("Value error, "), item["type"])
            for item in error.errors(include_url=False, include_input=False)
        ) from None
    except SettingsError as error:
        # Of a list or an object that is no JSON; only the sentence says of which.
        found = re.search(r'field "(\w+)"', str(error))
        name = _variable([found[1]]) if found else "environment"
        raise InvalidRequest.of(name, 'it is no JSON; write it as in ["draft", "--json"]') from error
    except UnicodeDecodeError as error:
        raise InvalidRequest.of(".env", f"it is no UTF-8 text; save it as UTF-8 ({error.reason})") from error


def _variable(location: Sequence[int | str]) -> str:
    """The environment variable of a setting."""
    return ".".join(str(part) for part in location).upper()


@contextmanager
def database_faults() -> Iterator[None]:
    """Turn what a driver or a wrong URL raises into one sentence.

    Raises:
        InvalidRequest: DATABASE_URL cannot be used. SchedulerUnavailable: the database is out of reach.
    """
    # Imported here, as everything that needs SQLAlchemy or FastAPI: `--help`, `schedule preview` and usage errors
    # need neither, and answer in a third of the time.
    from sqlalchemy.exc import ArgumentError, DBAPIError

    try:
        yield
    except ArgumentError as error:
        raise InvalidRequest.of(
            "DATABASE_URL", f"{error}; write one such as sqlite:///data/contenthub.db"
        ) from error
    except ModuleNotFoundError as error:
        if error.name not in {"psycopg", "psycopg2"}:
            raise
        raise InvalidRequest.of(
            "DATABASE_URL", "its driver is missing; install contenthub-scheduler[postgres]"
        ) from error
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise SchedulerUnavailable(f"the database cannot be used: {reason}; run `contenthub doctor`") from error


@contextmanager
def opened(*, executors: bool = False, upgrade: bool = False, role: str = "cli") -> Iterator[Runtime]:
    """The runtime of a one-off command, not started: it fires no schedules and runs only what it is asked to.
    `executors`: with the backend's executors, which commands that check params or run something need.

    A database without a schema gets one, as `serve` would make it; one with another revision is refused unless
    `upgrade`, because a server that is running may need it as it is.

    Raises:
        InvalidRequest, SchedulerUnavailable: the settings or the database cannot be used; the remedy is named.
    """
    settings = load_settings()
    configure_logging("WARNING")
    with database_faults():
        from app.db.schema import current_revision, head_revision, refuse_newer

        runtime = _runtime(settings, executors=executors, role=role)
        try:
            found, wanted = current_revision(runtime.engine), head_revision()
            if found is None or (upgrade and found != wanted):
                from app.factory import prepare_database

                prepare_database(runtime)
            elif found != wanted:
                refuse_newer(found)
                raise SchedulerUnavailable(
                    f"the database is at revision {found}, not at {wanted}; run `contenthub db upgrade`"
                )
            yield runtime
        finally:
            runtime.close()


def _runtime(settings: Settings, *, executors: bool, role: str) -> Runtime:
    if executors:
        from app.factory import own_runtime, register_own_executors

        runtime = own_runtime(settings, role=role)
        register_own_executors()
        return runtime
    # Without the factory, and FastAPI and the executors' libraries with it: a quarter of the start-up time.
    from app.scheduler.runtime import build_service, runtime_of

    return runtime_of(build_service(settings, role=role))
