"""A real HTTP server on this machine that answers as a test says: slowly, wrongly, elsewhere."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = "s3cret-key-0815"
"""Part of the address of `hook()`."""


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class LocalWeb:
    """Answers `answers[path]` in turn, the last one again and again; what it knows nothing about is 404."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = defaultdict(list)
        self.received: list[Received] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler_class())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def answer(self, path: str, *answers: Answer) -> str:
        """Answer so from now on; returns the address."""
        self.answers[path] = list(answers)
        return self.url(path)

    def next_answer(self, received: Received) -> Answer:
        with self._lock:
            self.received.append(received)
            answers = self.answers[received.path.partition("?")[0]]
            if not answers:
                return Answer(b"no such page", 404)
            return answers.pop(0) if len(answers) > 1 else answers[0]

    @contextmanager
    def serving(self) -> Iterator[LocalWeb]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.closing.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received = Received(self.command, self.path, headers, self.rfile.read(length))
                answer = web.next_answer(received)
                if answer.delay_seconds:
                    web.closing.wait(answer.delay_seconds)
                try:
                    self.send_response(answer.status)
                    for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(answer.body)
                except ConnectionError:
                    self.close_connection = True  # the client has gone, which is what some tests are about

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        return Handler


def hook(web: LocalWeb, *answers: Answer) -> str:
    """The apprise URL of a webhook on `web`, which has a secret in its path."""
    web.answer(f"/hook/{SECRET}", *(answers or (Answer(),)))
    return f"json://127.0.0.1:{web.port}/hook/{SECRET}"
