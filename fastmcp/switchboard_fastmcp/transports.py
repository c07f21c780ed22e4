"""From a specification to the FastMCP transport that connects it."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
from fastmcp.client.transports import ClientTransport, StdioTransport, StreamableHttpTransport
from fastmcp.client.transports.base import TransportOptions
from mcp.client.streamable_http import streamable_http_client

from .failures import Failure
from .guard import Answering, Guard, SseGuard, http_client, outward
from .settings import Program, Settings
from .shapes import BearerAuth, Specification
from .sse import LegacyTransport


class HttpTransport(StreamableHttpTransport):
    """FastMCP's streamable HTTP, over our guard and with our bound on a single event."""

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
            streamable_http_client(self.url, http_client=http, max_sse_event_size=self._max_event_bytes) as (
                received,
                outgoing,
            ),
            options.session_class(received, outgoing, **session) as opened,
        ):
            yield opened


class ProgramTransport(StdioTransport):
    """A program from the operator's catalogue, checked against its digest at every start."""

    def __init__(self, program: Program) -> None:
        # The library adds HOME, PATH and more from our environment; `bare.py` takes them out again.
        bare = str(Path(__file__).with_name("bare.py"))
        names = json.dumps(sorted(program.env))
        super().__init__(
            sys.executable,
            ["-I", bare, names, program.command, *program.args],
            env=program.env,
            cwd="/",
            keep_alive=False,
            log_file=Path(os.devnull),
        )
        self._program = program

    async def connect(self, **options: Any) -> Any:
        if not await anyio.to_thread.run_sync(self._program.matches_digest):
            raise Failure("unreachable", "the program is not the one in the catalogue")
        return await super().connect(**options)


def build(
    specification: Specification, settings: Settings, tls: ssl.SSLContext
) -> tuple[ClientTransport, Guard | None]:
    """The transport, and for HTTP the guard through which it is watched."""
    if specification.transport == "stdio":
        return ProgramTransport(settings.catalogue[specification.catalogue_id or ""]), None
    auth = specification.auth
    token = auth.token.get_secret_value() if isinstance(auth, BearerAuth) else None
    limit = settings.max_result_bytes
    url, headers = specification.url or "", dict(specification.headers)
    if specification.transport == "sse":
        guard: Guard = SseGuard(outward(specification, tls), limit)
        return LegacyTransport(url, headers, token, guard, limit), guard
    guard = Answering(outward(specification, tls), limit)
    return HttpTransport(url, headers, token, guard, limit), guard
