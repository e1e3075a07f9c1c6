"""The cookie of a signed-in browser, and the proof that a change comes from our own page.

The signing key is made of the token's hash, so revoking a token ends its sessions at once in every process, with
nothing stored. `SESSION_SECRET` is part of the key: with it, who can read the database cannot make sessions.
"""

from __future__ import annotations

import hashlib
import hmac

from itsdangerous import BadSignature, Signer, TimestampSigner
from sqlalchemy.orm import Session

from app.core.config import Settings
from app.models.api_token import ApiToken

COOKIE = "contenthub_session"
CSRF_HEADER = "X-CSRF-Token"


class SessionCookie:
    """Makes and reads the cookie: a token's id, signed, with the time of signing in."""

    def __init__(self, settings: Settings) -> None:
        secret = settings.session_secret
        self._secret = secret.get_secret_value() if secret is not None else ""
        self._max_age = round(settings.session_hours * 3600)

    def key_of(self, token: ApiToken) -> str:
        """The key that signs this token's sessions."""
        return f"{self._secret}/{token.token_hash}"

    def make(self, token: ApiToken) -> str:
        return self._signer(token).sign(str(token.id)).decode()

    def read(self, session: Session, cookie: str) -> ApiToken | None:
        """The token that the cookie was made for; None: it is forged or too old, or its token is revoked."""
        token_id = cookie.partition(".")[0]
        if not token_id.isascii() or not token_id.isdecimal() or len(token_id) > 18:
            return None
        token = session.get(ApiToken, int(token_id))
        if token is None or token.revoked_at is not None:
            return None
        try:
            self._signer(token).unsign(cookie, max_age=self._max_age)
        except BadSignature:
            return None
        return token

    def _signer(self, token: ApiToken) -> TimestampSigner:
        return TimestampSigner(self.key_of(token), salt="contenthub session", digest_method=hashlib.sha256)


def csrf_token(cookie: str, key: str) -> str:
    """What our own page sends with a change and a foreign page cannot know."""
    return Signer(key, salt="contenthub csrf", digest_method=hashlib.sha256).get_signature(cookie).decode()


def is_csrf_token(sent: str | None, cookie: str, key: str) -> bool:
    return sent is not None and hmac.compare_digest(sent.encode(), csrf_token(cookie, key).encode())
