"""One table of instruments, fit for OpenTelemetry and for Prometheus, under names that the same rule maps."""

from __future__ import annotations

import re

import pytest

from app.observability.instruments import ATTRIBUTES, INSTRUMENTS, Instrument, Kind

each = pytest.mark.parametrize("one", INSTRUMENTS, ids=lambda one: one.name)


@each
def test_a_name_is_valid_and_does_not_repeat_its_unit(one: Instrument) -> None:
    assert re.fullmatch(r"contenthub(\.[a-z][a-z_]*)+", one.name)
    assert not one.name.endswith(("seconds", "total", "count"))
    assert re.fullmatch(r"s|\{[a-z]+\}", one.unit)


@each
def test_prometheus_has_the_name_a_collector_would_give_it(one: Instrument) -> None:
    suffix = "_seconds" if one.unit == "s" else ""
    assert one.prometheus_name == one.name.replace(".", "_") + suffix


@each
def test_every_label_is_an_attribute_and_histograms_alone_have_bounds(one: Instrument) -> None:
    assert set(one.labels) <= ATTRIBUTES.keys()
    assert bool(one.bounds) == (one.kind is Kind.HISTOGRAM)
    assert list(one.bounds) == sorted(set(one.bounds))


def test_no_two_have_one_name() -> None:
    assert len({one.prometheus_name for one in INSTRUMENTS}) == len(INSTRUMENTS)
