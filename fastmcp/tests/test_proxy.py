"""Everything a client sends goes through the proxy of its specification."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import httpx2
import pytest
from conftest import Demo, Peer, Service, http_response, listening

from switchboard_fastmcp.failures import Failure
from switchboard_fastmcp.guard import Guard

pytestmark = pytest.mark.anyio


class Proxy:
    """A forward proxy for http (absolute form) and https (CONNECT) that writes down what it is asked."""

    def __init__(self, allowed: bool = True) -> None:
        self.allowed = allowed
        self.asked: list[str] = []
        self.authorizations: set[str] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *headers = head.split("\r\n")
        method, target, _ = line.split()
        self.asked.append(f"{method} {target}")
        named = {h.partition(":")[0].lower(): h.partition(":")[2].strip() for h in headers}
        self.authorizations.add(named.get("proxy-authorization", ""))
        if not self.allowed or method == "CONNECT":
            refusal = "proxy-status: egress; error=destination_ip_prohibited"
            writer.write(http_response(403, b"no", "text/plain", refusal))
            await writer.drain()
            return
        url = urlsplit(target)
        upstream_reader, upstream = await asyncio.open_connection(url.hostname, url.port)
        path = url.path + (f"?{url.query}" if url.query else "")
        kept = [h for h in headers if h and not h.lower().startswith(("proxy-", "connection"))]
        # One exchange per connection keeps this proxy small; every request is then counted.
        upstream.write(
            "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "connection: close", "", ""]).encode()
        )
        try:
            await asyncio.gather(_pump(reader, upstream), _pump(upstream_reader, writer, last=True))
        finally:
            upstream.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, last: bool = False) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    if last:
        writer.close()


@contextlib.asynccontextmanager
async def proxying(proxy: Proxy) -> AsyncIterator[tuple[Peer, str]]:
    async with listening(proxy) as peer:
        yield peer, f"http://worker:pass%20word@127.0.0.1:{peer.port}"


async def test_all_traffic_of_a_client_goes_through_its_proxy(service: Service, demo: Demo) -> None:
    proxy = Proxy()
    async with proxying(proxy) as (_, url):
        spec = demo.specification | {"proxy": url}
        client_id = f"proxied-{demo.url}"
        response = await service.call(spec, "echo", client_id=client_id, arguments={"text": "x"})
        assert response.status_code == 200, response.text
        await service.post("/mcp/disconnect", {"client_id": client_id})
    origin = demo.url.rsplit("/", 1)[0]
    assert len(proxy.asked) >= 2
    assert all(asked.split()[1].startswith(origin) for asked in proxy.asked)
    assert proxy.authorizations == {"Basic " + base64.b64encode(b"worker:pass word").decode()}
    assert "pass" not in service.log.read_text().replace("passed", "")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_what_the_proxy_refuses_is_unreachable(service: Service, scheme: str, transport: str) -> None:
    proxy = Proxy(allowed=False)
    async with proxying(proxy) as (_, url):
        spec = {"transport": transport, "url": f"{scheme}://127.0.0.1:9/mcp", "proxy": url}
        response = await service.call(spec, "x", client_id=f"refused-{scheme}-{transport}")
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "unreachable"
    assert proxy.asked[0].split()[0] == ("CONNECT" if scheme == "https" else proxy.asked[0].split()[0])


@pytest.mark.parametrize(
    ("scheme", "status", "code"),
    [
        ("http", 403, "unreachable"),
        ("https", 403, "unauthorized"),
        ("https", 401, "unauthorized"),
        ("https", 500, "protocol"),
    ],
)
async def test_within_tls_nobody_but_the_server_speaks(scheme: str, status: int, code: str) -> None:
    # Servers behind a delivery network send Proxy-Status of their own.
    answer = httpx2.Response(status, headers={"proxy-status": "edge; error=http_request_denied"})
    guard = Guard(httpx2.MockTransport(lambda _: answer), 1024)
    request = httpx2.Request("POST", f"{scheme}://server.example/mcp", content=b"{}")
    with pytest.raises(Failure) as failed:
        await guard.handle_async_request(request)
    assert failed.value.code == code


async def test_a_proxy_that_is_down_means_unreachable_and_no_detour(service: Service, demo: Demo) -> None:
    before = (await demo.state())["connections"]
    spec = demo.specification | {"proxy": "http://u:p@127.0.0.1:9"}
    response = await service.call(spec, "echo", client_id=f"no-proxy-{demo.url}")
    assert response.json()["error"]["code"] == "unreachable"
    assert (await demo.state())["connections"] == before


async def test_without_a_proxy_a_specification_is_refused_unless_the_operator_allows_it(
    start_service: Callable[..., Service], demo_http: Demo
) -> None:
    service = start_service(FASTMCP_REQUIRE_PROXY="1")
    response = await service.call(demo_http.specification, "echo")
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "specification.proxy: is required"


async def test_proxies_of_the_environment_are_ignored(
    start_service: Callable[..., Service], demo_http: Demo
) -> None:
    service = start_service(HTTP_PROXY="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9")
    response = await service.call(demo_http.specification, "echo", arguments={"text": "x"})
    assert response.status_code == 200
