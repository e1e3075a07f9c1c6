"""`feed`: a digest of an RSS or Atom feed, as Markdown with links."""

from __future__ import annotations

import io
import re
from calendar import timegm
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import feedparser

from app.core.config import Settings
from app.executors.generators import Brief, Draft, GenerationFailed
from app.executors.markdown import CJK, escape, link, plain_text
from app.executors.outbound import fetch, outbound_client, presentable

SAMPLE_FEED = Path(__file__).parent.parent / "sample_feed.xml"
FEED_DIRECTORY = Path("data/feeds")
"""The only place from which params may name a file; `GENERATOR_FEED` may name any."""
LIMIT_BYTES = 5 * 1024 * 1024
TIMEOUT_SECONDS = 30.0
SUMMARY_CHARACTERS = 300

_WEB = re.compile(r"https?://", re.IGNORECASE)
_LATIN_WORD = re.compile(rf"[^\W_{CJK}]+")
_CJK_RUN = re.compile(rf"[{CJK}]+")
_PARTICLES = re.compile("[的了和与及或在是对将把被为从到之其这那]")
_STOPWORDS = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "how", "in", "is", "it", "of", "on", "or"}
    | {"the", "to", "what", "with"}
)
_MATCHING_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a feed, as plain text. `published_at` is None where the feed gives no date."""

    title: str
    link: str
    summary: str
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Feed:
    """A feed as it was read; entries in the feed's own order."""

    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class FeedSource:
    """Where a feed is read from. `trusted`: named in settings (or shipped), not by a task's params."""

    address: str
    trusted: bool

    @property
    def is_web(self) -> bool:
        return _WEB.match(self.address) is not None

    @property
    def label(self) -> str:
        """As it may be stored and shown."""
        return presentable(self.address) if self.is_web else Path(self.address).name


