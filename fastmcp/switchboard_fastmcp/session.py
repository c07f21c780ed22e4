"""An MCP session that carries payloads unchanged.

The library's typed calls drop fields they do not know and reject content types they do not know.
`RawSession` sends and returns plain JSON objects and leaves framing, negotiation, cancellation and
progress to the library.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp import ClientSession, MCPError
from mcp.shared.inbound import find_invalid_x_mcp_header, x_mcp_header_map
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import CONNECTION_CLOSED, PARSE_ERROR, REQUEST_TIMEOUT
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from .failures import Failure, SessionLost, reclaimed, upstream_error
from .guard import CALL_HEADER, Guard

Progress = Callable[[float, "float | None", "str | None"], Awaitable[None]]

# What the library itself says when a stream ends under a call; a server that uses the same code
# for an error of its own does not say these words.
_CLOSED_MESSAGES = ("Connection closed", "SSE stream")


class Wire(JSONRPCDispatcher):
    """The library's dispatcher, with a way to learn that the connection is over."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ended = asyncio.Event()

    async def run(self, *args: Any, **options: Any) -> None:
        try:
            await super().run(*args, **options)
        finally:
            self.ended.set()


class RawSession(ClientSession):
    """A client session whose `ask` takes and returns JSON objects as they are on the wire."""

    def __init__(self, read_stream: Any, write_stream: Any, **options: Any) -> None:
        # Servers would send log messages per request, and nobody reads them here.
        options["log_level"] = None
        self.wire = Wire(read_stream, write_stream)
        self.guard: Guard | None = None
        self._calls = itertools.count(1)
        super().__init__(dispatcher=self.wire, **options)

    async def send_discover(self, version: str) -> dict[str, Any]:
        """Probe for the modern era; an unreachable server is no reason to try the older one."""
        try:
            return await super().send_discover(version)
        except MCPError as error:
            failure = reclaimed(error.data)
            if failure is not None and failure.code in ("unreachable", "unauthorized", "busy"):
                raise failure from None
            raise

    async def ask(
        self, method: str, params: dict[str, Any], on_progress: Progress | None = None
    ) -> dict[str, Any]:
        """Send one request and return its result as the server wrote it.

        Raises `SessionLost` if nothing was sent or the server executed nothing, `Failure` else.
        """
        if self.wire.ended.is_set():
            raise SessionLost("connection ended before the request")
        data: dict[str, Any] = {"method": method, "params": params}
        call = str(next(self._calls))
        options: Any = {}
        # Era-specific `_meta` and headers. Not public in the library; pinned by the lock file.
        self._stamp(data, options)
        options.setdefault("headers", {})[CALL_HEADER] = call
        if on_progress is not None:
            options["on_progress"] = on_progress
        try:
            return await self.wire.send_raw_request(method, data["params"], options)
        except MCPError as error:
            raise translated(error) from None
        except asyncio.CancelledError:
            # The library has told the server. In the handshake era it goes on listening for the
            # answer all the same, for as long as the server likes.
            if self.guard is not None:
                with anyio.CancelScope(shield=True):
                    await self.guard.abandon(call)
            raise

    def learn(self, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Note which arguments travel as headers; drop tools whose annotation is invalid.

        MCP 2026-07-28, Streamable HTTP, `x-mcp-header`: clients must do both.
        """
        if self.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return tools
        kept = [t for t in tools if find_invalid_x_mcp_header(t.get("inputSchema")) is None]
        self._x_mcp_header_maps = {t["name"]: x_mcp_header_map(t.get("inputSchema")) for t in kept}
        return kept


def translated(error: MCPError) -> Failure:
    """What an error of the library means: our own failure, a torn connection, or the server's no."""
    failure = reclaimed(error.data)
    if failure is not None:
        return failure
    if error.code == PARSE_ERROR:
        return Failure("protocol", "the server's answer is not valid MCP", cause="parse error")
    if error.code == CONNECTION_CLOSED and error.message.startswith(_CLOSED_MESSAGES):
        return Failure("protocol", "the connection was lost before the server answered")
    if error.code == REQUEST_TIMEOUT and error.message.endswith("timed out"):
        return Failure("timeout", "the server did not answer in time")
    return upstream_error(error.code, error.message)
