"""The only way out to an upstream over HTTP: every request of every client passes this transport.

It turns what can go wrong into a `Failure` at the point where it is still known what happened
(nothing sent, refused, cut off), refuses redirects to another origin, and bounds what is read.
The MCP library lets an exception of one request take the whole session down with all its other
calls; `Answering` therefore hands failures to it as JSON-RPC errors that only we can mint.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx2

from .failures import Failure, SessionLost, minted
from .shapes import Specification

CALL_HEADER = "x-switchboard-call"
"""Names a call between session and guard; taken off before anything is sent."""

CONNECT_SECONDS = 10.0
NOTIFICATION_SECONDS = 5.0
READ_SECONDS = 630.0
"""Longer than the longest call: a backstop for servers that ignore a cancellation."""

_LIMITS = httpx2.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=4.0)
_ERROR_BODY_BYTES = 64 * 1024
_REQUEST_PREFIX = b'{"jsonrpc":"2.0","id":'
_FULL_STOP = b'\n\ndata: {"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"given up"}}\n\n'


class Guard(httpx2.AsyncBaseTransport):
    """A transport that raises `Failure` instead of the HTTP library's errors."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, max_body_bytes: int) -> None:
        self._inner = inner
        self._max_body_bytes = max_body_bytes
        self.heard_at = time.monotonic()
        """When an event stream last brought a byte (monotonic seconds)."""
        self._open: dict[str, anyio.CancelScope | _Bounded] = {}

    async def abandon(self, call: str) -> None:
        """End the exchange of a call that nobody waits for, in whatever phase it is."""
        exchange = self._open.pop(call, None)
        if isinstance(exchange, anyio.CancelScope):
            exchange.cancel()
        elif exchange is not None:
            await exchange.cut()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        call = request.headers.pop(CALL_HEADER, "")
        if not call:
            return await self._exchange(request, call)
        scope = self._open[call] = anyio.CancelScope()
        try:
            with scope:
                return await self._exchange(request, call)
        finally:
            if self._open.get(call) is scope:
                del self._open[call]
        raise Failure("timeout", "the call was given up")

    async def _exchange(self, request: httpx2.Request, call: str) -> httpx2.Response:
        # Encoded bodies are a way to make us unpack gigabytes; nobody needs them here.
        request.headers["accept-encoding"] = "identity"
        if request.method == "POST" and not _is_call(request):
            timeout = request.extensions.get("timeout", {})
            request.extensions["timeout"] = {**timeout, "read": NOTIFICATION_SECONDS}
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx2.TransportError, ssl.SSLError, OSError) as error:
            raise _not_answered(error) from error
        try:
            await self._inspect(request, response)
        except BaseException:
            await response.aclose()
            raise
        # An event stream lives as long as its client; its single events are bounded by the parser.
        endless = _media_type(response) == "text/event-stream"
        body = _Bounded(response.stream, self, None if endless else self._max_body_bytes, call)
        response.stream = body
        if call:
            self._open[call] = body
        return response

    def closed(self, call: str) -> None:
        """The exchange of this call is over."""
        self._open.pop(call, None)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _inspect(self, request: httpx2.Request, response: httpx2.Response) -> None:
        """Raise if the response's head alone decides the matter."""
        status = response.status_code
        # Within TLS only the server speaks: the proxy's own refusal came before, as a failed CONNECT.
        of_proxy = request.url.scheme == "http" and (status == 407 or "proxy-status" in response.headers)
        if of_proxy and status >= 400:
            # RFC 9209: the answer comes from the egress proxy; the server was never reached.
            raise Failure("unreachable", "the server may not be reached", cause=f"proxy: HTTP {status}")
        if status in (401, 403):
            raise Failure("unauthorized", "the server refused the credentials", cause=f"HTTP {status}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise Failure("protocol", "the server sent an encoded body unasked")
        if 300 <= status < 400 and not _same_origin(request, response):
            raise Failure("protocol", "the server redirects to another origin", cause=f"HTTP {status}")
        if 300 <= status < 400 and request.method == "POST" and status not in (307, 308):
            raise Failure("protocol", "the server redirects and drops the message", cause=f"HTTP {status}")
        if request.method == "POST" and status == 404 and "mcp-session-id" in request.headers:
            raise SessionLost("HTTP 404")
        if status >= 400 and request.method == "POST":
            await self._inspect_error(request, response)
        elif 200 <= status < 300 and _is_call(request) and not self._speaks(response):
            raise Failure("protocol", "the server did not answer with MCP", cause=f"HTTP {status}")

    def _speaks(self, response: httpx2.Response) -> bool:
        """Whether a 2xx response to a JSON-RPC request has a form that MCP allows."""
        return response.status_code != 202 and _media_type(response) in _MCP_TYPES

    async def _inspect_error(self, request: httpx2.Request, response: httpx2.Response) -> None:
        """A refusal may carry a JSON-RPC error (the caller's to see); anything else is noise."""
        body = b""
        if _media_type(response) == "application/json":
            async for chunk in _Bounded(response.stream, self, _ERROR_BODY_BYTES):
                body += chunk
        code = _jsonrpc_error_code(body)
        if code is None:
            raise Failure("protocol", "the server failed", cause=f"HTTP {response.status_code}")
        if response.status_code == 400 and code == -32000 and "mcp-session-id" in request.headers:
            # What the TypeScript SDK's servers say where the specification asks for 404.
            raise SessionLost("HTTP 400, JSON-RPC error -32000")
        await response.stream.aclose()
        response.stream = httpx2.ByteStream(body)


class Answering(Guard):
    """For the library's streamable HTTP client: failures of a POST come back as a response."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await super().handle_async_request(request)
        except Failure as failure:
            if request.method != "POST":
                # GET and DELETE: the library treats their failure as a stream that is not there.
                raise httpx2.RemoteProtocolError(failure.message) from failure
            return httpx2.Response(502, json={"jsonrpc": "2.0", "id": None, "error": minted(failure)})


class SseGuard(Guard):
    """For our own client of the legacy transport, which answers POSTs with a bare 202."""

    def _speaks(self, response: httpx2.Response) -> bool:
        return True

    async def _inspect_error(self, request: httpx2.Request, response: httpx2.Response) -> None:
        if response.status_code == 404:
            raise SessionLost("HTTP 404")
        raise Failure("protocol", "the server failed", cause=f"HTTP {response.status_code}")


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends early rather than raising: a torn message fails to parse, and only it."""

    def __init__(self, inner: Any, guard: Guard, limit: int | None, call: str = "") -> None:
        self._inner = inner
        self._guard = guard
        self._limit = limit
        self._call = call
        self._cut = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        taken = 0
        try:
            async for chunk in self._inner:
                if self._limit is None:
                    self._guard.heard_at = time.monotonic()
                taken += len(chunk)
                if self._limit is not None and taken > self._limit:
                    return
                yield chunk
        except (httpx2.TransportError, OSError):
            pass
        if self._cut and self._limit is None:
            # Or the library would try to resume the stream of a call that nobody waits for.
            yield _FULL_STOP

    async def cut(self) -> None:
        """Close the connection under whoever reads this."""
        self._cut = True
        await self._inner.aclose()

    async def aclose(self) -> None:
        self._guard.closed(self._call)
        await self._inner.aclose()


def http_client(guard: Guard, headers: dict[str, str] | None, auth: Any) -> httpx2.AsyncClient:
    """The HTTP client of one MCP client: nothing from the process environment, no redirects."""
    return httpx2.AsyncClient(
        transport=guard,
        headers=headers,
        auth=auth,
        timeout=httpx2.Timeout(CONNECT_SECONDS, read=READ_SECONDS),
        follow_redirects=False,
        trust_env=False,
    )


def outward(specification: Specification, tls: ssl.SSLContext) -> httpx2.AsyncHTTPTransport:
    """Connections to the upstream, through the specification's proxy if it names one."""
    proxy = specification.proxy.get_secret_value() if specification.proxy else None
    return httpx2.AsyncHTTPTransport(verify=tls, trust_env=False, limits=_LIMITS, proxy=proxy)


_MCP_TYPES = ("application/json", "text/event-stream")


def _media_type(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_call(request: httpx2.Request) -> bool:
    """Whether this POST carries a JSON-RPC request: only those wait for an answer."""
    if request.method != "POST":
        return False
    body = request.content
    return body.startswith(_REQUEST_PREFIX) and b'"method":' in body


def _same_origin(request: httpx2.Request, response: httpx2.Response) -> bool:
    try:
        target = request.url.join(response.headers.get("location", ""))
    except httpx2.InvalidURL:
        return False
    here = (request.url.scheme, request.url.host, request.url.port)
    return here == (target.scheme, target.host, target.port) and target.userinfo == request.url.userinfo


def _jsonrpc_error_code(body: bytes) -> int | None:
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return code if isinstance(code, int) else None


def _not_answered(error: Exception) -> Failure:
    kind = type(error).__name__
    if isinstance(error, httpx2.PoolTimeout):
        return Failure("busy", "too many calls to this server are running", cause=kind)
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)):
        return Failure("unreachable", "the server cannot be reached", cause=kind)
    if isinstance(error, httpx2.UnsupportedProtocol):
        return Failure("invalid", "the server's address cannot be used", cause=kind)
    return Failure("protocol", "the connection was lost before the server answered", cause=kind)
