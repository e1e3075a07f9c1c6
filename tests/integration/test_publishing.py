"""`publishing`: a real directory, a real receiver, a real database; once, whatever is retried."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import feedparser
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from app.core.config import Settings
from app.executors.content_generation import ContentGenerationExecutor
from app.executors.publishers.directory import exclusive, write_atomically
from app.executors.publishing import PublishingExecutor
from app.models.content import Content, Publication
from app.services.scheduler_service import SchedulerService, TaskExecutionResult
from tests.integration.content_database import content_database
from tests.integration.local_web import Answer, LocalWeb

SECRET = "webhook-secret"


class TickingClock:
    """Each reading is a second later, so that newest first means something."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def monotonic(self) -> float:
        return self._now.timestamp()


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[sessionmaker[Session]]:
    with content_database(tmp_path) as sessions:
        yield sessions


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return tmp_path / "site"


Publish = Callable[..., TaskExecutionResult]


@pytest.fixture
def publish(sessions: sessionmaker[Session], site: Path) -> Publish:
    """Run `publishing`; what it has not committed itself by then is rolled back, as after a failure."""
    clock = TickingClock()

    def run(params: dict[str, Any] | None = None, **settings: Any) -> TaskExecutionResult:
        chosen = Settings(
            _env_file=None, publish_directory=site, publish_base_url="https://hub.example.org/site/", **settings
        )
        service = SchedulerService()
        service.register_executor(PublishingExecutor(chosen, clock))
        with sessions() as session:
            return asyncio.run(service.execute_task(1, "publishing", params or {}, session))

    return run


@pytest.fixture
def write(sessions: sessionmaker[Session]) -> Callable[..., int]:
    def add(title: str = "标题", body: str = "正文 **text**\n") -> int:
        with sessions() as session:
            content = Content(account_id=1, topic="AI", title=title, body=body, word_count=3, source="test")
            session.add(content)
            session.commit()
            return content.id

    return add


def publications(sessions: sessionmaker[Session]) -> list[tuple[int, str]]:
    with sessions() as session:
        rows = session.execute(select(Publication.content_id, Publication.target).order_by(Publication.id))
        return [(row.content_id, row.target) for row in rows]


def read_feed(site: Path, **options: Any) -> Any:
    return feedparser.parse(io.BytesIO((site / "feed.xml").read_bytes()), **options)


