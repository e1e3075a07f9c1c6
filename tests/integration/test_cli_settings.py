"""Settings that cannot work: one sentence that names the variable and the remedy, never a traceback."""

from __future__ import annotations

import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.command_line import ContentHub, until


@pytest.fixture
def contenthub(tmp_path: Path) -> ContentHub:
    (tmp_path / "file").write_text("no folder")
    return ContentHub(tmp_path)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("DATABASE_URL", "mysql://host/name", "DATABASE_URL: mysql is not supported; write sqlite:///data"),
        ("DATABASE_URL", "postgresql+asyncpg://host/name", "postgresql+asyncpg is not supported; write"),
        ("DATABASE_URL", "postgres://host/name", "DATABASE_URL: postgres is not supported; write"),
        ("DATABASE_URL", "sqlite:///file/data.db", "DATABASE_URL: its folder file cannot be made: "),
        ("SCHEDULER_TIMEZONE", "Mars", "SCHEDULER_TIMEZONE: 'Mars' is no IANA time zone; write one such as"),
        ("SCHEDULER_LEASE_SECONDS", "inf", "SCHEDULER_LEASE_SECONDS: Input should be less than or equal to 86400"),
        ("SCHEDULER_RETENTION_DAYS", "1e7", "SCHEDULER_RETENTION_DAYS: Input should be less than or equal"),
        ("SCHEDULER_GRACE_SECONDS", "nan", "SCHEDULER_GRACE_SECONDS: Input should be"),
        ("GENERATOR_OPENAI_URL", "foo", "GENERATOR_OPENAI_URL: it is no address of a server; write one such as"),
        ("PUBLISH_WEBHOOK_URL", "http://[::1", "PUBLISH_WEBHOOK_URL: it is no address of a server"),
        ("PUBLISH_BASE_URL", "http://a/?b", "PUBLISH_BASE_URL: other addresses are made of it"),
        (
            "GENERATOR_COMMAND",
            "draft --json",
            'GENERATOR_COMMAND: it is no JSON; write it as in ["draft", "--json"]',
        ),
    ],
)
def test_a_wrong_setting_is_refused_with_the_remedy(
    contenthub: ContentHub, variable: str, value: str, sentence: str
) -> None:
    refused = contenthub("task", "list", code=1, **{variable: value})
    assert sentence in refused.err
    assert "Traceback" not in refused.err


def test_a_file_of_settings_that_is_no_text_is_refused(contenthub: ContentHub) -> None:
    (contenthub.folder / ".env").write_bytes(b"LOG_LEVEL=INFO\n\xff\xfe")
    assert ".env: it is no UTF-8 text; save it as UTF-8" in contenthub("task", "list", code=1).err


def test_serve_refuses_what_it_cannot_listen_on_before_anything_runs(contenthub: ContentHub) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = contenthub("serve", "--port", str(port), code=1)
        assert f"port: {port} of 127.0.0.1 cannot be listened on: " in refused.err
        assert "choose another with --port" in refused.err
    assert (
        "host: 'no.such.host.invalid' is unknown"
        in contenthub("serve", "--host", "no.such.host.invalid", code=1).err
    )
    assert contenthub("node", "list", "--json").json == []


def test_serve_refuses_a_site_where_no_folder_can_be(contenthub: ContentHub) -> None:
    refused = contenthub("serve", "--port", "0", code=1, PUBLISH_DIRECTORY="file/site")
    assert "PUBLISH_DIRECTORY: file/site cannot be made: " in refused.err
    assert "Traceback" not in refused.err


def test_the_demo_refuses_a_folder_that_cannot_be_made(contenthub: ContentHub) -> None:
    refused = contenthub("demo", "--data-dir", "file/demo", "--port", "0", code=1)
    assert "data-dir: file/demo cannot be made: " in refused.err
    assert "Traceback" not in refused.err


def test_the_demo_runs_whatever_the_deployment_is_set_to(contenthub: ContentHub) -> None:
    """It is for whoever looks at this for the first time, perhaps beside the settings of a real deployment."""
    settings = {"SCHEDULER_ENGINE": "pgqueuer", "SCHEDULER_ROLE": "api", "GENERATOR": "openai", "HOST": "0.0.0.0"}
    with contenthub.started("demo", "--data-dir", "demo", "--port", "0", **settings) as demo:
        page = contenthub.folder / "demo" / "site" / "content-1.html"
        until(lambda: page.exists() or demo.poll() is not None)
        demo.send_signal(signal.SIGTERM)
        _, err = demo.communicate(timeout=60)
    assert page.exists(), err


@pytest.mark.parametrize(
    ("settings", "finding", "remedy"),
    [
        (
            {"SCHEDULER_CONCURENCY": "3"},
            "settings: SCHEDULER_CONCURENCY is no setting, and nothing comes of it",
            "did you mean SCHEDULER_CONCURRENCY?",
        ),
        ({"SCHEDULER_FOO": "3"}, "settings: SCHEDULER_FOO is no setting", "see .env.example"),
        (
            {"GENERATOR": "command", "GENERATOR_COMMAND": '["/no/such/program"]'},
            "generator: /no/such/program cannot be run",
            "mend GENERATOR_COMMAND",
        ),
        ({"GENERATOR": "command"}, "generator: GENERATOR_COMMAND is not set", "write its argv"),
        ({"GENERATOR_FEED": "/no/such.xml"}, "/no/such.xml", "mend GENERATOR_FEED"),
        ({"PUBLISH_DIRECTORY": "/proc/site"}, "publish directory: /proc/site cannot be written", "write to /proc"),
    ],
)
def test_the_doctor_finds_settings_of_which_nothing_good_comes(
    contenthub: ContentHub, settings: dict[str, str], finding: str, remedy: str
) -> None:
    contenthub("db", "upgrade")
    code = 0 if "is no setting" in finding else 1
    told = " ".join(contenthub("doctor", code=code, COLUMNS="200", **settings).out.split())
    assert finding in told
    assert remedy in told


def test_a_misspelt_setting_in_the_file_is_found_too(contenthub: ContentHub) -> None:
    (contenthub.folder / ".env").write_text("PUBLISH_DIRECTROY=/tmp/site\nSMTP_HOST=mail\n")
    told = contenthub("doctor", COLUMNS="200").out
    assert "PUBLISH_DIRECTROY is no setting" in told
    assert "SMTP_HOST" not in told


def test_a_database_of_a_newer_version_is_told_from_an_old_one(contenthub: ContentHub) -> None:
    contenthub("db", "upgrade")
    with closing(sqlite3.connect(contenthub.folder / "contenthub.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    for command in (("task", "list"), ("db", "upgrade"), ("serve", "--port", "0")):
        refused = " ".join(contenthub(*command, code=1).err.split())
        assert "9999" in refused
        assert "install that version" in refused
        assert "run `contenthub db upgrade`" not in refused
