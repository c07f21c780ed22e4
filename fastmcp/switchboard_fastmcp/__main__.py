"""`python -m switchboard_fastmcp`: read the settings, serve until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn

from . import boxes, logs, settings, workspaces

GRACE_SECONDS = 10
"""How long running calls may go on after SIGTERM."""

KEEP_ALIVE_SECONDS = 75


class Server(uvicorn.Server):
    """uvicorn, with signals that end the process with exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises `OSError` if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    # Accepted sockets inherit it. asyncio sets it only on sockets it made itself; without it every
    # answer in two writes waits 40 ms for a delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def serve(configuration: settings.Settings, listener: socket.socket) -> None:
    """Serve until a signal arrives and the clients are disconnected."""
    # Here, because it takes seconds to load, and a wrong configuration should be told at once.
    from . import app

    server = Server(
        uvicorn.Config(
            app.build(configuration),
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            lifespan="on",
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    host, port = listener.getsockname()[:2]
    isolation = configuration.stdio and configuration.stdio.isolation
    logs.info("listening", host=host, port=port, mode=configuration.mode, isolation=isolation)
    await server.serve(sockets=[listener])
    logs.info("stopped")


async def prepared(configuration: settings.Settings, stdio: settings.Stdio) -> settings.Settings:
    """Clear away what a killed service left, and find out what holds programs in on this machine."""
    await workspaces.swept(stdio.root)
    return await boxes.isolated(configuration)


def main() -> int:
    """Exit code: 0 after a signal, 2 if the configuration is wrong."""
    try:
        configuration = settings.read(os.environ)
        # Nothing started from here on may inherit it.
        del os.environ["FASTMCP_KEY"]
        if configuration.stdio is not None:
            configuration = asyncio.run(prepared(configuration, configuration.stdio))
    except settings.SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    try:
        listener = listen(configuration.host, configuration.port)
    except OSError as error:
        print(f"FASTMCP_LISTEN cannot be listened on: {error.strerror}", file=sys.stderr)
        return 2
    logs.start()
    asyncio.run(serve(configuration, listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
