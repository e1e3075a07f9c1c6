from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretBytes, SecretStr

from app.core.errors import InvalidRequest
from app.core.redaction import (
    MASK,
    declare_secrets,
    is_secret_key,
    redact,
    redact_command,
    redact_quotes,
    redact_text,
    redact_webhook,
    refuse_lending,
    refuse_masks,
    restore,
    revealed,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["http://a/?token=t0k&n=1", "postgres://u:pass@h/db", f"http://a/?token={MASK}", "a://?b"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "password", "api_key", "n"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "PASSWORD",
        "db_passwd",
        "token",
        "access_token",
        "secret",
        "api_key",
        "apiKey",
        "Authorization",
        "smtpPass",
        "dbPwd",
        "db_pwd",
        "access_tokens",
        "signing_key",
        "connection_string",
        "auth",
        "数据库密码",
    ],
)
def test_secret_keys_are_known(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["topic", "account_id", "name", "compass", "max_tokens", "author", "keyboard", "pwdir", "bypass"]
)
def test_other_keys_are_left_alone(key: str) -> None:
    assert not is_secret_key(key)


def test_fields_that_a_model_declares_secret_are_hidden() -> None:
    class Inner(BaseModel):
        combination: SecretStr | None = None

    class Outer(BaseModel):
        inner: Inner
        label: str

    declare_secrets(Outer)
    assert redact({"inner": {"combination": "1-2-3"}, "label": "x"}) == {
        "inner": {"combination": MASK},
        "label": "x",
    }


@given(JSON)
def test_what_was_masked_and_sent_back_is_what_was_stored(value: Any) -> None:
    assert restore(redact(value), value) == value


@given(JSON)
def test_masking_twice_is_masking_once(value: Any) -> None:
    assert redact(redact(value)) == redact(value)


@given(JSON, st.text(max_size=20))
def test_no_secret_of_the_params_is_left_in_a_text(params: Any, text: str) -> None:
    quoted = redact_text(f"{text} {params}", {"secret": "hunter2", "params": params, "more": ["x", {"token": 7}]})
    assert redact_text("7 of 17", {"more": ["x", {"token": 7}]}) == f"{MASK} of 17"
    assert "hunter2" not in quoted


@pytest.mark.parametrize("value", [None, "", True, False])
def test_what_hides_nothing_leaves_a_text_as_it_is(value: Any) -> None:
    assert redact_text("None or True", {"password": value}) == "None or True"


def test_the_longest_secret_is_hidden_first() -> None:
    text = "abc and abcdef"
    assert redact_text(text, {"password": "abc", "token": "abcdef"}) == f"{MASK} and {MASK}"


def test_everything_below_a_secret_key_is_secret() -> None:
    assert redact_text("ada:t0p", {"credentials": {"user": "ada", "keys": ["t0p"]}}) == f"{MASK}:{MASK}"


def test_what_a_url_carries_is_hidden_too() -> None:
    url = "https://ada:pa55@example.org/x?page=2&api_key=hunter2#top"
    shown = f"https://ada:{MASK}@example.org/x?page=2&api_key={MASK}#top"
    assert redact({"url": url, "hosts": ["a:b@c", "see http://example.org/?q=1"]}) == {
        "url": shown,
        "hosts": ["a:b@c", "see http://example.org/?q=1"],
    }
    assert redact_text("GET hunter2 as pa55", {"url": url}) == f"GET {MASK} as {MASK}"
    refuse_masks({"text": f"{MASK} stars"})
    with pytest.raises(InvalidRequest):
        refuse_masks({"url": shown})


def test_what_quotes_a_secret_is_hidden_at_any_depth() -> None:
    assert redact_quotes({"said": ["no to hunter2"], "n": 1}, {"password": "hunter2"}) == {
        "said": [f"no to {MASK}"],
        "n": 1,
    }


@pytest.mark.parametrize(
    "sent",
    [
        {"url": "http://other/", "token": MASK},
        {"url": f"http://a/?key=1&token={MASK}", "token": "mine"},
        {"url": MASK, "token": "mine"},
    ],
)
def test_a_secret_that_is_kept_lends_itself_to_no_change(sent: dict[str, str]) -> None:
    stored = {"url": "http://a/?key=1&token=t0k", "token": "t0ken"}
    refuse_lending(redact(stored), stored)
    refuse_lending({"url": "http://other/", "token": "mine"}, stored)
    with pytest.raises(InvalidRequest, match="params"):
        refuse_lending(sent, stored)


def test_a_command_is_shown_without_what_follows_the_name_of_a_secret() -> None:
    plain = ["gen", "--model", "small", "-v", "a=b", "https://example.org/x?page=2", "token"]
    assert redact_command(plain) == plain
    assert redact_command(["gen", "--api-key", "-hunter2", "--token=hunter2", "--model", "m"]) == [
        *("gen", "--api-key", MASK, f"--token={MASK}", "--model", "m")
    ]
    for argument in (
        "API_KEY=hunter2",
        "Authorization: Bearer hunter2",
        "exec gen --password hunter2 --model m",
        "https://u:hunter2@example.org/x",
        "https://example.org/x?token=hunter2",
    ):
        (shown,) = redact_command([argument])
        assert "hunter2" not in shown
        assert MASK in shown


def test_of_a_webhook_its_host_is_shown() -> None:
    assert redact_webhook("https://a:b@hooks.example.org:8443/services/T0/S3CRET?x=1") == (
        f"https://hooks.example.org:8443/{MASK}"
    )
    assert redact_webhook("http://localhost:9000") == "http://localhost:9000"


def test_secrets_are_looked_for_at_any_depth() -> None:
    deep: Any = {"token": "hunter2"}
    for _ in range(5000):
        deep = [deep]
    assert redact_quotes("used hunter2", deep) == "used ******"


class Account(BaseModel):
    user: str
    password: SecretStr


def test_what_a_secret_type_holds_is_revealed_at_any_depth() -> None:
    given = {"password": SecretStr("a"), "deep": [{"token": SecretBytes(b"b")}], "keys": (1,)}
    assert revealed(given) == {"password": "a", "deep": [{"token": b"b"}], "keys": (1,)}
    assert revealed({"as": Account(user="ada", password=SecretStr("c"))}) == {
        "as": {"user": "ada", "password": "c"}
    }
    plain = {"n": [1, {"x": None}]}
    assert revealed(plain) is plain


def test_a_secret_that_nothing_would_hide_is_refused_by_its_field() -> None:
    assert revealed({"api_key": [SecretStr("a")]}, at="params") == {"api_key": ["a"]}
    with pytest.raises(InvalidRequest) as refused:
        revealed({"deep": [{"colour": SecretStr("hunter2")}]}, at="params")
    (error,) = refused.value.errors
    assert error.field == "params.deep.0.colour"
    assert "hunter2" not in str(refused.value)
