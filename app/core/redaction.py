"""Secrets never leave in the clear: not in logs, API answers, exports or CLI output."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import to_json

from app.core.errors import InvalidRequest

MASK = "******"

_SECRET_KEY = re.compile(
    r"(^|[_-])pass(phrase)?$|passw|secret|token(?!s)|api[-_]?key|apikey|authorization|credential"
    r"|private[-_]?key|access[-_]?key|cookie|^pwd$",
    re.IGNORECASE,
)


_declared: set[str] = set()


def declare_secrets(model: type[BaseModel]) -> None:
    """Hide, from now on and everywhere, what `model` or a model in it declares as `SecretStr` or `SecretBytes`."""

    def visit(schema: Any) -> None:
        if isinstance(schema, Mapping):
            for name, field in schema.get("properties", {}).items():
                if '"writeOnly":true' in to_json(field).decode():
                    _declared.add(name)
            for part in schema.values():
                visit(part)
        elif isinstance(schema, list):
            for part in schema:
                visit(part)

    visit(model.model_json_schema())


def is_secret_key(key: str) -> bool:
    """Whether a value under `key` is to be hidden."""
    return key in _declared or _SECRET_KEY.search(key) is not None


def redact(value: Any) -> Any:
    """A copy of `value` in which secrets, at any depth, read `******`; None and "" stay, they hide nothing."""
    if isinstance(value, (SecretStr, SecretBytes)):
        return MASK
    if isinstance(value, Mapping):
        return {
            key: MASK if item not in (None, "") and is_secret_key(str(key)) else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


def redact_text(text: str, source: Any) -> str:
    """`text` in which every secret value that `source` holds, at any depth, reads `******`: an error that quotes
    the params it was given must not carry them out."""
    for secret in sorted(set(_secrets_of(source)), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def _secrets_of(value: Any, *, under_secret_key: bool = False) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets_of(item, under_secret_key=under_secret_key or is_secret_key(str(key)))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _secrets_of(item, under_secret_key=under_secret_key)
    elif under_secret_key and value not in (None, "") and not isinstance(value, bool):
        yield str(value)


def restore(value: Any, stored: Any) -> Any:
    """`value` as sent back by a client that had read it redacted: each mask becomes what is stored there."""
    if value == MASK and stored is not None:
        return stored
    if isinstance(value, Mapping) and isinstance(stored, Mapping):
        return {key: restore(item, stored.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(stored, list):
        padded = [*stored, *[None] * len(value)]
        return [restore(item, old) for item, old in zip(value, padded, strict=False)]
    return value


def _has_mask(value: Any) -> bool:
    waiting = [value]  # no recursion: nobody has looked yet how deep it is
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple)):
            waiting.extend(item)
        elif isinstance(item, str) and item == MASK:
            return True
    return False


def refuse_masks(params: Any) -> None:
    """Raises InvalidRequest where a mask is left in `params`: nobody knows the secret it stands for. A text with
    asterisks in it is a text."""
    if _has_mask(params):
        raise InvalidRequest.of("params", f"{MASK} stands for a secret that is not stored here")
