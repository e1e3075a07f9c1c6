"""Secrets never leave in the clear: not in logs, API answers, exports or CLI output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields as fields_of_dataclass
from dataclasses import is_dataclass
from functools import lru_cache
from types import NoneType
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import to_json

from app.core.errors import InvalidRequest
from app.core.language import Said

MASK = "******"

_SECRET_KEY = re.compile(
    r"(^|[_-])(pass(phrase|code)?|pwd|auth|bearer|otp|dsn)$|(?<=[a-z])(?-i:Pass|Pwd)$"
    r"|passw|secret|token(?!s)|(access|refresh|auth|api|bearer)[-_]?tokens|authorization|credential|cookie"
    r"|(api|private|access|signing|encryption|ssh|hmac|master|shared)[-_]?key|connection[-_]?string"
    r"|密码|口令|令牌|密钥",
    re.IGNORECASE,
)
_IN_URL = re.compile(
    r"(?<=://)[^/?#@\s:]*:(?P<password>[^/?#@\s]+)(?=@)|(?<=[?&])(?P<key>[^=?&#\s]+)=(?P<value>[^&#\s]+)"
)
"""A password before the host, and each `key=value` of a query."""
_IN_ARGUMENT = re.compile(r"(?<![\w-])(?:(?P<name>[\w-]+)\s*[=:]|(?P<option>--?[\w-]+)(?=\s))\s*(?=\S)")
"""The name before a value in an argument of a command: `token=…`, `Token: …`, `--token …`."""
_WORD_LENGTH = 4
"""A shorter secret is looked for as a word of its own: every 7 in a text is not the token 7."""


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
    return key in _declared or _sounds_secret(key)


@lru_cache(maxsize=4096)
def _sounds_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def redact(value: Any) -> Any:
    """A copy of `value` in which secrets, at any depth and in URLs, read `******`; None and "" stay, they hide
    nothing."""
    if isinstance(value, (SecretStr, SecretBytes)):
        return MASK
    if isinstance(value, Mapping):
        return {
            key: MASK if item not in (None, "") and is_secret_key(str(key)) else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return _redact_url(value) if isinstance(value, str) else value


def redact_command(arguments: Iterable[str]) -> list[str]:
    """The arguments of a command, in which what follows a name that sounds secret reads `******` to the end of its
    argument: `--token T`, `--token=T`, `TOKEN=T`, `Token: T`. A secret that nothing names is not known as one."""
    shown: list[str] = []
    is_value = False
    for argument in arguments:
        shown.append(MASK if is_value else _redact_argument(argument))
        is_value = argument.startswith("-") and "=" not in argument and is_secret_key(argument.lstrip("-"))
    return shown


def _redact_argument(argument: str) -> str:
    for found in _IN_ARGUMENT.finditer(argument):
        if is_secret_key((found["name"] or found["option"]).lstrip("-")):
            return argument[: found.end()] + MASK
    return _redact_url(argument)


def redact_webhook(url: str) -> str:
    """The host of a URL that is a secret as a whole, as those of chats are; what follows reads `******`."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}/{MASK}" if url != f"{parts.scheme}://{host}" else url


def revealed(value: Any, *, at: str | None = None) -> Any:
    """`value` with what each `SecretStr` and `SecretBytes` in it, at any depth, holds: as JSON they would be
    asterisks. What holds none is returned as it is.

    Raises:
        InvalidRequest: with `at`, the field that `value` is, one stands under a name that nothing hides: it would
            be shown to everybody.
    """
    try:
        return value if _is_plain(value) else _revealed(value, at, is_hidden=False)
    except RecursionError:  # whoever makes JSON of it says that it is too deep
        return value


def _is_plain(value: Any) -> bool:
    """Whether `value` is made of JSON's own types, as nearly all params are: nothing in it is to be revealed."""
    kind = type(value)
    if kind is dict:
        return all(map(_is_plain, value.values()))
    if kind is list:
        return all(map(_is_plain, value))
    return kind in _PLAIN_TYPES


_PLAIN_TYPES = (str, int, float, bool, NoneType)


def _revealed(value: Any, at: str | None, *, is_hidden: bool) -> Any:
    if isinstance(value, (SecretStr, SecretBytes)):
        if at is not None and not is_hidden:
            raise InvalidRequest.of(
                at,
                Said(
                    "nothing hides a secret of this name; declare the field as SecretStr in the executor's"
                    " params_model, or give it a name such as api_key",
                    "这个名称的密文不会被遮盖；请在执行器的 params_model 里把该字段声明为 SecretStr，"
                    "或改用 api_key 这样的名称",
                ),
            )
        return value.get_secret_value()
    if isinstance(value, (list, tuple)):
        parts = [_revealed(part, at and f"{at}.{n}", is_hidden=is_hidden) for n, part in enumerate(value)]
        return value if all(new is old for new, old in zip(parts, value, strict=True)) else parts
    fields = _fields_of(value)
    if fields is None:
        return value
    found = {
        key: _revealed(item, at and f"{at}.{key}", is_hidden=is_hidden or is_secret_key(str(key)))
        for key, item in fields.items()
    }
    return value if all(found[key] is item for key, item in fields.items()) else found


