"""Who may ask, and how an attacker is turned away. Nothing reaches a handler unsigned."""

from __future__ import annotations

import json
import secrets

import httpx2
import pytest
from conftest import KEY, Demo, Service, http

from switchboard_fastmcp.failures import Failure
from switchboard_fastmcp.settings import Secret
from switchboard_fastmcp.signatures import SKEW_SECONDS, Doorkeeper, request_signature, response_proof

pytestmark = pytest.mark.anyio

PATHS = ["/mcp/connect", "/mcp/list_tools", "/mcp/call_tool", "/mcp/disconnect"]
BODY = json.dumps({"client_id": "nobody"}).encode()


async def send(service: Service, path: str, body: bytes, headers: dict[str, str]) -> httpx2.Response:
    async with http() as client:
        return await client.post(service.url + path, content=body, headers=headers)


def refused(response: httpx2.Response) -> bool:
    error = response.json()["error"]
    return response.status_code == 401 and error == {
        "code": "unauthenticated",
        "message": "the request is not authenticated",
    }


async def test_a_signed_request_is_admitted(service: Service) -> None:
    response = await service.post("/mcp/disconnect", BODY)
    assert response.json() == {"disconnected": False}


@pytest.mark.parametrize("path", PATHS)
async def test_an_unsigned_request_is_refused(service: Service, path: str) -> None:
    assert refused(await send(service, path, BODY, {"content-type": "application/json"}))


@pytest.mark.parametrize("missing", ["time", "nonce", "signature"])
async def test_each_credential_is_required(service: Service, missing: str) -> None:
    headers = service.headers("/mcp/disconnect", BODY)
    del headers[f"x-switchboard-{missing}"]
    assert refused(await send(service, "/mcp/disconnect", BODY, headers))


async def test_a_replayed_request_is_refused(service: Service) -> None:
    headers = service.headers("/mcp/disconnect", BODY)
    assert (await send(service, "/mcp/disconnect", BODY, headers)).status_code == 200
    assert refused(await send(service, "/mcp/disconnect", BODY, headers))


@pytest.mark.parametrize("skew_seconds", [-SKEW_SECONDS - 5, SKEW_SECONDS + 5])
async def test_a_request_of_another_time_is_refused(service: Service, skew_seconds: int) -> None:
    assert refused(await service.post("/mcp/disconnect", BODY, skew_seconds=skew_seconds))


async def test_a_request_signed_with_another_key_is_refused(service: Service) -> None:
    assert refused(await service.post("/mcp/disconnect", BODY, key="x" * 40))


async def test_a_changed_body_path_method_or_time_breaks_the_signature(service: Service) -> None:
    headers = service.headers("/mcp/disconnect", BODY)
    assert refused(await send(service, "/mcp/disconnect", BODY + b" ", headers))
    assert refused(await send(service, "/mcp/connect", BODY, headers))
    later = headers | {"x-switchboard-time": str(int(headers["x-switchboard-time"]) + 1)}
    assert refused(await send(service, "/mcp/disconnect", BODY, later))
    async with http() as client:
        response = await client.request("PUT", service.url + "/mcp/disconnect", content=BODY, headers=headers)
    assert refused(response)
    # Being refused did not use the nonce up.
    assert (await send(service, "/mcp/disconnect", BODY, headers)).status_code == 200


@pytest.mark.parametrize("nonce", ["", "short", "G" * 32, "A" * 32, "0" * 33, "\uff10" * 32])
async def test_a_malformed_nonce_is_refused_and_not_proved(service: Service, nonce: str) -> None:
    headers = service.headers("/mcp/disconnect", BODY, nonce=nonce)
    raw = {k: v.encode() for k, v in headers.items()}
    response = await send(service, "/mcp/disconnect", BODY, raw)
    assert refused(response)
    assert "x-switchboard-proof" not in response.headers


async def test_the_service_proves_itself_on_health_too(service: Service) -> None:
    nonce = secrets.token_hex(16)
    async with http() as client:
        proved = await client.get(service.url + "/health", headers={"x-switchboard-nonce": nonce})
        plain = await client.get(service.url + "/health")
    assert proved.headers["x-switchboard-proof"] == response_proof(Secret(KEY.encode()), nonce, 200)
    assert "x-switchboard-proof" not in plain.headers
    assert plain.json()["status"] == "ok"
    assert plain.json()["mode"] == "http"


