"""`content_generation`: each generator against a real file, server or process, and a real database."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from app.core.config import Settings
from app.executors.content_generation import ContentGenerationExecutor
from app.executors.generators import Brief, GenerationFailed
from app.executors.generators.command import CommandGenerator, run_command
from app.executors.generators.feed import FeedGenerator, topic_terms
from app.executors.generators.openai import split_title
from app.executors.markdown import escape, link, one_line, to_html, word_count
from app.models.content import Account, Content, ensure_default_account
from app.services.scheduler_service import SchedulerService, TaskExecutionResult
from tests.integration.content_database import content_database
from tests.integration.local_web import Answer, LocalWeb

BRIEF = Brief(account_id=1, account_name="default", topic="AI")


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[sessionmaker[Session]]:
    with content_database(tmp_path) as sessions:
        yield sessions


Generate = Callable[..., TaskExecutionResult]


@pytest.fixture
def generate(sessions: sessionmaker[Session]) -> Generate:
    """Run `content_generation` and commit a success, as the runner does."""

    def run(params: dict[str, Any], **settings: Any) -> TaskExecutionResult:
        service = SchedulerService()
        service.register_executor(ContentGenerationExecutor(Settings(_env_file=None, **settings)))
        with sessions() as session:
            result = asyncio.run(service.execute_task(1, "content_generation", params, session))
            if result.success:
                session.commit()
        return result

    return run


def stored(sessions: sessionmaker[Session], result: TaskExecutionResult) -> Content:
    assert result.success, result.error
    assert result.data is not None
    with sessions() as session:
        return session.get_one(Content, result.data["content_id"])


def rss(*items: str, title: str = "News") -> bytes:
    return f'<rss version="2.0"><channel><title>{title}</title>{"".join(items)}</channel></rss>'.encode()


def item(title: str, *, link: str = "https://example.org/a", day: int = 1, text: str = "") -> str:
    date = f"0{day} Jan 2026 08:00:00 GMT"
    return (
        f"<item><title>{title}</title><link>{link}</link><pubDate>{date}</pubDate>"
        f"<description>{text}</description></item>"
    )


class TestSeedCalls:
    def test_the_seeds_own_call_succeeds_on_a_fresh_database(
        self, generate: Generate, sessions: sessionmaker[Session]
    ) -> None:
        result = generate({"account_id": 1, "topic": "人工智能的未来发展"})

        content = stored(sessions, result)
        assert result.message == "成功生成内容: 人工智能的未来发展"
        assert result.data == {"content_id": content.id, "title": content.title, "word_count": content.word_count}
        assert content.word_count > 100
        assert "https://feeds.example.org/technology/ai-outlook" in content.body
        assert "钠离子" not in content.body
        assert result.metadata["topic_matched"] is True

    def test_the_seeds_invalid_params_are_refused(self, generate: Generate) -> None:
        result = generate({"invalid": "params"})

        assert result.error == "InvalidParameters"
        fields = {error["field"] for error in result.metadata["errors"]}
        assert fields == {"params.account_id", "params.topic", "params.invalid"}

    def test_an_unknown_account_is_a_failure_that_names_it(self, generate: Generate) -> None:
        assert generate({"account_id": 7, "topic": "AI"}).error == "NotFound: account 7 does not exist"

    @pytest.mark.parametrize("topic", ["", "   ", "a\nb", "x" * 201])
    def test_a_topic_is_one_line_of_1_to_200_characters(self, generate: Generate, topic: str) -> None:
        assert generate({"account_id": 1, "topic": topic}).error == "InvalidParameters"

    def test_the_default_account_is_made_once_and_later_accounts_come_behind_it(
        self, sessions: sessionmaker[Session]
    ) -> None:
        with sessions() as session:
            ensure_default_account(session)
            session.add(Account(name="second"))
            session.commit()
            assert [account.id for account in session.scalars(select(Account).order_by(Account.id))] == [1, 2]

    def test_a_failed_attempt_leaves_no_content(self, generate: Generate, sessions: sessionmaker[Session]) -> None:
        generate({"account_id": 1, "topic": "AI", "generator": "command"})

        with sessions() as session:
            assert session.scalar(select(func.count()).select_from(Content)) == 0


class TestFeed:
    def test_entries_on_topic_are_kept_newest_first_and_limited(
        self, generate: Generate, sessions: sessionmaker[Session], web: LocalWeb
    ) -> None:
        feed = rss(
            item("AI one", day=1), item("AI three", day=3), item("Cooking", day=5), item("They said so", day=6),
            item("AI two", day=2),
        )  # fmt: skip
        url = web.answer("/feed", Answer(feed))

        result = generate({"account_id": 1, "topic": "ai", "limit": 2}, generator_feed=url)

        content = stored(sessions, result)
        assert [line for line in content.body.splitlines() if line.startswith("##")] == [
            "## [AI three](https://example.org/a)",
            "## [AI two](https://example.org/a)",
        ]
        assert content.source == f"feed: {url}"

    def test_when_nothing_matches_the_newest_are_taken_and_the_result_says_so(
        self, generate: Generate, sessions: sessionmaker[Session]
    ) -> None:
        result = generate({"account_id": 1, "topic": "考古发掘", "limit": 3})

        assert result.metadata["topic_matched"] is False
        assert "没有条目与主题匹配" in result.metadata["notice"]
        assert "没有条目与主题匹配" in stored(sessions, result).body

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (Answer(b"<rss><channel><title>x</ti"), "no entries in the feed"),
            (Answer(b"<html><body>Not a feed</body></html>"), "no entries in the feed"),
            (Answer(b""), "no entries in the feed"),
            (Answer(b"gone", 410), "answered HTTP 410"),
            (Answer(b"not gzip", headers={"Content-Encoding": "gzip"}), "DecodingError"),
            (Answer(b"<!--" + b"x" * 5 * 1024 * 1024 + b"-->"), "larger than"),
        ],
    )
    def test_an_unusable_feed_is_a_clear_failure(
        self, generate: Generate, web: LocalWeb, answer: Answer, reason: str
    ) -> None:
        url = web.answer("/feed", answer)

        result = generate({"account_id": 1, "topic": "AI"}, generator_feed=url)

        assert result.message == "内容生成失败: AI"
        assert result.error is not None
        assert reason in result.error

    def test_broken_xml_gives_the_entries_before_the_break(
        self, generate: Generate, sessions: sessionmaker[Session], web: LocalWeb
    ) -> None:
        url = web.answer("/feed", Answer(rss(item("AI first"), "<item><title>cut & short")[:-20]))

        result = generate({"account_id": 1, "topic": "AI"}, generator_feed=url)

        assert "AI first" in stored(sessions, result).body

    def test_an_entity_bomb_is_not_expanded(self, generate: Generate, web: LocalWeb) -> None:
        entities = (
            '<!ENTITY a "'
            + "x" * 1000
            + '">'
            + "".join(f'<!ENTITY {new} "{f"&{old};" * 100}">' for old, new in zip("abcd", "bcde", strict=True))
        )
        feed = f"<!DOCTYPE rss [{entities}]>".encode() + rss(item("AI &e;"))

        result = generate({"account_id": 1, "topic": "AI"}, generator_feed=web.answer("/feed", Answer(feed)))

        assert len(json.dumps(result.to_dict())) < 10_000

    def test_an_external_entity_is_not_read(
        self, generate: Generate, sessions: sessionmaker[Session], web: LocalWeb, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_text("TOP-SECRET")
        feed = f'<!DOCTYPE rss [<!ENTITY s SYSTEM "file://{tmp_path}/secret">]>'.encode() + rss(item("AI &s;"))

        result = generate({"account_id": 1, "topic": "AI"}, generator_feed=web.answer("/feed", Answer(feed)))

        assert "TOP-SECRET" not in stored(sessions, result).body

    def test_a_private_feed_address_in_params_is_refused_and_one_in_settings_is_not(
        self, generate: Generate, web: LocalWeb
    ) -> None:
        url = web.answer("/feed", Answer(rss(item("AI"))))

        refused = generate({"account_id": 1, "topic": "AI", "feed": url})
        allowed = generate({"account_id": 1, "topic": "AI", "feed": url}, http_allow_private=True)
        configured = generate({"account_id": 1, "topic": "AI"}, generator_feed=url)

        assert refused.error is not None
        assert refused.error.startswith("AddressRefused")
        assert allowed.success
        assert configured.success


class TestFeedFiles:
    @pytest.fixture
    def feeds(self, tmp_path: Path) -> Path:
        folder = tmp_path / "feeds"
        folder.mkdir()
        (folder / "news.xml").write_bytes(rss(item("AI from a file")))
        (tmp_path / "outside.xml").write_bytes(rss(item("AI outside")))
        (folder / "link.xml").symlink_to(tmp_path / "outside.xml")
        return folder

    async def test_params_may_name_a_file_of_the_feed_directory(self, feeds: Path) -> None:
        draft = await self.generate(feeds, "news.xml")

        assert "AI from a file" in draft

    @pytest.mark.parametrize(
        "name", ["../outside.xml", "/etc/passwd", "link.xml", "a/../../outside.xml", "file:///etc/passwd", "~/x"]
    )
    async def test_params_may_not_name_any_other_file(self, feeds: Path, name: str) -> None:
        with pytest.raises(GenerationFailed, match=r"params may name a feed URL or a file in|no feed file"):
            await self.generate(feeds, name)

    @pytest.mark.parametrize("name", ["missing.xml", ".", "n\x00.xml", "x" * 5000])
    async def test_a_file_that_is_none_is_a_clear_failure(self, feeds: Path, name: str) -> None:
        with pytest.raises(GenerationFailed, match="feed file"):
            await self.generate(feeds, name)

    async def generate(self, feeds: Path, name: str) -> str:
        generator = FeedGenerator(Settings(_env_file=None), feeds)
        return (await generator.generate(Brief(1, "default", "AI", feed=name))).body


class TestHostileEntries:
    @pytest.mark.parametrize(
        ("title", "address"),
        [
            ("&lt;script&gt;alert(1)&lt;/script&gt;AI", "https://example.org/"),
            ("AI &amp;lt;img src=x onerror=alert(1)&amp;gt;", "https://example.org/"),
            ("AI](javascript:alert(1)) [x", "https://example.org/"),
            ("AI", "javascript:alert(1)"),
            ("AI", "data:text/html,&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("AI", "https://example.org/) [x](javascript:alert(1)"),
            ("AI", "https://example.org/&quot; onclick=&quot;alert(1)"),
            ("AI ![x](https://example.org/track.png)", "https://example.org/"),
        ],
    )
    def test_nothing_in_a_feed_becomes_script_markup_or_an_image(
        self, generate: Generate, sessions: sessionmaker[Session], web: LocalWeb, title: str, address: str
    ) -> None:
        feed = rss(item(title, link=address, text=f"{title} &lt;iframe src=x&gt;"), title=title)

        result = generate({"account_id": 1, "topic": "AI"}, generator_feed=web.answer("/feed", Answer(feed)))

        page = to_html(stored(sessions, result).body)
        for mark in ("<script", "<img", "<iframe", 'href="javascript', 'href="data', 'onclick="', 'onerror="'):
            assert mark not in page
        assert page.count("<a ") <= 1
        assert page.count("<h2>") == 1


class TestMarkdown:
    @given(st.text())
    def test_escaped_text_renders_as_itself(self, text: str) -> None:
        rendered = to_html(escape(text))

        assert one_line(unescape(plain_tags_removed(rendered))) == one_line(text)
        assert rendered.count("<") <= 2  # a paragraph, and nothing else

    @given(st.text(), st.text())
    def test_a_link_never_leads_anywhere_but_to_a_web_address(self, text: str, address: str) -> None:
        rendered = to_html(link(text, f"https://example.org/{address}"))

        assert rendered.count("<a ") <= 1
        assert rendered.count('href="https://example.org/') == rendered.count("<a ")

    @pytest.mark.parametrize(
        ("markdown", "count"),
        [
            ("人工智能 is here", 6),
            ("don't re-read v3.11", 3),
            ("[链接](https://example.org/a/b/c)", 2),
            ("# 标题\n\n正文", 4),
            ("", 0),
            ("--- ***", 0),
        ],
    )
    def test_words_are_counted_in_the_rendered_text_and_cjk_characters_one_by_one(
        self, markdown: str, count: int
    ) -> None:
        assert word_count(markdown) == count

    def test_a_chinese_topic_is_searched_for_by_pairs_of_characters(self) -> None:
        assert topic_terms("人工智能的未来") == {"人工", "工智", "智能", "未来"}
        assert topic_terms("The future of AI 芯片") == {"future", "ai", "芯片"}


def plain_tags_removed(markup: str) -> str:
    return markup.removeprefix("<p>").strip().removesuffix("</p>")


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


class TestCommand:
    def test_json_goes_in_and_a_content_comes_out(
        self, generate: Generate, sessions: sessionmaker[Session]
    ) -> None:
        script = (
            "import json, sys; brief = json.load(sys.stdin);"
            "json.dump({'title': brief['topic'] + '!', 'body': str(brief['account_id']) + ' 正文'}, sys.stdout)"
        )

        result = generate(
            {"account_id": 1, "topic": "AI", "generator": "command"}, generator_command=python(script)
        )

        content = stored(sessions, result)
        assert (content.title, content.body, content.word_count) == ("AI!", "1 正文", 3)

    def test_no_shell_reads_the_arguments_or_the_topic(
        self, generate: Generate, sessions: sessionmaker[Session], tmp_path: Path
    ) -> None:
        script = (
            "import json, sys; brief = json.load(sys.stdin);"
            "json.dump({'title': sys.argv[1], 'body': brief['topic']}, sys.stdout)"
        )
        harmful = f"$(touch {tmp_path}/harm); `id`"

        result = generate(
            {"account_id": 1, "topic": harmful, "generator": "command"},
            generator_command=[*python(script), harmful],
        )

        content = stored(sessions, result)
        assert (content.title, content.body) == (harmful, harmful)
        assert not (tmp_path / "harm").exists()

    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            ("import sys; print('1', file=sys.stderr); sys.exit('model is down')", "with code 1: model is down"),
            ("import os; os.kill(os.getpid(), 9)", "exited with signal SIGKILL"),
            ("print('hello')", "did not write"),
            ("print('{\"title\": \"\"}')", "stdout.title"),
            ("print('[1]')", "did not write"),
            ("import sys; sys.stdout.buffer.write(b'x' * 5_000_000)", "wrote more than 4194304 bytes"),
            ("import sys; sys.stdout.buffer.write(b'\\xff')", "did not write"),
        ],
    )  # fmt: skip
    async def test_a_program_that_misbehaves_is_a_failure_that_says_how(self, script: str, reason: str) -> None:
        generator = CommandGenerator(Settings(_env_file=None, generator_command=python(script)))

        with pytest.raises(GenerationFailed, match=reason.replace("(", r"\(")):
            await generator.generate(BRIEF)

    async def test_a_program_that_reads_nothing_does_not_stall(self) -> None:
        script = 'import os, time; os.close(0); print(\'{"title": "t", "body": "b"}\')'
        generator = CommandGenerator(Settings(_env_file=None, generator_command=python(script)))

        draft = await generator.generate(Brief(1, "default", "x" * 10_000_000))

        assert draft.title == "t"

    @pytest.mark.parametrize("argv", [[], ["/no/such/program"], ["a\x00b"]])
    async def test_a_program_that_is_not_there_is_a_clear_failure(self, argv: list[str]) -> None:
        with pytest.raises(GenerationFailed, match=r"GENERATOR_COMMAND|cannot be started"):
            await CommandGenerator(Settings(_env_file=None, generator_command=argv)).generate(BRIEF)

    async def test_stderr_is_logged_line_by_line_and_a_line_without_end_is_cut(self) -> None:
        script = (
            "import sys; print('step one', file=sys.stderr); sys.stderr.write('x' * 300_000);"
            'print(\'{"title": "t", "body": "b"}\')'
        )
        lines: list[str] = []
        sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
        try:
            await CommandGenerator(Settings(_env_file=None, generator_command=python(script))).generate(BRIEF)
        finally:
            logger.remove(sink)

        name = Path(sys.executable).name
        assert lines[0] == f"{name}: step one"
        assert [len(line) for line in lines[1:]] == [len(f"{name}: ") + 4096]


HANGING_FAMILY = """
import json, os, pathlib, signal, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
     "print('ready', flush=True); time.sleep(300)"],
    stdout=subprocess.PIPE,
)
child.stdout.readline()
pathlib.Path(sys.argv[1] + ".tmp").write_text(json.dumps([os.getpid(), child.pid]))
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(300)
"""


class TestCommandEnds:
    async def test_cancelling_ends_the_program_and_its_children_which_ignore_sigterm(self, tmp_path: Path) -> None:
        work = asyncio.create_task(self.hang(tmp_path / "pids"))
        pids = await started(tmp_path / "pids")

        work.cancel()

        with pytest.raises(asyncio.CancelledError):
            await work
        assert_gone(pids)

    async def test_what_a_program_says_while_it_tidies_up_is_logged(self) -> None:
        script = "trap 'echo tidied up >&2; exit' TERM; sleep 300 & echo ready >&2; wait"
        lines: list[str] = []
        sink = logger.add(lambda message: lines.append(message.record["message"]), level="INFO")
        work = asyncio.create_task(run_command(["/bin/sh", "-c", script], b"{}"))
        while not lines:
            await asyncio.sleep(0.01)

        work.cancel()

        with pytest.raises(asyncio.CancelledError):
            await work
        logger.remove(sink)
        assert lines == ["sh: ready", "sh: tidied up"]

    async def test_cancelling_while_the_program_is_being_started_ends_its_children_too(
        self, tmp_path: Path
    ) -> None:
        script = f"sleep 300 & echo $! > {tmp_path}/pid.tmp; mv {tmp_path}/pid.tmp {tmp_path}/pid; wait"
        work = asyncio.create_task(run_command(["/bin/sh", "-c", script], b"{}"))
        while not psutil.Process().children():
            await asyncio.sleep(0)
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)  # blocks the loop: asyncio does not get to finish the start

        work.cancel()

        with pytest.raises(asyncio.CancelledError):
            await work
        assert_gone([int((tmp_path / "pid").read_text())])

    async def test_a_program_that_leaves_its_group_cannot_hold_the_attempt(self, tmp_path: Path) -> None:
        script = (
            "import subprocess, sys, pathlib;"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'],"
            " start_new_session=True); pathlib.Path(sys.argv[1]).write_text(str(child.pid)); sys.exit(1)"
        )
        work = asyncio.create_task(run_command([*python(script), str(tmp_path / "pid")], b"{}"))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.02)

        work.cancel()

        with pytest.raises(asyncio.CancelledError):
            await work
        psutil.Process(int((tmp_path / "pid").read_text())).kill()

    async def test_a_second_cancellation_during_the_grace_period_still_kills(self, tmp_path: Path) -> None:
        script = HANGING_FAMILY.replace(
            "pathlib.Path(", "signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path("
        )
        work = asyncio.create_task(self.hang(tmp_path / "pids", script))
        pids = await started(tmp_path / "pids")

        work.cancel()
        await asyncio.sleep(0.1)
        work.cancel()

        with pytest.raises(asyncio.CancelledError):
            await work
        assert_gone(pids)

    def test_a_time_limit_on_a_worker_threads_loop_ends_the_whole_group(self, tmp_path: Path) -> None:
        async def in_thread() -> list[int]:
            def attempt() -> None:
                async def limited() -> None:
                    async with asyncio.timeout(0) as limit:
                        watcher = asyncio.create_task(started(tmp_path / "pids"))
                        watcher.add_done_callback(lambda _: limit.reschedule(asyncio.get_running_loop().time()))
                        limit.reschedule(None)
                        await self.hang(tmp_path / "pids")

                with pytest.raises(TimeoutError):
                    asyncio.run(limited())

            await asyncio.to_thread(attempt)
            return json.loads((tmp_path / "pids").read_text())

        assert_gone(asyncio.run(in_thread()))

    async def test_a_child_left_behind_by_a_program_that_succeeds_ends_too(self, tmp_path: Path) -> None:
        script = (
            "import subprocess, sys, pathlib;"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'],"
            " stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL);"
            'pathlib.Path(sys.argv[1]).write_text(str(child.pid)); print(\'{"title": "t", "body": "b"}\')'
        )
        argv = [*python(script), str(tmp_path / "pid")]

        await CommandGenerator(Settings(_env_file=None, generator_command=argv)).generate(BRIEF)

        assert_gone([int((tmp_path / "pid").read_text())])

    async def hang(self, pids: Path, script: str = HANGING_FAMILY) -> None:
        argv = [*python(script), str(pids)]
        await CommandGenerator(Settings(_env_file=None, generator_command=argv)).generate(BRIEF)


async def started(pids: Path) -> list[int]:
    while not pids.exists():
        await asyncio.sleep(0.02)
    found: list[int] = json.loads(pids.read_text())
    assert all(is_alive(pid) for pid in found)
    return found


def is_alive(pid: int) -> bool:
    """A zombie is dead: nobody may be there to reap an orphan's."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 5  # an orphan's death is the kernel's work, and not instantaneous
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in pids if is_alive(pid)] == []
    assert os.getpid() not in pids


