"""From a specification to the FastMCP transport that connects it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastmcp.client.transports import ClientTransport, StreamableHttpTransport
from fastmcp.client.transports.base import TransportOptions
from mcp.client.streamable_http import streamable_http_client

from .guard import Answering, Guard, SseGuard, http_client, outward
from .programs import ProgramTransport
from .settings import Settings
from .shapes import BearerAuth, Specification
from .sse import LegacyTransport
from .workspaces import Workspaces


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


@dataclass(frozen=True)
class Means:
    """What all clients share."""

    settings: Settings
    tls: ssl.SSLContext
    workspaces: Workspaces | None


def build(specification: Specification, means: Means) -> tuple[ClientTransport, Guard | None]:
    """The transport, and for HTTP the guard through which it is watched."""
    settings, tls = means.settings, means.tls
    if specification.transport == "stdio":
        stdio, workspaces = settings.stdio, means.workspaces
        assert stdio is not None
        assert workspaces is not None
        program, workspace = stdio.catalogue[specification.catalogue or ""], specification.workspace or ""
        limit, kept = settings.max_result_bytes, specification.kept
        return ProgramTransport(program, workspace, kept, stdio, workspaces, limit), None
    auth = specification.auth
    token = auth.token.get_secret_value() if isinstance(auth, BearerAuth) else None
    limit = settings.max_result_bytes
    url, headers = specification.url or "", dict(specification.headers)
    if specification.transport == "sse":
        guard: Guard = SseGuard(outward(specification, tls), limit)
        return LegacyTransport(url, headers, token, guard, limit), guard
    guard = Answering(outward(specification, tls), limit)
    return HttpTransport(url, headers, token, guard, limit), guard
