"""One MCP client, kept open, owned by one task.

The library's cancel scopes must be entered and left by the same task, so that task connects,
waits, and disconnects; calls run in the tasks of the requests that make them, any number at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import anyio
from fastmcp import Client
from fastmcp.client.transports.base import TransportOptions
from mcp import MCPError
from mcp_types import HEADER_MISMATCH, Implementation

from . import logs
from .failures import Failure
from .session import Progress, RawSession, translated
from .shapes import Specification
from .transports import Means, build

CONNECT_SECONDS = 30.0
STALE_SECONDS = 30.0
"""Twice the usual interval of keep-alive comments."""

MAX_TOOLS = 10_000
MAX_PAGES = 200

_IDENTITY = Implementation(name="switchboard", version="0.1.0")


class Upstream:
    """A connected (or connecting) client. `Clients` decides how long it lives."""

    def __init__(self, client_id: str, specification: Specification, means: Means):
        self.client_id = client_id
        self.specification = specification
        self.users = 0
        self.used_at = time.monotonic()
        transport, self._guard = build(specification, means)
        self._client: Client[Any] = Client(
            transport,
            mode="auto",
            init_timeout=0,
            client_info=_IDENTITY,
            log_handler=_ignore,
            message_handler=_ignore,
        )
        # As FastMCP's own proxy does: the one door through which a session class is chosen.
        self._client._transport_options = TransportOptions(session_class=RawSession)
        self._connecting: anyio.CancelScope | None = None
        self._session: RawSession | None = None
        self._description: dict[str, Any] = {}
        self._given_up: set[asyncio.Task[Any]] = set()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._own())

    @property
    def connecting(self) -> bool:
        return not self._ready.done()

    @property
    def gone(self) -> bool:
        """Stopped, failed or cut off: of no use for another call."""
        return self._stop.is_set() or self._task.done()

    async def opened(self) -> None:
        """Wait until connected; raises the `Failure` that connecting ended with."""
        await asyncio.shield(self._ready)

    def stop(self) -> None:
        """Begin to disconnect; whatever still runs on it is cut off."""
        self._stop.set()
        if self.connecting and self._connecting is not None:
            self._connecting.cancel()

    async def closed(self) -> None:
        """Wait until everything this client held is released."""
        await asyncio.wait({self._task})

    def describe(self) -> dict[str, Any]:
        """`{"protocol_version", "server_info", "capabilities"}`, the latter two in MCP's names."""
        return self._description

    async def list_tools(self) -> list[dict[str, Any]]:
        """All pages of `tools/list`, each definition as the server wrote it."""
        tools: list[dict[str, Any]] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await self._ask("tools/list", {} if cursor is None else {"cursor": cursor})
            found = page.get("tools")
            if not isinstance(found, list) or not all(_is_tool(tool) for tool in found):
                raise Failure("protocol", "the server's list of tools is not valid MCP")
            tools.extend(found)
            previous, cursor = cursor, page.get("nextCursor")
            if cursor is None:
                return self._learnt(tools)
            if not isinstance(cursor, str) or cursor == previous or len(tools) > MAX_TOOLS:
                break
        raise Failure("protocol", "the server's list of tools does not end")

    async def call_tool(
        self,
        tool: str,
        arguments: dict[str, Any],
        meta: dict[str, Any] | None,
        on_progress: Progress | None,
    ) -> dict[str, Any]:
        """The result of `tools/call` as the server wrote it, `isError` included."""
        for listed in (False, True):
            params: dict[str, Any] = {"name": tool, "arguments": arguments}
            # Ours to set: the progress token is the request's id, the rest belongs to the era.
            own = {k: v for k, v in (meta or {}).items() if not _is_reserved(k)}
            if own:
                params["_meta"] = own
            try:
                return await self._ask("tools/call", params, on_progress)
            except Failure as failure:
                # Some argument has to travel as a header too; the definitions say which. The
                # server refused before running anything, so asking again repeats nothing.
                if listed or failure.jsonrpc is None or failure.jsonrpc.code != HEADER_MISMATCH:
                    raise
                await self.list_tools()
        raise AssertionError("unreachable")

    @property
    def stale(self) -> bool:
        """Whether the one stream everything depends on has been silent suspiciously long."""
        if self._guard is None or self.specification.transport != "sse":
            return False
        return time.monotonic() - self._guard.heard_at > STALE_SECONDS

    def _learnt(self, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return tools if self._session is None else self._session.learn(tools)

    async def _ask(
        self, method: str, params: dict[str, Any], on_progress: Progress | None = None
    ) -> dict[str, Any]:
        """Ask in a task of its own: giving up must not wait until a slow server has been told."""
        assert self._session is not None
        asking = asyncio.create_task(self._session.ask(method, params, on_progress))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.cancel()
            self._given_up.add(asking)
            asking.add_done_callback(self._given_up.discard)
            raise

    async def _own(self) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                with anyio.move_on_after(CONNECT_SECONDS) as self._connecting:
                    if not self._stop.is_set():
                        await stack.enter_async_context(self._client)
                        self._opened()
                if self.connecting and not self._stop.is_set():
                    raise Failure("timeout", "the server did not answer in time", cause="connecting")
                await self._until_over()
        except BaseException as error:
            self._settle(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._settle(Failure("unreachable", "the connection was given up"))

    def _opened(self) -> None:
        session, client = self._client.session, self._client
        assert isinstance(session, RawSession)
        session.guard = self._guard
        self._session = session
        info, capabilities = client.server_info, client.server_capabilities
        self._description = {
            "protocol_version": client.protocol_version,
            "server_info": info and info.model_dump(mode="json", by_alias=True, exclude_none=True),
            "capabilities": capabilities
            and capabilities.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        self._ready.set_result(None)

    async def _until_over(self) -> None:
        events = [self._stop] if self._session is None else [self._stop, self._session.wire.ended]
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            self._stop.set()

    def _settle(self, error: BaseException) -> None:
        if self._ready.done():
            return
        failure = classified(error)
        self._ready.set_exception(failure)
        # Nobody may be waiting any more; that is not an error of the event loop.
        self._ready.exception()
        if failure.code == "internal":
            logs.error("connecting failed", client_id=self.client_id, cause=failure.cause)


def classified(error: BaseException) -> Failure:
    """The failure behind whatever the library wrapped it in."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, Failure):
            return current
        if isinstance(current, MCPError):
            return translated(current)
        if isinstance(current, TimeoutError):
            return Failure("timeout", "the server did not answer in time", cause="connecting")
        if isinstance(current, (FileNotFoundError, PermissionError)):
            return Failure("unreachable", "the program cannot be started", cause=type(current).__name__)
        pending += [*getattr(current, "exceptions", ()), current.__cause__, current.__context__]
    return Failure("protocol", "no MCP session could be opened", cause=type(error).__name__)


async def _ignore(_: Any) -> None:
    """Log messages and notifications of a server have no reader here."""


def _is_tool(tool: Any) -> bool:
    return isinstance(tool, dict) and isinstance(tool.get("name"), str)


def _is_reserved(key: str) -> bool:
    return key == "progressToken" or key.startswith("io.modelcontextprotocol/")
