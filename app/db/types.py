"""Column types that keep a promise the database does not make by itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from pydantic_core import to_json
from sqlalchemy import DateTime, Dialect, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from app.core.jsonable import safe_text


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC datetimes. SQLite has no such type, so there it is ISO 8601 text with a fixed width,
    which sorts as time does and which a person can read and write in plain SQL."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime has no place in the database; give it a time zone")
        if value.tzinfo is not UTC:
            value = value.astimezone(UTC)
        return value.isoformat(" ", "microseconds")[:26] if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


class Json(TypeDecorator[Any]):
    """JSON as text, the same on every database: no pickles, no silent change of a value.

    Text and not PostgreSQL's `jsonb`, which refuses `\\u0000` and reorders keys. What is no JSON raises
    when it is bound; callers normalise with `app.core.jsonable` first.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else to_json(value, inf_nan_mode="strings").decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


class SafeText(TypeDecorator[str]):
    """Text from outside (messages, errors, logs): what PostgreSQL or UTF-8 refuse is replaced by U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else safe_text(value)
