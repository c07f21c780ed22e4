"""FastMCP's own proxy in front of one server: what the bench compares the road through our service with.

    python bench/fastmcp_proxy.py --upstream URL [--kept]

As the library makes it, the proxy opens an upstream session for every request. With `--kept` all callers
share one session that is opened at the start, which the library warns of (contexts mix), and which is its
fastest way. Prints `listening ADDRESS` once it can be called at /mcp.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket

# A `.env` file of the working directory must not configure the library.
os.environ["FASTMCP_ENV_FILE"] = os.devnull

import uvicorn
from fastmcp import Client, FastMCP
from fastmcp.server import create_proxy


class Announcing(uvicorn.Server):
    """Says where it listens once it really does."""

    address = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"listening {self.address}", flush=True)


async def serve(proxy: FastMCP) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    # Inherited by what it accepts; without it each answer waits 40 ms for a delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    app = proxy.http_app(path="/mcp", transport="http", json_response=True, stateless_http=True)
    # Between two measurements a connection is idle for longer than the default allows.
    server = Announcing(
        uvicorn.Config(app, log_level="warning", lifespan="on", ws="none", timeout_keep_alive=600)
    )
    server.address = f"127.0.0.1:{listener.getsockname()[1]}"
    await server.serve(sockets=[listener])


async def main() -> None:
    parser = argparse.ArgumentParser(description="FastMCP's own proxy in front of one server.")
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--kept", action="store_true", help="one upstream session for all callers")
    given = parser.parse_args()
    if not given.kept:
        await serve(create_proxy(given.upstream, name="bench"))
        return
    async with Client(given.upstream) as client:
        await serve(create_proxy(client, name="bench"))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
