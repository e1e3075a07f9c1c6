"""Channels by apprise: mail, Slack, Feishu, DingTalk, WeCom, webhooks and more, each an URL.

The URL is a secret. It goes to nobody but the receiver, and what apprise says about a failure is masked.
"""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import unquote

from app.core.errors import InvalidRequest, SchedulerError
from app.core.language import Said
from app.core.logging import message_of
from app.core.redaction import MASK

if TYPE_CHECKING:
    from apprise.plugins import NotifyBase

MessageType = Literal["info", "success", "warning", "failure"]
_SHORTEST_SECRET = 4


class ChannelRefused(SchedulerError):
    """The receiver did not take the message, or could not be reached."""

    code = "channel_refused"


def masked(url: str) -> str:
    """`url` as it may be shown: what kind of receiver it is, and nothing else."""
    scheme, found, _ = url.partition("://")
    return f"{scheme}://{MASK}" if found and re.fullmatch(r"[a-zA-Z0-9+.-]{1,30}", scheme) else MASK


def check_url(url: str) -> None:
    """Raises InvalidRequest naming `url`: apprise is missing, or cannot do anything with it."""
    _instantiate(url)


def send(url: str, title: str, body: str, kind: MessageType) -> None:
    """Deliver a message. Blocks for as long as the receiver takes, within apprise's own timeouts.

    Raises:
        ChannelRefused: it was not delivered; says what apprise says, without the secrets.
        InvalidRequest: see `check_url`.
    """
    import apprise

    receiver = apprise.Apprise()
    receiver.add(_instantiate(url))
    with _Listener() as listener:
        delivered = receiver.notify(title=title, body=body, notify_type=kind)
    if not delivered:
        reason = " ".join(without_secrets(" ".join(listener.heard), url).split()) or "it does not say why"
        raise ChannelRefused(f"{masked(url)} did not take the message: {reason}")


def without_secrets(text: str, url: str) -> str:
    """`text` without the parts of `url` that may be keys: all but its scheme, its host and short words."""
    authority, _, rest = url.partition("://")[2].partition("/")
    userinfo, _, host = authority.rpartition("@")
    parts = re.split(r"[/?&=:;,@]+", f"{userinfo}/{rest}")
    if not rest and not userinfo:
        parts.append(host)  # of many receivers the key stands where a host would
    secrets = {form for part in parts for form in (part, unquote(part)) if len(form) >= _SHORTEST_SECRET}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


class _Listener(logging.Handler):
    """Hears why this delivery fails, and no other: apprise tells nobody but its log."""

    _listening: ContextVar[_Listener | None] = ContextVar("listening", default=None)
    """apprise sends from threads of its own, and takes the context of its caller there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        self._logger = logging.getLogger("apprise")

    def emit(self, record: logging.LogRecord) -> None:
        if self._listening.get() is self:
            self.heard.append(message_of(record))

    def __enter__(self) -> Self:
        # What apprise logs may hold parts of the URL: it must not reach the handlers of the application.
        self._logger.propagate = False
        self._logger.addHandler(self)
        self._before = self._listening.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.reset(self._before)
        self._logger.removeHandler(self)


def _instantiate(url: str) -> NotifyBase:
    try:
        import apprise
    except ModuleNotFoundError:
        raise InvalidRequest.of(
            "url",
            Said(
                "apprise is missing; install contenthub-scheduler[alerts]",
                "缺少 apprise；请安装 contenthub-scheduler[alerts]",
            ),
        ) from None
    with _Listener():  # it logs the URL that it cannot read
        found: NotifyBase | None = apprise.Apprise.instantiate(url, suppress_exceptions=True)
    if found is None:
        raise InvalidRequest.of(
            "url",
            Said(
                "apprise does not know such a receiver; write one such as json://example.org/hook or"
                " mailto://user:password@example.org (see appriseit.com/services)",
                "apprise 不认识这样的接收地址；请填写例如 json://example.org/hook 或"
                " mailto://user:password@example.org（见 appriseit.com/services）",
            ),
        )
    return found
