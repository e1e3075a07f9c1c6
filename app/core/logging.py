"""Log output: the seed's console format, on loguru."""

from __future__ import annotations

import sys

from loguru import logger

CONSOLE_FORMAT = "{time:YYYY-MM-DD HH:mm:ss} | {level: <8} | {message}"


def configure_logging(level: str = "INFO") -> None:
    """Send log records of `level` and above to stderr, in the seed's format."""
    logger.remove()
    # `diagnose` would print the values of variables, secrets among them.
    logger.add(sys.stderr, level=level, format=CONSOLE_FORMAT, backtrace=False, diagnose=False)