class TestDirectory:
    def test_a_content_becomes_a_page_an_index_entry_and_a_feed_entry(
        self, publish: Publish, write: Callable[..., int], site: Path
    ) -> None:
        content_id = write("你好 & <world>", "# H\n\nText with a [link](https://example.org/?a=1&b=2)\n")

        result = publish({"content_id": content_id})

        assert result.success
        assert result.message == "成功发布内容: 你好 & <world>"
        assert result.data == {
            "published": [{"content_id": 1, "title": "你好 & <world>", "location": "content-1.html"}],
            "already_published": [],
        }
        page = (site / "content-1.html").read_text()
        assert "<h1>你好 &amp; &lt;world&gt;</h1>" in page
        assert '<a href="https://example.org/?a=1&amp;b=2" rel="nofollow noopener noreferrer">link</a>' in page
        assert '<a href="content-1.html">你好 &amp; &lt;world&gt;</a>' in (site / "index.html").read_text()
        feed = read_feed(site)
        assert not feed.bozo
        assert [entry.title for entry in feed.entries] == ["你好 & <world>"]
        assert feed.entries[0].link == "https://hub.example.org/site/content-1.html"

    def test_the_atom_feed_has_what_rfc_4287_requires(
        self, publish: Publish, write: Callable[..., int], site: Path
    ) -> None:
        write("one"), write("two")

        publish()

        feed = read_feed(site)
        assert feed.version == "atom10"
        for part in (feed.feed, *feed.entries):
            assert part.id
            assert part.title
            assert part.updated_parsed is not None
        assert feed.feed.author
        assert len({entry.id for entry in feed.entries}) == 2

    def test_index_and_feed_list_the_newest_publication_first(
        self, publish: Publish, write: Callable[..., int], site: Path
    ) -> None:
        for title in ("first", "second", "third"):
            write(title)

        publish()

        assert re.findall(r'html">(\w+)</a>', (site / "index.html").read_text()) == ["third", "second", "first"]
        feed = read_feed(site)
        assert [entry.title for entry in feed.entries] == ["third", "second", "first"]

    def test_publishing_again_changes_nothing_and_says_so(
        self, publish: Publish, write: Callable[..., int], site: Path, sessions: sessionmaker[Session]
    ) -> None:
        content_id = write()
        publish({"content_id": content_id})
        before = {path.name: path.read_bytes() for path in site.iterdir()}

        again = publish({"content_id": content_id})

        assert again.success
        assert again.data == {"published": [], "already_published": [content_id]}
        assert {path.name: path.read_bytes() for path in site.iterdir()} == before
        assert publications(sessions) == [(content_id, "directory")]

    def test_a_retry_after_a_crash_between_record_and_index_completes_the_site(
        self, publish: Publish, write: Callable[..., int], site: Path
    ) -> None:
        content_id = write("crashed")
        publish({"content_id": content_id})
        (site / "index.html").unlink()
        (site / "feed.xml").unlink()

        publish({"content_id": content_id})

        assert "crashed" in (site / "index.html").read_text()
        assert "crashed" in (site / "feed.xml").read_text()

    def test_without_a_content_id_all_that_is_unpublished_goes_out_oldest_first(
        self, publish: Publish, write: Callable[..., int], sessions: sessionmaker[Session]
    ) -> None:
        for _ in range(3):
            write()
        publish({"content_id": 2})

        result = publish({"content_id": None})
        nothing = publish({})

        assert result.message == "成功发布 2 篇内容"
        assert publications(sessions) == [(2, "directory"), (1, "directory"), (3, "directory")]
        assert nothing.success
        assert nothing.message == "没有待发布的内容"

    def test_an_unknown_content_is_a_failure_that_names_it(self, publish: Publish) -> None:
        assert publish({"content_id": 9}).error == "NotFound: content 9 does not exist"

    def test_a_directory_that_cannot_be_written_is_a_clear_failure_and_nothing_is_recorded(
        self, publish: Publish, write: Callable[..., int], site: Path, sessions: sessionmaker[Session]
    ) -> None:
        write()
        site.write_text("a file where the directory should be")

        result = publish()

        assert result.error is not None
        assert result.error.startswith("PublishingFailed: content-1.html cannot be written to")
        assert publications(sessions) == []

    def test_what_generation_writes_publishing_publishes(
        self, publish: Publish, site: Path, sessions: sessionmaker[Session]
    ) -> None:
        service = SchedulerService()
        service.register_executor(ContentGenerationExecutor(Settings(_env_file=None)))
        with sessions() as session:
            params = {"account_id": 1, "topic": "人工智能的未来发展"}
            asyncio.run(service.execute_task(1, "content_generation", params, session))
            session.commit()

        assert publish().success

        page = (site / "content-1.html").read_text()
        assert '<a href="https://feeds.example.org/technology/ai-outlook"' in page