class FeedGenerator:
    """Reads a feed, keeps what concerns the topic, and writes a digest of the newest entries."""

    def __init__(self, settings: Settings, directory: Path = FEED_DIRECTORY) -> None:
        self._settings = settings
        self._directory = directory

    async def generate(self, brief: Brief) -> Draft:
        source = self._source(brief)
        content = await self._download(source) if source.is_web else self._read_file(source)
        feed = parse_feed(content)
        entries = on_topic(feed.entries, brief.topic)
        chosen = newest(entries or feed.entries, brief.limit)
        metadata: dict[str, Any] = {"entries": len(chosen), "topic_matched": bool(entries)}
        if not entries:
            metadata["notice"] = f"没有条目与主题匹配，已改用最新的 {len(chosen)} 条"
        return Draft(
            title=f"{brief.topic}：{len(chosen)} 篇精选",
            body=digest(feed, chosen, metadata.get("notice")),
            source=f"feed: {source.label}",
            metadata=metadata,
        )

    def _source(self, brief: Brief) -> FeedSource:
        if brief.feed is not None:
            return FeedSource(brief.feed, trusted=False)
        return FeedSource(self._settings.generator_feed or str(SAMPLE_FEED), trusted=True)

    async def _download(self, source: FeedSource) -> bytes:
        allow_private = source.trusted or self._settings.http_allow_private
        async with outbound_client(allow_private=allow_private) as client:
            answer = await fetch(
                client,
                client.build_request("GET", source.address),
                limit_bytes=LIMIT_BYTES,
                timeout_seconds=TIMEOUT_SECONDS,
                follow_redirects=True,
            )
        if not answer.is_success:
            raise GenerationFailed(f"the feed {source.label} answered HTTP {answer.status}")
        if answer.truncated:
            raise GenerationFailed(f"the feed {source.label} is larger than {LIMIT_BYTES} bytes")
        return answer.body

    def _read_file(self, source: FeedSource) -> bytes:
        try:
            path = Path(source.address).resolve() if source.trusted else self._permitted(source.address)
            if not path.is_file():
                raise GenerationFailed(f"there is no feed file {source.address}")
            with path.open("rb") as file:
                content = file.read(LIMIT_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise GenerationFailed(f"the feed file {source.address!r} cannot be read: {error}") from error
        if len(content) > LIMIT_BYTES:
            raise GenerationFailed(f"the feed file {source.address} is larger than {LIMIT_BYTES} bytes")
        return content

    def _permitted(self, name: str) -> Path:
        """The file `name` of the feed directory; links and `..` are followed before it is judged."""
        directory = self._directory.resolve()
        path = (directory / name).resolve()
        if not path.is_relative_to(directory):
            raise GenerationFailed(
                f"params may name a feed URL or a file in {self._directory}, not {name!r}; put the file there"
                " or set GENERATOR_FEED"
            )
        return path


def parse_feed(content: bytes) -> Feed:
    """The entries of an RSS or Atom document, their HTML reduced to text. Broken XML is read as far as it goes.

    Raises:
        GenerationFailed: there is not one entry in it.
    """
    # A stream on purpose: given bytes, feedparser first tries to open a file of that name.
    parsed = feedparser.parse(io.BytesIO(content))
    entries = tuple(_entry(item) for item in parsed.entries)
    if not entries:
        fault = parsed.get("bozo_exception")
        raise GenerationFailed(f"no entries in the feed: {fault}" if fault else "no entries in the feed")
    return Feed(plain_text(parsed.feed.get("title", "")), entries)


def _entry(item: Any) -> Entry:
    moment = item.get("published_parsed") or item.get("updated_parsed")
    summary = item.get("summary") or "".join(part.get("value", "") for part in item.get("content", [])[:1])
    return Entry(
        title=plain_text(item.get("title", "")),
        link=item.get("link", ""),
        summary=plain_text(summary),
        published_at=datetime.fromtimestamp(timegm(moment), UTC) if moment else None,
    )


def topic_terms(topic: str) -> frozenset[str]:
    """What an entry is searched for: words of alphabetic scripts, and for Chinese, Japanese and Korean, which
    put no spaces between words, pairs of neighbouring characters (人工智能 → 人工, 工智, 智能)."""
    folded = topic.casefold()
    terms = {word for word in _LATIN_WORD.findall(folded) if word not in _STOPWORDS}
    for run in _CJK_RUN.findall(folded):
        for part in filter(None, _PARTICLES.split(run)):
            terms.update([part] if len(part) == 1 else (part[at : at + 2] for at in range(len(part) - 1)))
    return frozenset(terms)


def on_topic(entries: tuple[Entry, ...], topic: str) -> tuple[Entry, ...]:
    """The entries that contain at least a third of the topic's terms."""
    terms = topic_terms(topic)
    return tuple(entry for entry in entries if terms and _share(entry, terms) >= _MATCHING_SHARE)


def _share(entry: Entry, terms: frozenset[str]) -> float:
    text = f"{entry.title} {entry.summary}".casefold()
    words = set(_LATIN_WORD.findall(text))
    found = sum(term in text if _CJK_RUN.match(term) else term in words for term in terms)
    return found / len(terms)


def newest(entries: tuple[Entry, ...], limit: int) -> tuple[Entry, ...]:
    """The `limit` newest, newest first; what has no date comes last, in the feed's order."""
    undated = datetime.min.replace(tzinfo=UTC)
    return tuple(sorted(entries, key=lambda entry: entry.published_at or undated, reverse=True)[:limit])


def digest(feed: Feed, entries: tuple[Entry, ...], notice: str | None = None) -> str:
    """The digest in Markdown: what the feed says is text in it, never markup."""
    opening = f"来自 {escape(feed.title) or '未命名的订阅源'}，共 {len(entries)} 篇。"
    paragraphs = [opening] if notice is None else [opening, f"> {escape(notice)}"]
    for entry in entries:
        paragraphs.append(f"## {link(entry.title or entry.link or '无题', entry.link)}")
        if entry.published_at is not None:
            paragraphs.append(f"*{entry.published_at:%Y-%m-%d}*")
        if entry.summary:
            paragraphs.append(escape(_shortened(entry.summary)))
    return "\n\n".join(paragraphs) + "\n"


def _shortened(text: str) -> str:
    return text if len(text) <= SUMMARY_CHARACTERS else text[: SUMMARY_CHARACTERS - 1].rstrip() + "…"