async def test_the_signature_is_the_documented_one() -> None:
    # Computed by hand with `openssl dgst -sha256 -hmac`; the worker's tests hold the same vector.
    signature = request_signature(
        Secret(b"0123456789abcdef0123456789abcdef"),
        "POST",
        "/mcp/connect",
        "1700000000",
        "00112233445566778899aabbccddeeff",
        b"{}",
    )
    proof = response_proof(
        Secret(b"0123456789abcdef0123456789abcdef"), "00112233445566778899aabbccddeeff", 200
    )
    assert signature == "8fa7b7be785b3ae5978de2485013c0e813f865dc16440186af8f827d955b7fab"
    assert proof == "1f53eb17170311877aeb4d8c9dbe03528c11c4ebf8c187daa289eec01ac1c3e7"


def test_the_memory_of_nonces_is_bounded_and_forgets_what_is_too_old() -> None:
    now = 1_700_000_000.0
    doorkeeper = Doorkeeper(Secret(KEY.encode()), clock=lambda: now)

    def knock(nonce: str) -> None:
        stamp = str(int(now))
        signature = request_signature(Secret(KEY.encode()), "POST", "/", stamp, nonce, b"")
        headers = {"x-switchboard-nonce": nonce, "x-switchboard-time": stamp}
        headers["x-switchboard-signature"] = signature
        doorkeeper.precheck(headers)
        doorkeeper.admit("POST", "/", headers, b"")

    knock("0" * 32)
    now += 2 * SKEW_SECONDS
    with pytest.raises(Failure, match="unauthenticated"):
        knock("0" * 32)
    now += 2
    knock("1" * 32)
    assert list(doorkeeper._seen) == ["1" * 32]


async def test_a_body_over_two_mebibytes_is_refused_before_it_is_parsed(service: Service) -> None:
    response = await service.post("/mcp/connect", b" " * (2 * 1024 * 1024 + 1))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "invalid"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"client_id": ""}, "client_id"),
        ({"client_id": "with space"}, "client_id"),
        ({"surprise": 1}, "surprise"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": "5"}, "timeout_ms"),
        ({"tool": ""}, "tool"),
        ({"arguments": []}, "arguments"),
        ({"specification": {"transport": "carrier pigeon"}}, "specification.transport"),
        ({"specification": {"transport": "http"}}, "specification.url"),
        ({"specification": {"transport": "http", "url": "ftp://x/"}}, "specification.url"),
        ({"specification": {"transport": "http", "url": "http://u:p@x/"}}, "specification.url"),
        ({"specification": {"transport": "http", "url": "http://x/\n"}}, "specification.url"),
        ({"specification": {"transport": "http", "url": "http://0177.0.0.1/"}}, "specification.url"),
        ({"specification": {"transport": "stdio", "catalogue": "sh"}}, "specification.transport"),
        ({"specification": {"transport": "http", "url": "http://x/", "more": 1}}, "specification.more"),
        (
            {"specification": {"transport": "http", "url": "http://x/", "headers": {"Host": "y"}}},
            "specification.headers",
        ),
        (
            {"specification": {"transport": "http", "url": "http://x/", "headers": {"a": "b\r\nc: d"}}},
            "specification.headers",
        ),
        (
            {"specification": {"transport": "http", "url": "http://x/", "auth": {"type": "bearer"}}},
            "specification.auth",
        ),
    ],
)
async def test_what_is_not_asked_for_properly_is_refused_with_its_field(
    service: Service, demo_http: Demo, change: dict, field: str
) -> None:
    content = {"client_id": "a", "specification": demo_http.specification, "tool": "echo"}
    response = await service.post("/mcp/call_tool", content | change)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "invalid"
    assert response.json()["error"]["message"].startswith(field)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[" * 100_000,
        b"null",
        b'{"client_id": "a", "tool": "echo", "arguments": {"x": NaN}, "specification": SPEC}',
        b'{"client_id": "a", "tool": "echo", "arguments": {"x": "\\ud800"}, "specification": SPEC}',
        b'{"client_id": "a", "tool": "echo", "arguments": DEEP, "specification": SPEC}',
    ],
)
async def test_a_body_that_no_server_could_be_sent_is_invalid(
    service: Service, demo_http: Demo, body: bytes
) -> None:
    spec = json.dumps(demo_http.specification).encode()
    body = body.replace(b"SPEC", spec).replace(b"DEEP", b'{"a":' * 300 + b"1" + b"}" * 300)
    response = await service.post("/mcp/call_tool", body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["code"] == "invalid"


async def test_unknown_endpoints_and_methods_answer_in_the_same_shape(service: Service) -> None:
    assert (await service.post("/mcp/other", b"{}")).status_code == 404
    assert (await service.post("/mcp/connect/", b"{}")).status_code == 404
    async with http() as client:
        for method, path, status in [
            ("GET", "/", 401),
            ("POST", "/health", 405),
            ("GET", "/mcp/connect", 401),
        ]:
            response = await client.request(method, service.url + path)
            assert response.status_code == status
            assert set(response.json()["error"]) == {"code", "message"}