class TestHostileContent:
    @pytest.mark.parametrize(
        "evil",
        [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "[x](javascript:alert(1))",
            "[x](data:text/html;base64,PHNjcmlwdD4=)",
            "<javascript:alert(1)>",
            "![x](https://example.org/track.png)",
            "{{ 7 * 191 }}{% include 'x' %}",
            "</title><script>alert(1)</script>",
            "]]>&lt;script&gt;alert(1)&lt;/script&gt;",
            "\x0b\x1b\ufffe\x00 control",
        ],
    )
    def test_nothing_in_a_content_becomes_active_in_page_index_or_feed(
        self, publish: Publish, write: Callable[..., int], site: Path, evil: str
    ) -> None:
        write(evil, f"{evil}\n\nparagraph {evil}\n")

        assert publish().success

        feed_text = (site / "feed.xml").read_text()
        feed = read_feed(site, sanitize_html=False)
        assert not feed.bozo
        for markup in (
            (site / "content-1.html").read_text(),
            (site / "index.html").read_text(),
            feed_text,
            feed.entries[0].content[0].value,
        ):
            assert not re.search(
                r"<(script|img|iframe|object)|<[^>]+\son\w+=|(href|src)=\"(javascript|data):", markup
            )
            assert "1337" not in markup

    def test_pages_allow_no_script_by_policy(
        self, publish: Publish, write: Callable[..., int], site: Path
    ) -> None:
        write()
        publish()

        for page in ("content-1.html", "index.html"):
            assert "default-src 'none'" in (site / page).read_text()


PUBLISHER_PROCESS = """
import asyncio, sys
from sqlalchemy.orm import sessionmaker
from app.core.config import Settings
from app.db.database import make_engine
from app.executors.publishing import PublishingExecutor
database, site, *ids = sys.argv[1:]
settings = Settings(_env_file=None, database_url=database, publish_directory=site)
executor = PublishingExecutor(settings)
print("ready", flush=True)
sys.stdin.readline()
with sessionmaker(make_engine(settings))() as session:
    for content_id in ids:
        result = asyncio.run(executor.execute(1, {"content_id": int(content_id)}, session))
        assert result.success, result.error
"""


