"""Column types that keep a promise the database does not make by itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from pydantic_core import from_json, to_json
from sqlalchemy import DateTime, Dialect, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from app.core.jsonable import safe_text

T = TypeVar("T")


class _Direct(TypeDecorator[T]):
    """Hands its conversions to SQLAlchemy whole, not as `process_bind_param`: a job binds a dozen moments, and the
    layers TypeDecorator puts around that method cost more than the conversion."""

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        process = self.bind_processor(dialect)
        return value if process is None else process(value)


class UtcDateTime(_Direct[datetime]):
    """Aware UTC datetimes. SQLite has no such type, so there it is ISO 8601 text with a fixed width,
    which sorts as time does and which a person can read and write in plain SQL."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(DateTime(timezone=True))

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any]:
        return _to_text if dialect.name == "sqlite" else _to_utc

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:
        return _from_text if dialect.name == "sqlite" else _from_driver


def _to_utc(value: datetime | None) -> datetime | None:
    if value is None or value.tzinfo is UTC:
        return value
    if value.tzinfo is None:
        raise ValueError("a naive datetime has no place in the database; give it a time zone")
    return value.astimezone(UTC)


def _to_text(value: datetime | None) -> str | None:
    utc = _to_utc(value)
    return None if utc is None else _text_of(utc)


@lru_cache(maxsize=4096)
def _text_of(utc: datetime) -> str:
    # Only UTC comes here: in other zones two moments an hour apart can be equal as cache keys (PEP 495).
    return utc.isoformat(" ", "microseconds")[:26]


def _from_text(value: str | None) -> datetime | None:
    return None if value is None else _moment_of(value)


@lru_cache(maxsize=4096)
def _moment_of(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _from_driver(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Json(_Direct[Any]):
    """JSON as text, the same on every database: no pickles, no silent change of a value.

    Text and not PostgreSQL's `jsonb`, which refuses `\\u0000` and reorders keys. What is no JSON raises
    when it is bound; callers normalise with `app.core.jsonable` first.
    """

    impl = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str | None]:
        return _to_json

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], Any]:
        return _from_json


def _to_json(value: Any) -> str | None:
    return None if value is None else to_json(value, inf_nan_mode="strings").decode()


def _from_json(value: str | None) -> Any:
    return None if value is None else from_json(value)


class SafeText(_Direct[str]):
    """Text from outside (messages, errors, logs): what PostgreSQL or UTF-8 refuse is replaced by U+FFFD."""

    impl = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None]:
        return _to_safe_text


def _to_safe_text(value: str | None) -> str | None:
    return None if value is None else safe_text(value)
