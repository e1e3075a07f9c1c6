"""Bearer tokens: made once, shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import secrets
from enum import IntEnum

_PREFIX = "ch_"


class Role(IntEnum):
    """What a caller may do; a higher role may all that a lower one may.

    viewer reads; operator makes, changes, pauses, runs, cancels and retries; admin also deletes.
    """

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @classmethod
    def named(cls, name: str) -> Role:
        """Raises KeyError for a name that is no role."""
        return cls[name.upper()]

    @property
    def label(self) -> str:
        return self.name.lower()


def new_token() -> str:
    """A bearer token of 256 random bits."""
    return _PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a token. A plain SHA-256 does for 256 random bits: there is nothing to guess."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