class TestTogether:
    def test_processes_that_publish_at_once_lose_no_entry_and_repeat_none(
        self, write: Callable[..., int], site: Path, tmp_path: Path, sessions: sessionmaker[Session]
    ) -> None:
        ids = [str(write(f"number {number}")) for number in range(20)]
        database = f"sqlite:///{tmp_path}/content.db"
        argv = [sys.executable, "-c", PUBLISHER_PROCESS, database, str(site)]
        root = str(Path(__file__).parents[2])
        # Each has contents of its own, and both publish the last ones.
        workers = [
            subprocess.Popen(
                [*argv, *part, *ids[16:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": root},
            )
            for part in (ids[:8], ids[8:16])
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
        for worker in workers:
            worker.communicate(b"go\n", timeout=60)

        assert [worker.returncode for worker in workers] == [0, 0]
        with sessions() as session:
            assert session.scalar(select(func.count()).select_from(Publication)) == 20
        feed = read_feed(site)
        assert {entry.title for entry in feed.entries} == {f"number {number}" for number in range(20)}
        assert len(re.findall(r"<li><a", (site / "index.html").read_text())) == 20

    def test_index_and_feed_wait_for_whoever_rebuilds_them_and_then_see_what_that_one_published(
        self, publish: Publish, write: Callable[..., int], site: Path, sessions: sessionmaker[Session]
    ) -> None:
        write("mine"), write("theirs")
        site.mkdir()
        worker = threading.Thread(target=publish, args=({"content_id": 1},))

        async def meanwhile() -> None:
            async with exclusive(site / ".lock"):
                worker.start()
                while not publications(sessions):
                    await asyncio.sleep(0.01)
                worker.join(0.2)
                assert worker.is_alive()
                with sessions() as session:
                    session.add(Publication(content_id=2, target="directory", location="content-2.html"))
                    session.commit()

        asyncio.run(meanwhile())
        worker.join()

        assert {entry.title for entry in read_feed(site).entries} == {"mine", "theirs"}

    async def test_the_lock_is_held_by_one_at_a_time(self, tmp_path: Path) -> None:
        inside: list[int] = []

        async def hold(number: int) -> None:
            async with exclusive(tmp_path / ".lock"):
                inside.append(number)
                await asyncio.sleep(0.06)
                assert inside[-1] == number
                inside.append(number)

        await asyncio.gather(*(hold(number) for number in range(3)))

        assert inside[0::2] == inside[1::2]

    def test_a_reader_sees_the_old_file_or_the_new_one(self, tmp_path: Path) -> None:
        path = tmp_path / "page.html"
        versions = {b"a" * 200_000, b"b" * 200_000}
        write_atomically(path, b"a" * 200_000)
        done = threading.Event()
        seen: list[bytes] = []

        def read() -> None:
            while not done.is_set():
                seen.append(path.read_bytes())

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(20):
            for version in versions:
                write_atomically(path, version)
        done.set()
        reader.join()

        assert seen
        assert set(seen) <= versions
        assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]
        assert path.stat().st_mode & 0o777 == 0o644

    def test_no_write_is_open_while_a_webhook_is_slow(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb, sessions: sessionmaker[Session]
    ) -> None:
        write(), write()
        url = web.answer("/hook", Answer(), Answer(delay_seconds=30))
        worker = threading.Thread(
            target=publish, args=({"target": "webhook"},), kwargs={"publish_webhook_url": url}
        )
        worker.start()
        while len(web.received) < 2:
            threading.Event().wait(0.01)

        with sessions() as session:
            session.execute(text("PRAGMA busy_timeout=0"))
            session.execute(text("INSERT INTO contents (account_id, title, body) VALUES (1, 't', 'b')"))
            session.commit()

        web.closing.set()
        worker.join()
        assert publications(sessions) == [(1, "webhook"), (2, "webhook")]


class TestWebhook:
    def send(self, publish: Publish, web: LocalWeb, *answers: Answer, **params: Any) -> TaskExecutionResult:
        url = web.answer("/hook", *answers)
        return publish(
            {"target": "webhook", **params}, publish_webhook_url=url, publish_webhook_secret=SecretStr(SECRET)
        )

    def test_the_request_is_signed_over_timestamp_and_body(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb, sessions: sessionmaker[Session]
    ) -> None:
        write("标题", "正文 <script>\n")

        result = self.send(publish, web, Answer(status=204))

        assert result.success
        [received] = web.received
        signed = received.headers["x-contenthub-timestamp"].encode() + b"." + received.body
        digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
        assert received.headers["x-contenthub-signature"] == f"sha256={digest}"
        content = json.loads(received.body)["content"]
        assert content["title"] == "标题"
        assert content["body_html"] == "<p>正文 &lt;script&gt;</p>\n"
        assert SECRET not in json.dumps(result.to_dict())
        assert publications(sessions) == [(1, "webhook")]

    def test_a_repetition_is_the_same_bytes_under_the_same_idempotency_key(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb
    ) -> None:
        write("a"), write("b")

        failed = self.send(publish, web, Answer(status=500), content_id=1)
        self.send(publish, web, Answer(), content_id=1)
        self.send(publish, web, Answer(), content_id=2)

        assert failed.error is not None
        assert failed.error.startswith("PublishingFailed: ")
        first, second, other = web.received
        assert first.body == second.body
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
        assert other.headers["idempotency-key"] != first.headers["idempotency-key"]

    def test_what_was_delivered_is_not_sent_again_though_the_batch_failed_later(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb, sessions: sessionmaker[Session]
    ) -> None:
        write("a"), write("b"), write("c")

        result = self.send(publish, web, Answer(), Answer(b"maintenance", 503))
        retried = self.send(publish, web, Answer())

        assert not result.success
        assert result.message == "内容发布失败: 1 处失败，1 篇已发布"
        assert retried.message == "成功发布 2 篇内容"
        titles = [json.loads(received.body)["content"]["title"] for received in web.received]
        assert titles == ["a", "b", "b", "c"]
        assert publications(sessions) == [(1, "webhook"), (2, "webhook"), (3, "webhook")]

    def test_a_content_the_receiver_refuses_does_not_hold_up_the_next(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb, sessions: sessionmaker[Session]
    ) -> None:
        write(), write()

        result = self.send(publish, web, Answer(b"no such channel", 422), Answer())

        assert result.error is not None
        assert re.match(r"PublishingRefused: http://\S+/hook answered HTTP 422: no such channel$", result.error)
        assert publications(sessions) == [(2, "webhook")]

    def test_retry_after_is_waited_for_within_the_attempt(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb
    ) -> None:
        write()
        past = format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)

        result = self.send(
            publish, web, Answer(status=429, headers={"Retry-After": "0"}),
            Answer(status=503, headers={"Retry-After": past}), Answer(),
        )  # fmt: skip

        assert result.success
        assert len({received.headers["idempotency-key"] for received in web.received}) == 1
        assert len(web.received) == 3

    @pytest.mark.parametrize(
        ("retry_after", "asked"),
        [
            ("31", 31.0),
            ("Fri, 01 Jan 2100 00:00:00 GMT", 86_400.0),
            ("9" * 400, 86_400.0),
            ("soon", None),
            ("-1", None),
        ],
    )
    def test_a_wait_beyond_30_seconds_is_left_to_the_next_attempt(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb, retry_after: str, asked: float | None
    ) -> None:
        write()

        result = self.send(publish, web, Answer(status=429, headers={"Retry-After": retry_after}))

        assert result.error is not None
        assert result.error.startswith("PublishingFailed: ")
        assert "HTTP 429" in result.error
        assert result.metadata.get("retry_after_seconds") == asked
        assert len(web.received) == 1

    def test_a_redirect_is_a_refusal_and_is_not_followed(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb
    ) -> None:
        write()

        result = self.send(publish, web, Answer(status=302, headers={"Location": "/elsewhere"}))

        assert result.error is not None
        assert result.error.startswith("PublishingRefused")
        assert [received.path for received in web.received] == ["/hook"]

    def test_each_address_is_a_place_of_its_own(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb, sessions: sessionmaker[Session]
    ) -> None:
        write()
        for path in ("/one", "/two", "/one"):
            web.answer(path, Answer())
            publish({"target": "webhook", "url": web.url(path)}, http_allow_private=True)

        assert [received.path for received in web.received] == ["/one", "/two"]
        assert publications(sessions) == [(1, "webhook"), (1, "webhook")]

    def test_a_private_address_in_params_is_refused(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb
    ) -> None:
        write()

        result = publish({"target": "webhook", "url": web.url("/hook")})

        assert result.error is not None
        assert result.error.startswith("AddressRefused")
        assert not web.received

    def test_without_a_secret_nothing_is_signed_and_without_an_address_nothing_is_sent(
        self, publish: Publish, write: Callable[..., int], web: LocalWeb
    ) -> None:
        write()

        sent = publish({"target": "webhook"}, publish_webhook_url=web.answer("/hook", Answer()))
        unsent = publish({"target": "webhook"})

        assert sent.success
        assert "x-contenthub-signature" not in web.received[0].headers
        assert unsent.error is not None
        assert "PUBLISH_WEBHOOK_URL" in unsent.error


class TestParams:
    @pytest.mark.parametrize(
        ("params", "field"),
        [
            ({"content_id": 0}, "params.content_id"),
            ({"content_id": 2**31}, "params.content_id"),
            ({"target": "ftp"}, "params.target"),
            ({"target": "webhook", "url": "ftp://example.org/"}, "params.url"),
            ({"url": "https://example.org/"}, "params"),
            ({"content": 1}, "params.content"),
        ],
    )
    def test_wrong_params_are_refused_with_the_field_named(
        self, publish: Publish, params: dict[str, Any], field: str
    ) -> None:
        result = publish(params)

        assert result.error == "InvalidParameters"
        assert [error["field"] for error in result.metadata["errors"]] == [field]
