"""Errors that say that the database was away, not that the work was wrong."""

from __future__ import annotations

DATABASE_AWAY = ("OperationalError", "InterfaceError", "PendingRollbackError", "SchedulerUnavailable")
"""As a retry policy names errors: of SQLAlchemy (a refused or lost connection, a locked or full file; a Session
that has lost its connection) and of the journal (it did not take the write)."""
OUTLIVED_ATTEMPTS = 12
"""With the default backoff so many attempts outlive an outage of two hours."""
