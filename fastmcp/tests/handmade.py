"""A handshake-era MCP server written by hand, so that it can misbehave in any way a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from conftest import http_response, read_request

Answer = Callable[[dict[str, Any]], "bytes | None"]


def result(request_id: Any, text: str) -> bytes:
    """A JSON-RPC result whose `result` member is exactly `text`."""
    return http_response(200, f'{{"jsonrpc":"2.0","id":{request_id},"result":{text}}}'.encode())


class HandMade:
    """Answers `initialize`; everything else goes to `on`, by method, as raw HTTP responses."""

    def __init__(self, session: str | None = None, **on: Answer) -> None:
        self.session = session
        self.on = on
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            line, headers, body = await read_request(reader)
            self.headers.append(headers)
            response = self._respond(line, headers, body)
            if response is None:
                # Say nothing until the other side leaves.
                await reader.read()
                return
            writer.write(response)
            await writer.drain()

    def _respond(self, line: str, headers: dict[str, str], body: bytes) -> bytes | None:
        if not line.startswith("POST"):
            self.seen.append(line.split()[0])
            return http_response(405, b"", "text/plain")
        message = json.loads(body)
        method = message["method"]
        self.seen.append(method)
        if method == "initialize":
            greeting = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
            greeting["serverInfo"] = {"name": "hand-made", "version": "1"}
            more = [f"mcp-session-id: {self.session}"] if self.session else []
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": greeting}).encode()
            return http_response(200, body, "application/json", *more)
        if "id" not in message:
            return http_response(202, b"", "text/plain")
        if self.session and "mcp-session-id" in headers and headers["mcp-session-id"] != self.session:
            return http_response(404, b"", "text/plain")
        answer = self.on.get(method.replace("/", "_"))
        return http_response(404, b"", "text/plain") if answer is None else answer(message)
