"""The FastMCP demo server of the development stack: seven small tools with honest annotations.

    python demo/server.py --transport http|sse --port N [--bearer TOKEN]

Serves on 127.0.0.1 only, at /mcp (http) or /sse (sse), and prints one line once it listens.
`GET /state` tells tests what it has seen: how many connections were negotiated, how many `sleep`
calls run, and how many of them were cancelled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
from collections import Counter
from typing import Any

# A `.env` file of the working directory must not configure the library.
os.environ["FASTMCP_ENV_FILE"] = os.devnull

import uvicorn
from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from mcp_types import ToolAnnotations
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse

MAX_BIG_BYTES = 16 * 1024 * 1024
PROGRESS_SECONDS = 0.1

server = FastMCP("switchboard-demo")
state: Counter[str] = Counter(counter=0, sleeping=0, cancelled=0, connections=0)


@server.tool(annotations=ToolAnnotations(readOnlyHint=True, idempotentHint=True))
def echo(text: str) -> str:
    """Answer with the same text."""
    return text


@server.tool(annotations=ToolAnnotations(readOnlyHint=True, idempotentHint=True))
def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


@server.tool(annotations=ToolAnnotations(readOnlyHint=True, idempotentHint=True))
async def sleep(ms: int, context: Context) -> str:
    """Sleep for that many milliseconds, reporting progress every 100 ms."""
    state["sleeping"] += 1
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        while (remaining := ms / 1000 - (loop.time() - began)) > 0:
            await asyncio.sleep(min(PROGRESS_SECONDS, remaining))
            elapsed_ms = min(ms, round((loop.time() - began) * 1000))
            await context.report_progress(elapsed_ms, ms, f"slept {elapsed_ms} ms")
    except asyncio.CancelledError:
        state["cancelled"] += 1
        raise
    finally:
        state["sleeping"] -= 1
    return f"slept {ms} ms"


@server.tool(annotations=ToolAnnotations(readOnlyHint=True, idempotentHint=True))
def fail(message: str) -> str:
    """Fail with that message: a result with isError, not a protocol error."""
    raise ToolError(message)


@server.tool(annotations=ToolAnnotations(readOnlyHint=True, idempotentHint=True))
def big(bytes: int) -> str:
    """Answer with a text of that many bytes."""
    if not 0 <= bytes <= MAX_BIG_BYTES:
        raise ToolError(f"bytes must be from 0 to {MAX_BIG_BYTES}")
    return "x" * bytes


@server.tool(annotations=ToolAnnotations(readOnlyHint=False, destructiveHint=False, idempotentHint=False))
def counter_increment() -> int:
    """Add one to the counter and answer with it. Every call has an effect."""
    state["counter"] += 1
    return state["counter"]


@server.tool(annotations=ToolAnnotations(readOnlyHint=True, idempotentHint=True))
def read_counter() -> int:
    """Answer with the counter."""
    return state["counter"]


@server.custom_route("/state", methods=["GET"])
async def show_state(_: Request) -> JSONResponse:
    return JSONResponse(dict(state))


class Door:
    """Counts negotiations, and asks for the bearer token if one is set."""

    def __init__(self, app: Any, bearer: str | None) -> None:
        self._app = app
        self._expected = None if bearer is None else f"Bearer {bearer}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/state":
            headers = dict(scope["headers"])
            if self._expected is not None and headers.get(b"authorization") != self._expected:
                refusal = PlainTextResponse("no", 401, {"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send)
                return
            if scope["path"] == "/sse" or headers.get(b"mcp-method") == b"server/discover":
                state["connections"] += 1
        await self._app(scope, receive, send)


class Announcing(uvicorn.Server):
    """Says where it listens once it really does."""

    url = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"listening on {self.url}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="The FastMCP demo server.")
    parser.add_argument("--transport", choices=("http", "sse"), default="http")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--bearer", help="require this bearer token")
    given = parser.parse_args()
    path = "/mcp" if given.transport == "http" else "/sse"
    listener = socket.create_server(("127.0.0.1", given.port), backlog=1024)
    # Inherited by what it accepts; without it each answer waits 40 ms for a delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    app = Door(server.http_app(path=path, transport=given.transport), given.bearer)
    running = Announcing(
        uvicorn.Config(app, log_level="warning", lifespan="on", ws="none", timeout_graceful_shutdown=1)
    )
    running.url = f"http://127.0.0.1:{listener.getsockname()[1]}{path}"
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(running.serve(sockets=[listener]))


if __name__ == "__main__":
    main()
