"""The deployment under test: a database and some server processes, and everything that can be done to them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, text

from app.core.config import Settings
from app.db.database import make_engine
from app.scheduler.runtime import build_service, runtime_of
from tests.faults.checker import EFFECTS_TABLE, STEPS_TABLE
from tests.faults.diary import Diary, boot_seconds
from tests.faults.journey import Marks
from tests.postgres import postgres_server
from tests.support import free_port

LEASE_SECONDS = 2.0
ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Server:
    """One process, and where it listens."""

    process: subprocess.Popen[bytes]
    port: int
    environment: dict[str, str]
    stopped: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_up(self) -> bool:
        if self.stopped or self.process.poll() is not None:
            return False
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health/live", timeout=1).status_code == 200
        return False


@dataclass(slots=True)
class Deployment:
    """Servers on one database. `gone` remembers who was killed or stopped when."""

    folder: Path
    database_url: str
    engine: Engine
    postgres: Any
    """The PostgreSQL server; None: SQLite."""
    settings: dict[str, str]
    servers: list[Server] = field(default_factory=list)
    gone: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    told_to_stop: dict[int, float] = field(default_factory=dict)

    @property
    def diary(self) -> Diary:
        return Diary(self.folder / "diary")

    @property
    def marks(self) -> Marks:
        return Marks(self.folder / "marks")

    def start(self, **settings: str) -> Server:
        """Start one more server, with these settings beside the common ones."""
        port = free_port()
        environment = {**self.settings, **settings, "PORT": str(port)}
        server = Server(self._launch(environment), port, environment)
        self.servers.append(server)
        return server

    def _launch(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / "servers.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.faults.server"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )

    # ------------------------------------------------------------ faults

    def kill(self, server: Server) -> None:
        """SIGKILL, and a new process in its place."""
        server.process.kill()
        self._note_gone(server)
        self._replace(server)

    def _note_gone(self, server: Server) -> None:
        # After the signal: what it had begun by then, it had begun before.
        self.gone[server.pid].append(boot_seconds())

    def terminate(self, server: Server) -> None:
        """SIGTERM, as a rolling restart does: the new process starts when the old one has ended."""
        self.told_to_stop[server.pid] = boot_seconds()
        server.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(20)
        server.process.kill()
        self._replace(server)

    def freeze(self, server: Server, seconds: float) -> None:
        """SIGSTOP for that long, then SIGCONT: a virtual machine that was paused."""
        server.process.send_signal(signal.SIGSTOP)
        self._note_gone(server)
        server.stopped = True
        time.sleep(seconds)
        server.process.send_signal(signal.SIGCONT)
        server.stopped = False

    def _replace(self, server: Server) -> None:
        server.process.wait()
        server.process = self._launch(server.environment)

    def step_clock(self, seconds: float, hold: float) -> None:
        """The wall clock of every process steps by `seconds`, and back after `hold`."""
        self._set_clock(seconds)
        time.sleep(hold)
        self._set_clock(0)

    def _set_clock(self, seconds: float) -> None:
        new = self.folder / "clock.new"
        new.write_text(str(seconds))
        new.replace(self.folder / "clock")

    def cut_connections(self) -> None:
        """Every connection to PostgreSQL is ended by the server."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
            )

    def restart_postgres(self) -> None:
        """What `pg_ctl restart -m immediate` does: it is gone without a word, and recovers from its log."""
        pid = self.postgres.get_pid()
        os.kill(pid, signal.SIGQUIT)
        while _is_alive(pid):
            time.sleep(0.05)
        self.postgres.start()
        self.engine.dispose()

    def fill_disk(self, hold: float) -> None:
        """Nothing more can be written beside the database for `hold` seconds."""
        ballast = self.folder / "disk" / "ballast"
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"\0" * 65_536)
                file.flush()
        time.sleep(hold)
        ballast.unlink(missing_ok=True)

    @property
    def can_fill_disk(self) -> bool:
        return (self.folder / "disk").is_mount()

    # ------------------------------------------------------------ end

    def revive(self) -> None:
        """Start again what has ended by itself, as systemd does: a server that finds no database at its start."""
        for server in self.servers:
            if server.process.poll() is not None:
                self._replace(server)

    def await_up(self, seconds: float = 60) -> None:
        """Wait until every server answers.

        Raises:
            TimeoutError: one does not; the last lines of the servers' log are in the message.
        """
        end = time.monotonic() + seconds
        while not all(server.is_up for server in self.servers):
            self.revive()
            if time.monotonic() > end:
                log = (self.folder / "servers.log").read_text(errors="replace")
                raise TimeoutError(f"a server does not answer:\n{log[-3000:]}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End all servers."""
        for server in self.servers:
            server.process.terminate()
        for server in self.servers:
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(20)
            server.process.kill()
            server.process.wait()


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextmanager
def deployed(target: str, folder: Path, *, broken: str | None = None) -> Iterator[Deployment]:
    """A database of that kind with the schema, ready for servers. `target`: sqlite, postgres, pgqueuer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clock").write_text("0")
    with _database(target, folder) as (url, postgres):
        settings = {
            "DATABASE_URL": url,
            "SCHEDULER_ENGINE": "pgqueuer" if target == "pgqueuer" else "embedded",
            "SCHEDULER_LEASE_SECONDS": str(LEASE_SECONDS),
            "SCHEDULER_JOB_HEARTBEAT_SECONDS": str(LEASE_SECONDS),
            "SCHEDULER_GRACE_SECONDS": "0.2",
            "SCHEDULER_MAX_RESCUES": "1000",
            "SCHEDULER_CONCURRENCY": "8",
            "LOG_LEVEL": "WARNING",
            "FAULTS_FOLDER": str(folder),
        }
        if broken is not None:
            settings["FAULTS_BREAK"] = broken
        engine = _prepare(url, settings, broken)
        deployment = Deployment(folder, url, engine, postgres, settings)
        try:
            yield deployment
        finally:
            deployment.stop()
            engine.dispose()


def _prepare(url: str, environment: dict[str, str], broken: str | None) -> Engine:
    settings = Settings(database_url=url, scheduler_engine=environment["SCHEDULER_ENGINE"])  # type: ignore[arg-type]
    runtime = runtime_of(build_service(settings))
    runtime.prepare_database()
    runtime.close()
    engine = make_engine(settings)
    with engine.begin() as connection:
        connection.execute(text(EFFECTS_TABLE))
        connection.execute(text(STEPS_TABLE))
        if broken == "ledger":
            _drop_the_unique_fire(connection.engine)
    return engine


def _drop_the_unique_fire(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX uq_task_executions_fire"))


@contextmanager
def _database(target: str, folder: Path) -> Iterator[tuple[str, Any]]:
    if target == "sqlite":
        with _small_disk(folder / "disk") as disk:
            yield f"sqlite:///{disk / 'contenthub.db'}", None
    else:
        with postgres_server() as server:
            yield server.get_uri(), server


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 256 MiB where we may mount one; else a plain folder."""
    folder.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)], stderr=subprocess.DEVNULL
    )
    try:
        yield folder
    finally:
        if mounted:
            for file in folder.glob("contenthub.db*"):
                shutil.copy(file, folder.parent)
            subprocess.run(["umount", "-l", str(folder)], check=True)