def _fields_of(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields_of_dataclass(value)}
    return None


def redact_quotes(value: Any, source: Any) -> Any:
    """`value`, a text or JSON, in which every secret that `source` holds, at any depth, reads `******` wherever a
    text quotes it: what came of params must not carry them out."""
    quoted = _pattern_of(source)
    return value if quoted is None else _replace(value, quoted)


def redact_text(text: str, source: Any) -> str:
    """The same of one text."""
    hidden: str = redact_quotes(text, source)
    return hidden


def _replace(value: Any, quoted: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return quoted.sub(MASK, value)
    if isinstance(value, Mapping):
        return {key: _replace(item, quoted) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace(item, quoted) for item in value]
    return value


def _pattern_of(source: Any) -> re.Pattern[str] | None:
    secrets = sorted(set(_secrets_of(source)), key=len, reverse=True)
    if not secrets:
        return None
    return re.compile(
        "|".join(
            re.escape(secret) if len(secret) >= _WORD_LENGTH else rf"(?<!\w){re.escape(secret)}(?!\w)"
            for secret in secrets
        )
    )


def _secrets_of(value: Any) -> Iterator[str]:
    waiting = [(value, False)]  # no recursion: nobody has looked yet how deep it is, or whether it holds itself
    seen = set()
    while waiting:
        item, is_secret = waiting.pop()
        if isinstance(item, (Mapping, list, tuple)):
            if (id(item), is_secret) in seen:
                continue
            seen.add((id(item), is_secret))
            if isinstance(item, Mapping):
                waiting.extend((part, is_secret or is_secret_key(str(key))) for key, part in item.items())
            else:
                waiting.extend((part, is_secret) for part in item)
        elif is_secret and item not in (None, "") and not isinstance(item, bool):
            yield str(item)
        elif isinstance(item, str):
            yield from _secrets_in_url(item)


def _secrets_in_url(text: str) -> Iterator[str]:
    if "://" in text:
        yield from filter(None, map(_secret_of, _IN_URL.finditer(text)))


def _redact_url(text: str) -> str:
    def masked(found: re.Match[str]) -> str:
        secret = _secret_of(found)
        return found[0] if secret is None else found[0].removesuffix(secret) + MASK

    return _IN_URL.sub(masked, text) if "://" in text else text


def _secret_of(found: re.Match[str]) -> str | None:
    """What is secret in a part of a URL; it stands at its end."""
    if found["password"]:
        return found["password"]
    return found["value"] if is_secret_key(found["key"]) else None


def restore(value: Any, stored: Any) -> Any:
    """`value` as sent back by a client that had read it redacted: each mask becomes what is stored there."""
    if value == MASK and stored is not None:
        return stored
    if isinstance(value, str) and isinstance(stored, str):
        return stored if MASK in value and value == _redact_url(stored) else value
    if isinstance(value, Mapping) and isinstance(stored, Mapping):
        return {key: restore(item, stored.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(stored, list):
        padded = [*stored, *[None] * len(value)]
        return [restore(item, old) for item, old in zip(value, padded, strict=False)]
    return value


def refuse_lending(value: Any, stored: Any, *, elsewhere: bool = False) -> None:
    """Raises InvalidRequest where `value` keeps a secret of `stored` by its mask and changes something beside it,
    or goes to another executor (`elsewhere`): who may not read a secret could have it sent away so."""
    meant = restore(value, stored)
    if meant != value and (elsewhere or meant != stored):
        raise InvalidRequest.of(
            "params",
            Said(
                f"write the secrets that read {MASK} anew, or ask an admin: these params change beside them",
                f"这些参数旁边的内容有改动；请重新填写显示为 {MASK} 的密文，或请管理员修改",
            ),
        )


def _has_mask(value: Any) -> bool:
    waiting = [value]  # no recursion, see above
    seen = set()
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if item == MASK or MASK in _secrets_in_url(item):
                return True
        elif isinstance(item, (Mapping, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, Mapping) else item)
    return False


def refuse_masks(params: Any) -> None:
    """Raises InvalidRequest where a mask is left in `params`: nobody knows the secret it stands for. A text with
    asterisks in it is a text."""
    if _has_mask(params):
        raise InvalidRequest.of(
            "params",
            Said(f"{MASK} stands for a secret that is not stored here", f"{MASK} 代表的密文并未保存在这里"),
        )
