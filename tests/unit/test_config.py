from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.core.config import Settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"


def documented() -> dict[str, str | None]:
    """The settings in `.env.example`; None for one that is shown unset."""
    found: dict[str, str | None] = {}
    for line in EXAMPLE.read_text("utf-8").splitlines():
        match = re.fullmatch(r"(# )?([A-Z][A-Z_]+)=(.*)", line)
        if match:
            found[match[2].lower()] = None if match[1] else match[3]
    return found


def test_the_example_names_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    defaults = Settings(_env_file=None)  # type: ignore[call-arg]
    assert documented().keys() == Settings.model_fields.keys()
    for name, text in documented().items():
        default = getattr(defaults, name)
        if text is None:
            assert default is None, name
        elif isinstance(default, list):
            assert json.loads(text) == default
        elif isinstance(default, bool):
            assert text == str(default).lower()
        else:
            assert text == (f"{default:g}" if isinstance(default, float) else str(default)), name


def test_an_unknown_zone_is_refused_with_the_field_named() -> None:
    with pytest.raises(ValidationError, match="scheduler_timezone"):
        Settings(scheduler_timezone="Mars/Olympus")


@pytest.mark.parametrize(
    "address", ["hub.example.org", "ftp://hub.example.org", "https://", "https://a.example?x=1"]
)
def test_an_address_that_is_none_is_refused_with_the_remedy(address: str) -> None:
    with pytest.raises(
        ValidationError, match=r"public_base_url\n.*(write one such as https://|write one without \? and #)"
    ):
        Settings(public_base_url=address)
