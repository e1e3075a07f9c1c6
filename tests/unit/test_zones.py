"""Names of time zones."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from app.core.config import Settings
from app.core.errors import InvalidRequest
from app.core.zones import zone_named
from app.scheduler.definitions import ZoneName
from app.scheduler.schedules import zone_of


@pytest.mark.parametrize("name", ["Asia/Shanghai", "UTC", "Etc/GMT+5", "EST5EDT", "PRC"])
def test_iana_zones_are_known(name: str) -> None:
    assert zone_named(name).key == name


@pytest.mark.parametrize(
    "name", ["localtime", "posixrules", "Factory", "posix/Europe/Berlin", "Europe", "Mars", ""]
)
def test_what_names_no_zone_is_refused_wherever_a_zone_is_asked_for(name: str) -> None:
    readers = (zone_of, TypeAdapter(ZoneName).validate_python, lambda zone: Settings(scheduler_timezone=zone))
    for read in readers:
        with pytest.raises((InvalidRequest, ValidationError)):
            read(name)
    with pytest.raises(ValueError, match="is no IANA time zone; write one such as Asia/Shanghai or UTC"):
        zone_named(name)
