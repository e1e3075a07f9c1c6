"""Log output: the seed's console format, on loguru."""

from __future__ import annotations

import logging
import sys

from loguru import logger

from app.core.jsonable import text_of

CONSOLE_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} | {level: <8} | {message}"


def configure_logging(level: str = "INFO") -> None:
    """Send log records of `level` and above to stderr, in the seed's format."""
    logger.remove()
    # `diagnose` would print the values of variables, secrets among them.
    logger.add(sys.stderr, level=level, format=CONSOLE_FORMAT, backtrace=False, diagnose=False)


def message_of(record: logging.LogRecord) -> str:
    """What a record of the standard library says; where template and arguments do not fit: both, and why."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - a mistake in a log call is no reason to fail whoever makes it
        said, given = text_of(record.msg), text_of(record.args)
        return f"{said} (not formatted with {given}: {type(error).__name__}: {text_of(error)})"
