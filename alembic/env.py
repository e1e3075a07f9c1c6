"""Alembic's entry: on a connection handed in (by the application), or on the settings' own database."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, DateTime, Text

import app.models  # noqa: F401 - completes the metadata
from app.core.config import get_settings
from app.db.database import Base, make_engine
from app.db.schema import migration_lock
from app.db.types import Json, SafeText, UtcDateTime


def render_item(kind: str, item: Any, _autogen_context: Any) -> str | Literal[False]:
    """Our column types as what they are in the database: a migration must not change with our code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True).with_variant(sa.Text(), 'sqlite')"
    if kind == "type" and isinstance(item, (Json, SafeText)):
        return "sa.Text()"
    return False


def compare_type(_context: Any, _inspected: Any, _metadata: Any, found: Any, wanted: Any) -> bool | None:
    """What `render_item` rendered is equal to the type it came from."""
    if isinstance(wanted, (Json, SafeText)):
        return not isinstance(found, Text)
    if isinstance(wanted, UtcDateTime):
        return not isinstance(found, (Text, DateTime))
    return None


def include_object(_object: Any, _name: str | None, kind: str, reflected: bool, compared_to: Any) -> bool:  # noqa: FBT001
    """Tables that are not ours (PgQueuer keeps its own beside them) are none of our business."""
    return not (kind == "table" and reflected and compared_to is None)


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_item=render_item,
        compare_type=compare_type,
        include_object=include_object,
        compare_server_default=False,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


handed_in: Connection | None = context.config.attributes.get("connection")
if handed_in is not None:
    migrate(handed_in)
else:
    engine = make_engine(get_settings())
    try:
        with migration_lock(engine) as own:
            migrate(own)
    finally:
        engine.dispose()
