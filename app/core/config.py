"""Every setting, in one place, read from the environment or `.env` (see `.env.example`).

A field's name in upper case is its environment variable: `scheduler_engine` is `SCHEDULER_ENGINE`.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from app.core.zones import zone_named

_DAY = 86_400


class Settings(BaseSettings):
    """Settings of one process. Times are seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore"
    )

    database_url: str = "sqlite:///data/contenthub.db"
    """SQLAlchemy URL: a SQLite file, or `postgresql://…` (extra `[postgres]`, psycopg 3)."""
    sqlite_synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """FULL survives a power cut; NORMAL survives a crash of the process and is faster."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe level that is logged, and kept with the attempt that logged it."""
    log_format: Literal["console", "json"] = "console"
    """`json`: an object a line, with the ids of the execution, attempt and task that wrote it."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Where `contenthub worker`, which has no API, answers Prometheus, without asking who asks; None: nowhere."""
    allow_anonymous_loopback: bool = True
    """While no API token exists, answer requests from this machine without one."""

    mcp_enabled: bool = False
    """Offer the API's operations to agents at `/mcp`, behind the same tokens (extra `[mcp]`)."""

    session_hours: float = Field(default=12, gt=0, le=24 * 365)
    """How long a browser stays signed in."""
    session_secret: SecretStr | None = None
    """Part of the key that signs browser sessions, the same in every process. Without it the key is made of what
    the database knows of the token."""

    scheduler_enabled: bool = True
    """False: this process serves the API but neither fires schedules nor runs executions."""
    scheduler_timezone: str = "UTC"
    """IANA zone of tasks that name none."""
    scheduler_engine: Literal["embedded", "pgqueuer"] = "embedded"
    """What carries recorded executions to running attempts: the database itself, or PgQueuer (many machines)."""
    scheduler_role: Literal["all", "api", "worker"] = "all"
    """What this process does beside recording and firing: `all` and `worker` run executions, `api` leaves that to
    others. `contenthub worker` is a `worker` without HTTP."""
    scheduler_job_heartbeat_seconds: float = Field(default=30, ge=2, le=_DAY)
    """A PgQueuer job whose worker has been silent for this long is given to another worker."""
    scheduler_concurrency: int = Field(default=16, ge=1, le=1000)
    """Attempts on worker threads at the same time."""
    scheduler_loop_concurrency: int = Field(default=100, ge=1, le=100_000)
    """Attempts of `lane = "loop"` executors at the same time."""
    scheduler_priority_step_seconds: float = Field(default=60, ge=0, le=366 * 86_400)
    """Waiting this long is worth one step of priority, so that nothing starves: after 1, 5, 10 minutes an
    execution of priority 0 comes before a new one of priority 1, 5, 10. 0: priorities are strict."""
    scheduler_timeout_seconds: float | None = Field(default=None, gt=0, le=7 * _DAY)
    """Time limit of an attempt where neither task nor executor sets one."""
    scheduler_grace_seconds: float = Field(default=10, ge=0, le=_DAY)
    """How long a shutdown waits for running attempts before it hands them back."""
    scheduler_lease_seconds: float = Field(default=15, ge=1, le=_DAY)
    """A node silent for this long is dead; its executions are rescued."""
    scheduler_max_rescues: int = Field(default=3, ge=0, le=1000)
    """An execution whose node died more often than this ends `failed`, reason `node_lost`."""
    scheduler_switch_interval_seconds: float = Field(default=0.0005, gt=0, le=1)
    """How long a busy thread may keep the interpreter while others wait (Python's own default is 0.005). The event
    loop waits for it once for each busy lane, so a smaller value keeps the API quick under load."""
    scheduler_retention_days: float = Field(default=30, gt=0, le=100 * 366)
    """Finished executions older than this are pruned."""
    scheduler_log_lines: int = Field(default=1000, ge=0, le=1_000_000)
    """Log lines kept for each attempt; what comes after is counted, not kept."""

    generator: Literal["feed", "command", "openai"] = "feed"
    """Generator of `content_generation` where the params name none."""
    generator_feed: str | None = None
    """Feed (file or URL) of the `feed` generator where the params name none; None: the sample we ship."""
    generator_command: list[str] = []
    """argv of the `command` generator, as a JSON list; never passed to a shell."""
    generator_openai_url: str = "http://127.0.0.1:11434/v1"
    """Base URL of an OpenAI-compatible API."""
    generator_openai_model: str = "default"
    generator_openai_key: SecretStr | None = None

    publish_directory: Path = Path("data/site")
    """Where the `directory` publisher writes its pages."""
    publish_base_url: str = "http://127.0.0.1:8000/site"
    """Public address of `publish_directory`, for links in the Atom feed."""
    publish_webhook_url: str | None = None
    publish_webhook_secret: SecretStr | None = None
    """HMAC-SHA256 key of the `X-ContentHub-Signature` header."""

    public_base_url: str | None = None
    """Where people reach this server, for the links by which they decide approvals, the same in every process.
    None: links are for this machine, and no notice carries one."""
    approval_secret: SecretStr | None = None
    """Part of the key that signs those links, the same in every process: with it, who can read the database cannot
    make links."""

    http_allow_private: bool = False
    """Let addresses in params be loopback, link-local or private. Addresses in settings always may."""

    @field_validator("scheduler_timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        zone_named(value)
        return value

    @field_validator("public_base_url", "publish_base_url", "generator_openai_url", "publish_webhook_url")
    @classmethod
    def _absolute(cls, value: str | None, info: ValidationInfo) -> str | None:
        wrong = "it is no address of a server; write one such as https://hub.example.org"
        try:
            parts = urlsplit(value or "http://unset")
            is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError as error:  # a port that is none, a bracket that is not closed
            raise ValueError(wrong) from error
        if not is_address:
            raise ValueError(wrong)
        if info.field_name != "publish_webhook_url" and (parts.query or parts.fragment):
            raise ValueError("other addresses are made of it; write one without ? and #")
        return value

    @property
    def is_sqlite(self) -> bool:
        return self.database_url.startswith("sqlite")


def misspelt_settings() -> dict[str, str]:
    """Names in the environment and `.env` that are no setting but look like one, each with the setting it is like;
    "" where it only begins as ours do."""
    known = [name.upper() for name in Settings.model_fields]
    found = {name.upper() for name in (*os.environ, *DotEnvSettingsSource(Settings).env_vars)} - set(known)
    like = {name: "".join(get_close_matches(name, known, n=1, cutoff=0.85)) for name in sorted(found)}
    return {name: setting for name, setting in like.items() if setting or name.startswith("SCHEDULER_")}


@lru_cache
def get_settings() -> Settings:
    """The settings of this process, read once. Tests build `Settings(...)` and hand it in."""
    return Settings()
