"""The legacy HTTP+SSE transport (MCP 2024-11-05).

The library's own client posts one message at a time, loses the caller of a post that fails, and
cuts events at 1 MiB. This one fails just the call concerned and bounds events by configuration.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import anyio
import httpx2
from fastmcp.client.transports import SSETransport
from fastmcp.client.transports.base import TransportOptions
from mcp.shared._httpx_utils import request_within_origin, stream_within_origin
from mcp.shared.message import SessionMessage
from mcp_types import ErrorData, JSONRPCError, JSONRPCRequest, jsonrpc_message_adapter
from pydantic import ValidationError

from .failures import Failure, minted
from .guard import CONNECT_SECONDS, Guard, http_client
from .streams import streams

_POST_READ_SECONDS = 60.0


class LegacyTransport(SSETransport):
    """One event stream to listen on, and the address it names to post to."""

    def __init__(
        self, url: str, headers: dict[str, str], auth: str | None, guard: Guard, max_event_bytes: int
    ):
        super().__init__(url, headers=headers, auth=auth)
        self._guard = guard
        self._max_event_bytes = max_event_bytes

    @contextlib.asynccontextmanager
    async def connect_session(
        self, *, transport_options: TransportOptions | None = None, **session: Any
    ) -> AsyncIterator[Any]:
        options = transport_options or TransportOptions()
        async with (
            http_client(self._guard, dict(self.headers), self.auth) as http,
            stream_within_origin(
                http,
                "GET",
                self.url,
                headers={"accept": "text/event-stream", "cache-control": "no-store"},
                timeout=httpx2.Timeout(CONNECT_SECONDS, read=None),
            ) as response,
        ):
            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if response.status_code != 200 or media_type != "text/event-stream":
                cause = f"HTTP {response.status_code}"
                raise Failure("protocol", "the server did not open an event stream", cause=cause)
            async with (
                streams() as (incoming, received, outgoing, to_send),
                anyio.create_task_group() as tasks,
            ):
                events = httpx2.EventSource(response, max_event_size=self._max_event_bytes)
                endpoint = await tasks.start(_listen, self.url, events, incoming)
                tasks.start_soon(_post_all, http, endpoint, to_send, incoming)
                async with options.session_class(received, outgoing, **session) as opened:
                    yield opened
                tasks.cancel_scope.cancel()


async def _listen(url: str, events: Any, incoming: Any, *, task_status: Any) -> None:
    """Deliver messages until the stream ends, which ends the session."""
    named = False
    try:
        async for event in events:
            if event.event == "endpoint" and not named:
                named = True
                task_status.started(_endpoint(url, event.data))
            elif event.event == "message" and event.data:
                message = jsonrpc_message_adapter.validate_json(event.data, by_name=False)
                await incoming.send(SessionMessage(message))
    except (httpx2.HTTPError, ValidationError, anyio.BrokenResourceError):
        # Which call a broken event belonged to cannot be known, so all of them fail, at once.
        pass
    if not named:
        raise Failure("protocol", "the server named no address to post to")
    await incoming.aclose()


def _endpoint(url: str, data: str) -> str:
    endpoint = urljoin(url, data)
    here, there = urlsplit(url), urlsplit(endpoint)
    if (here.scheme, here.netloc) != (there.scheme, there.netloc):
        raise Failure("protocol", "the server named an address of another origin to post to")
    return endpoint


async def _post_all(http: httpx2.AsyncClient, endpoint: str, to_send: Any, incoming: Any) -> None:
    async with anyio.create_task_group() as tasks:
        async for item in to_send:
            if isinstance(item.message, JSONRPCRequest):
                tasks.start_soon(_post, http, endpoint, item.message, incoming)
            else:
                # In order: `initialized` must arrive before the first call does.
                await _post(http, endpoint, item.message, incoming)


async def _post(http: httpx2.AsyncClient, endpoint: str, message: Any, incoming: Any) -> None:
    try:
        response = await request_within_origin(
            http,
            "POST",
            endpoint,
            json=message.model_dump(by_alias=True, mode="json", exclude_unset=True),
            timeout=httpx2.Timeout(CONNECT_SECONDS, read=_POST_READ_SECONDS),
        )
        if response.is_success:
            return
        failure = Failure("protocol", "the server failed", cause=f"HTTP {response.status_code}")
    except Failure as refused:
        failure = refused
    if isinstance(message, JSONRPCRequest):
        error = ErrorData.model_validate(minted(failure))
        answer = JSONRPCError(jsonrpc="2.0", id=message.id, error=error)
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await incoming.send(SessionMessage(answer))
