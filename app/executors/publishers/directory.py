"""`directory`: a static site. A page for each content, an index, an Atom feed (RFC 4287).

Index and feed are made from the rows of `publications`, never from what is on disk. Each publisher rebuilds
them after its own commit, one at a time (a file lock), so the last one to rebuild has seen every row.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.executors.markdown import to_html
from app.executors.publishers import PublishingFailed
from app.models.content import Content, Publication

INDEX_ENTRIES = 500
FEED_ENTRIES = 50
LOCK_TIMEOUT_SECONDS = 30.0
_LOCK_POLL_SECONDS = 0.05
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_templates = Environment(
    loader=PackageLoader("app.executors.publishers"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A published content as index and feed show it."""

    content_id: int
    title: str
    page: str
    published_at: datetime


class DirectoryPublisher:
    """Writes pages into `directory`, whose public address is `base_url`."""

    target = "directory"
    destination = ""

    def __init__(self, directory: Path, base_url: str) -> None:
        self._directory = directory
        self._base_url = base_url.rstrip("/")

    async def deliver(self, content: Content) -> str:
        name = f"content-{content.id}.html"
        page = _templates.get_template("page.html").render(content=content, safe_body=to_html(content.body))
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            write_atomically(self._directory / name, page.encode())
        except OSError as error:
            raise PublishingFailed(f"{name} cannot be written to {self._directory}: {error}") from error
        return name

    async def finish(self, db: Session) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            async with exclusive(self._directory / ".lock"):
                listed = _newest(db)
                index = _templates.get_template("index.html").render(entries=listed)
                write_atomically(self._directory / "index.html", index.encode())
                write_atomically(self._directory / "feed.xml", self._feed(db, listed[:FEED_ENTRIES]))
        except OSError as error:
            raise PublishingFailed(f"index and feed cannot be written to {self._directory}: {error}") from error

    def _feed(self, db: Session, listed: Sequence[Listed]) -> bytes:
        feed = ET.Element("feed", xmlns="http://www.w3.org/2005/Atom")
        updated = max((entry.published_at for entry in listed), default=datetime.fromtimestamp(0, UTC))
        _add(feed, "id", f"{self._base_url}/")
        _add(feed, "title", "ContentHub")
        _add(feed, "updated", updated.isoformat())
        _add(_add(feed, "author"), "name", "ContentHub")
        _add(feed, "link", href=f"{self._base_url}/feed.xml", rel="self", type="application/atom+xml")
        _add(feed, "link", href=f"{self._base_url}/index.html", rel="alternate", type="text/html")
        wanted = select(Content.id, Content.body).where(Content.id.in_([entry.content_id for entry in listed]))
        bodies = {row.id: row.body for row in db.execute(wanted)}
        for entry in [entry for entry in listed if entry.content_id in bodies]:  # one may be deleted by now
            address = f"{self._base_url}/{entry.page}"
            item = _add(feed, "entry")
            _add(item, "id", address)
            _add(item, "title", entry.title)
            _add(item, "updated", entry.published_at.isoformat())
            _add(item, "link", href=address, rel="alternate", type="text/html")
            _add(item, "content", to_html(bodies[entry.content_id]), type="html")
        document: bytes = ET.tostring(feed, encoding="utf-8", xml_declaration=True)
        return document


def _newest(db: Session) -> list[Listed]:
    rows = db.execute(
        select(Content.id, Content.title, Publication.location, Publication.published_at)
        .join(Content, Content.id == Publication.content_id)
        .where(Publication.target == DirectoryPublisher.target)
        .order_by(Publication.published_at.desc(), Publication.id.desc())
        .limit(INDEX_ENTRIES)
    )
    return [Listed(*row) for row in rows]


def _add(parent: ET.Element, name: str, text: str | None = None, **attributes: str) -> ET.Element:
    """A child of `parent`; what XML 1.0 cannot hold is left out of its text."""
    child = ET.SubElement(parent, name, attributes)
    child.text = _NO_XML.sub("", text) if text is not None else None
    return child


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`: readers see the old file or the new one, also after a power cut.

    Raises:
        OSError: it could not be written; `path` is as it was.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)  # mkstemp made it private; a web server must read it
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def exclusive(path: Path) -> AsyncIterator[None]:
    """Hold the lock file `path`: no other thread or process does, and a dead one's lock is gone with it.

    Raises:
        PublishingFailed: another holder kept it for longer than 30 seconds.
    """
    with path.open("ab") as file:
        try:
            async with asyncio.timeout(LOCK_TIMEOUT_SECONDS):
                while not _locked(file.fileno()):  # noqa: ASYNC110 - another process sets no event here
                    await asyncio.sleep(_LOCK_POLL_SECONDS)
        except TimeoutError:
            raise PublishingFailed(f"{path} has been locked for {LOCK_TIMEOUT_SECONDS:g} s") from None
        yield  # closing the file lets go of the lock


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        return False
    return True
