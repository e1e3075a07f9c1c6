"""`http_request`, and the guard every outgoing request passes."""

from __future__ import annotations

import asyncio
import json
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from app.core.config import Settings
from app.executors import outbound
from app.executors.http_request import BODY_LIMIT_BYTES, HttpRequestExecutor, HttpRequestParams
from app.executors.outbound import AddressRefused, GuardedTransport, is_public
from app.services.scheduler_service import SchedulerService, TaskExecutionResult
from tests.integration.local_web import Answer, LocalWeb

NOT_PUBLIC = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
]
NOT_PUBLIC_6 = [
    *("::/128", "::1/128", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32", "100::/64"),
    *("2002::/16", "2001::/32", "64:ff9b:1::/48", "::ffff:10.0.0.0/104"),
]


def run(params: dict[str, Any], *, allow_private: bool = True) -> TaskExecutionResult:
    """Run `http_request` as the service does; it does not touch the Session."""
    service = SchedulerService()
    service.register_executor(HttpRequestExecutor(Settings(_env_file=None, http_allow_private=allow_private)))
    return asyncio.run(service.execute_task(1, "http_request", params, Session()))


class TestRequest:
    def test_an_answer_with_status_2xx_is_a_success_with_status_headers_and_body(self, web: LocalWeb) -> None:
        url = web.answer("/ok", Answer(b"fine", headers={"Content-Type": "text/plain", "Set-Cookie": "id=1"}))

        result = run({"url": url})

        assert result.success
        assert result.data is not None
        assert result.data["status"] == 200
        assert result.data["body"] == "fine"
        assert result.data["headers"]["content-type"] == "text/plain"
        assert "set-cookie" not in result.data["headers"]

    def test_method_headers_and_json_arrive(self, web: LocalWeb) -> None:
        url = web.answer("/orders", Answer(status=201))

        result = run({"url": url, "method": "PUT", "headers": {"X-Team": "red"}, "json": {"名": [1, None]}})

        assert result.success
        [received] = web.received
        assert received.method == "PUT"
        assert received.headers["x-team"] == "red"
        assert received.headers["content-type"] == "application/json"
        assert json.loads(received.body) == {"名": [1, None]}

    def test_another_status_than_expected_is_a_failure_that_still_shows_the_answer(self, web: LocalWeb) -> None:
        result = run({"url": web.answer("/broken", Answer(b"oops", 500))})

        assert not result.success
        assert result.error == "UnexpectedStatus: 500, expected 2xx"
        assert result.data is not None
        assert result.data["body"] == "oops"

    @pytest.mark.parametrize(("status", "asked"), [(503, 120.0), (429, 120.0), (500, None)])
    def test_a_busy_endpoint_is_left_alone_as_long_as_it_asks(
        self, web: LocalWeb, status: int, asked: float | None
    ) -> None:
        url = web.answer("/busy", Answer(status=status, headers={"Retry-After": "120"}))

        assert run({"url": url}).metadata.get("retry_after_seconds") == asked

    def test_an_expected_status_outside_2xx_is_a_success(self, web: LocalWeb) -> None:
        assert run({"url": web.answer("/gone", Answer(status=410)), "expected_status": [404, 410]}).success

    def test_the_body_is_kept_up_to_64_kib(self, web: LocalWeb) -> None:
        result = run({"url": web.answer("/large", Answer(b"x" * (BODY_LIMIT_BYTES + 1)))})

        assert result.data is not None
        assert len(result.data["body"]) == BODY_LIMIT_BYTES
        assert result.data["body_truncated"]

    @pytest.mark.parametrize("charset", ["hex", "no-such-charset", "utf-8"])
    def test_a_body_that_is_not_in_the_charset_it_claims_is_still_text(self, web: LocalWeb, charset: str) -> None:
        headers = {"Content-Type": f"text/plain; charset={charset}"}

        result = run({"url": web.answer("/odd", Answer(b"ok \xff", headers=headers))})

        assert result.success
        assert result.data is not None
        assert result.data["body"].startswith("ok ")

    def test_an_endpoint_that_is_too_slow_is_a_failure_that_says_so(self, web: LocalWeb) -> None:
        result = run({"url": web.answer("/slow", Answer(delay_seconds=30)), "timeout_seconds": 0.2})

        assert result.error == "TimeoutError: no complete answer from 127.0.0.1 within 0.2 s"

    def test_a_refused_connection_is_a_failure(self, web: LocalWeb) -> None:
        with LocalWeb().serving() as closed:
            url = closed.url("/")

        result = run({"url": url})

        assert result.error is not None
        assert result.error.startswith("ConnectError")

    def test_redirects_are_followed_and_counted(self, web: LocalWeb) -> None:
        web.answer("/there", Answer(b"arrived"))
        moved = web.answer("/here", Answer(status=302, headers={"Location": "/there"}))
        circle = web.answer("/circle", Answer(status=302, headers={"Location": "/circle"}))

        arrived, lost = run({"url": moved}), run({"url": circle})
        stayed = run({"url": moved, "follow_redirects": False, "expected_status": [302]})

        assert arrived.data is not None
        assert arrived.data["body"] == "arrived"
        assert lost.error == "TooManyRedirects: more than 5 redirects"
        assert stayed.success


class TestSecrets:
    def test_a_secret_that_the_endpoint_echoes_is_masked_in_the_result(self, web: LocalWeb) -> None:
        url = web.answer("/echo", Answer(b'{"you sent": "Bearer s3cr3t-value"}'))

        result = run({"url": f"{url}?token=in-the-query", "headers": {"Authorization": "Bearer s3cr3t-value"}})

        assert web.received[0].headers["authorization"] == "Bearer s3cr3t-value"
        assert "s3cr3t-value" not in json.dumps(result.to_dict())
        assert "in-the-query" not in json.dumps(result.to_dict())

    def test_secret_headers_do_not_follow_a_redirect_to_another_origin(self, web: LocalWeb) -> None:
        with LocalWeb().serving() as elsewhere:
            elsewhere.answer("/", Answer())
            url = web.answer("/", Answer(status=307, headers={"Location": elsewhere.url("/")}))

            run(
                {"url": url, "headers": {"X-Api-Key": "k", "Cookie": "c=1", "Authorization": "t", "X-Team": "red"}}
            )

        received = elsewhere.received[0].headers
        assert not {"x-api-key", "cookie", "authorization"} & received.keys()
        assert received["x-team"] == "red"


class TestParams:
    @pytest.mark.parametrize(
        ("params", "field"),
        [
            ({}, "params.url"),
            ({"url": "file:///etc/passwd"}, "params.url"),
            ({"url": "//example.com/"}, "params.url"),
            ({"url": "http://"}, "params.url"),
            ({"url": "http://[::1/"}, "params.url"),
            ({"url": "http://user:pass@example.com/"}, "params.url"),
            ({"url": "http://example.com/", "method": "TRACE"}, "params.method"),
            ({"url": "http://example.com/", "headers": {"X": "a\r\nY: b"}}, "params.headers.X"),
            ({"url": "http://example.com/", "headers": {"Host": "internal"}}, "params.headers"),
            ({"url": "http://example.com/", "expected_status": []}, "params.expected_status"),
            ({"url": "http://example.com/", "timeout_seconds": float("inf")}, "params.timeout_seconds"),
            ({"url": "http://example.com/", "body": "a", "json": {}}, "params"),
            ({"url": "http://example.com/", "retries": 3}, "params.retries"),
        ],
    )
    def test_wrong_params_are_refused_with_the_field_named(self, params: dict[str, Any], field: str) -> None:
        result = run(params)

        assert result.error == "InvalidParameters"
        assert [error["field"] for error in result.metadata["errors"]] == [field]

    def test_the_published_schema_names_the_fields_as_the_params_do(self) -> None:
        assert {"url", "json", "timeout_seconds"} <= HttpRequestParams.model_json_schema()["properties"].keys()


def spellings(address: IPv4Address) -> list[str]:
    """One IPv4 address in the ways resolvers read it."""
    number = int(address)
    first = number >> 24
    return [
        str(address),
        str(number),
        hex(number),
        f"0{first:o}.{number & 0xFFFFFF}",
        f"0x{first:x}.0x{number & 0xFFFFFF:x}",
        f"{first}.{number & 0xFFFFFF}",
        f"[::ffff:{address}]",
        f"[64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}]",
    ]


class Reached(Exception):
    """A request got through the guard."""


class OpenDoor(httpx.AsyncBaseTransport):
    """Stands where the network would be; tells which address would have been connected to."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise Reached(request.url.host)


async def knock(url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
    async with httpx.AsyncClient(transport=transport or GuardedTransport(OpenDoor())) as client:
        await client.get(url)


class TestGuard:
    @pytest.mark.parametrize("network", [*NOT_PUBLIC, *NOT_PUBLIC_6])
    def test_no_special_purpose_network_is_public(self, network: str) -> None:
        parsed = ip_network(network)

        @settings(max_examples=30, database=None)
        @given(st.ip_addresses(network=network))
        def check(address: IPv4Address | IPv6Address) -> None:
            assert not is_public(address)

        check()
        assert not is_public(parsed[0])
        assert not is_public(parsed[-1])

    @pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
    def test_an_ordinary_address_is_public(self, address: str) -> None:
        assert is_public(ip_address(address))

    @given(st.ip_addresses())
    def test_an_ipv4_address_inside_an_ipv6_one_is_judged_alike(self, address: IPv4Address | IPv6Address) -> None:
        if isinstance(address, IPv4Address):
            assert is_public(IPv6Address(f"::ffff:{address}")) == is_public(address)
            assert is_public(IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))) == is_public(address)
        elif is_public(address):
            assert not address.is_private

    @settings(max_examples=25, deadline=None)
    @given(st.sampled_from(NOT_PUBLIC).flatmap(lambda network: st.ip_addresses(v=4, network=network)))
    def test_no_spelling_of_a_private_address_gets_through(self, address: IPv4Address) -> None:
        for host in spellings(address):
            with pytest.raises(AddressRefused):
                asyncio.run(knock(f"http://{host}/"))

    @pytest.mark.parametrize("host", spellings(IPv4Address("93.184.216.34")))
    async def test_a_public_address_gets_through_in_every_spelling(self, host: str) -> None:
        with pytest.raises(Reached):
            await knock(f"http://{host}/")

    async def test_an_octal_dotted_quad_is_refused_as_ambiguous(self) -> None:
        with pytest.raises(httpx.InvalidURL):
            await knock("http://0177.0.0.1/")

    async def test_a_name_that_resolves_to_loopback_is_refused(self) -> None:
        with pytest.raises(AddressRefused, match="localhost"):
            await knock("http://localhost/")

    async def test_one_private_address_among_several_refuses_the_name(self) -> None:
        async def mixed(host: str, port: int) -> list[str]:
            return ["93.184.216.34", "10.0.0.1"]

        with pytest.raises(AddressRefused, match=r"mixed\.example \(10\.0\.0\.1\)"):
            await knock("http://mixed.example/", GuardedTransport(OpenDoor(), mixed))

    async def test_the_connection_goes_to_the_checked_address_though_the_name_has_moved_since(self) -> None:
        lookups: list[str] = []
        seen: list[httpx.Request] = []

        class Recorder(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                seen.append(request)
                return httpx.Response(200)

        async def rebinding(host: str, port: int) -> list[str]:
            lookups.append(host)
            return ["93.184.216.34"] if len(lookups) == 1 else ["127.0.0.1"]

        transport = GuardedTransport(Recorder(), rebinding)
        async with httpx.AsyncClient(transport=transport) as client:
            await client.get("https://moving.example/path?q=1")
            with pytest.raises(AddressRefused):
                await client.get("https://moving.example/path?q=1")

        [request] = seen
        assert str(request.url) == "https://93.184.216.34/path?q=1"
        assert request.headers["Host"] == "moving.example"
        assert request.extensions["sni_hostname"] == "moving.example"

    async def test_the_next_address_is_tried_when_one_does_not_answer(self) -> None:
        tried: list[str] = []

        class HalfDead(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                tried.append(request.url.host)
                if len(tried) == 1:
                    raise httpx.ConnectError("refused")
                return httpx.Response(200)

        async def two(host: str, port: int) -> list[str]:
            return ["2606:4700::1111", "1.1.1.1"]

        await knock("http://two.example/", GuardedTransport(HalfDead(), two))

        assert tried == ["2606:4700::1111", "1.1.1.1"]

    async def test_another_scheme_than_http_is_refused(self) -> None:
        with pytest.raises(httpx.UnsupportedProtocol):
            await knock("ftp://93.184.216.34/")

    def test_a_request_to_this_machine_is_refused_before_it_leaves(self, web: LocalWeb) -> None:
        result = run({"url": web.answer("/", Answer())}, allow_private=False)

        assert result.error is not None
        assert result.error.startswith("AddressRefused: 127.0.0.1 is not a public address")
        assert not web.received

    def test_a_redirect_to_a_private_address_is_refused_at_that_hop(
        self, web: LocalWeb, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # For this test 127.0.0.1 is the public internet, and 127.0.0.2 is not.
        monkeypatch.setattr(outbound, "is_public", lambda address: str(address) == "127.0.0.1")
        web.answer("/inside", Answer(b"internal"))
        outside = web.answer("/", Answer(status=302, headers={"Location": web.url("/inside", "127.0.0.2")}))

        result = run({"url": outside}, allow_private=False)

        assert result.error is not None
        assert result.error.startswith("AddressRefused: 127.0.0.2")
        assert [received.path for received in web.received] == ["/"]

    def test_a_proxy_of_the_environment_is_not_a_way_around_the_guard(
        self, web: LocalWeb, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", web.url("/"))

        result = run({"url": "http://127.0.0.9/"}, allow_private=False)

        assert result.error is not None
        assert result.error.startswith("AddressRefused")
        assert not web.received
