"""Records of the standard library's `logging`, the server's among them, on their way through loguru."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from loguru import logger

from app.core.logging import message_of
from app.core.redaction import MASK

if TYPE_CHECKING:
    from loguru import Record

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SERVER = ("uvicorn", "uvicorn.error", "uvicorn.access")
_LINK = re.compile(r"(/approvals/)[^\s/?]{20,}")
"""The page behind a link that decides an approval; ids, in addresses of the API, are shorter."""


class _ToLoguru(logging.Handler):
    """Hands each record on, as if it had been logged by loguru in the same place. Raises nothing: who logs goes
    on, as with the handlers of the standard library."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._hand_on(record, message_of(record))
        except Exception:  # noqa: BLE001 - whatever a library has put into its record
            self.handleError(record)

    def _hand_on(self, record: logging.LogRecord, message: str) -> None:
        level = record.levelname if record.levelname in _LEVELS else record.levelno

        def came_from(patched: Record) -> None:
            patched["name"], patched["function"], patched["line"] = record.name, record.funcName, record.lineno

        logger.patch(came_from).opt(exception=record.exc_info).log(level, "{}", message)


class _WithoutLinks(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _LINK.sub(rf"\1{MASK}", value) if isinstance(value, str) else value for value in record.args
            )
        return True


_without_links = _WithoutLinks()


def hide_links() -> None:
    """Keep the links that decide approvals out of the server's access log: who reads it must not be able to
    decide. Calling it again changes nothing."""
    logging.getLogger("uvicorn.access").addFilter(_without_links)


def capture() -> None:
    """Send everything that reaches the root logger, and what the server logs, through loguru. Calling it again
    changes nothing."""
    root = logging.getLogger()
    if not any(isinstance(handler, _ToLoguru) for handler in root.handlers):
        root.addHandler(_ToLoguru())
    for name in _SERVER:  # uvicorn gives them handlers of their own
        server = logging.getLogger(name)
        server.handlers.clear()
        server.propagate = True
