"""Which version this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version() -> str:
    """The installed version, or `0` in a tree that is not installed."""
    try:
        return version("contenthub-scheduler")
    except PackageNotFoundError:
        return "0"