class TestOpenAI:
    def chat(self, generate: Generate, web: LocalWeb, answer: Answer) -> TaskExecutionResult:
        web.answer("/v1/chat/completions", answer)
        return generate(
            {"account_id": 1, "topic": "AI", "generator": "openai"},
            generator_openai_url=web.url("/v1"),
            generator_openai_model="small",
            generator_openai_key=SecretStr("sk-very-secret"),
        )

    def test_the_models_article_becomes_a_content(
        self, generate: Generate, sessions: sessionmaker[Session], web: LocalWeb
    ) -> None:
        message = {"choices": [{"message": {"role": "assistant", "content": "# A title\n\nText."}}]}

        result = self.chat(generate, web, Answer(json.dumps(message).encode()))

        content = stored(sessions, result)
        assert (content.title, content.body, content.source) == ("A title", "Text.\n", "openai: small")
        [received] = web.received
        assert received.headers["authorization"] == "Bearer sk-very-secret"
        sent = json.loads(received.body)
        assert sent["model"] == "small"
        assert sent["messages"][-1] == {"role": "user", "content": "AI"}

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (Answer(b'{"error": "bad key sk-very-secret"}', 401), "answered HTTP 401"),
            (Answer(b"slow down", 429, {"Retry-After": "20"}), "HTTP 429 (Retry-After: 20): slow down"),
            (Answer(b"<h1>Bad gateway</h1>", 502), "HTTP 502"),
            (Answer(b"{}"), "holds no text"),
            (Answer(b'{"choices": [{"message": {"content": null}}]}'), "holds no text"),
            (Answer(b"not json sk-very-secret"), "holds no text"),
            (Answer(b"", 302, {"Location": "http://127.0.0.1:1/"}), "HTTP 302"),
        ],
    )
    def test_a_refusal_is_a_clear_failure_without_the_key(
        self, generate: Generate, web: LocalWeb, answer: Answer, reason: str
    ) -> None:
        lines: list[str] = []
        sink = logger.add(lines.append, level="TRACE")
        try:
            result = self.chat(generate, web, answer)
        finally:
            logger.remove(sink)

        assert result.error is not None
        assert result.error.startswith("GenerationFailed: ")
        assert reason in result.error
        assert "sk-very-secret" not in result.error + "".join(lines)

    def test_an_endpoint_out_of_reach_is_a_clear_failure(self, generate: Generate) -> None:
        with LocalWeb().serving() as closed:
            url = closed.url("/v1")

        result = generate({"account_id": 1, "topic": "AI", "generator": "openai"}, generator_openai_url=url)

        assert result.error is not None
        assert result.error.startswith("ConnectError")

    @pytest.mark.parametrize(
        ("article", "title", "body"),
        [
            ("# Title\n\nText", "Title", "Text\n"),
            ("Text only", "topic", "Text only\n"),
            ("# Only a title", "topic", "# Only a title\n"),
        ],
    )
    def test_the_title_is_the_heading_at_the_top(self, article: str, title: str, body: str) -> None:
        assert split_title(article, "topic") == (title, body)
