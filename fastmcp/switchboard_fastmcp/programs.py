"""Programs of the catalogue as MCP servers: started in a box (`launch.py`), spoken to over their pipes.

The library's own client would read lines of any length, log every line that is no message, and wait
for nobody but the process it started. This one bounds what is read, paces a program that talks
without end, keeps what it says on stderr from tenants, and returns when the whole box has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
from fastmcp.client.transports import ClientTransport
from fastmcp.client.transports.base import TransportOptions
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from . import logs
from .boxes import Box
from .catalogue import Program
from .settings import Stdio
from .streams import streams
from .workspaces import Workspaces, is_within

MESSAGES_PER_SECOND = 1000
"""More are read later: what one program says must not take the loop from everybody else."""

WATCH_SECONDS = 1.0
MAX_GARBAGE_LINES = 100
MAX_STDERR_BYTES = 64 * 1024
MAX_STDERR_LINE_CHARACTERS = 500
_CHUNK_BYTES = 64 * 1024


class ProgramTransport(ClientTransport):
    """A program from the operator's catalogue, in a workspace; ends with the connection."""

    def __init__(
        self,
        program: Program,
        workspace: str,
        kept: bool,
        stdio: Stdio,
        workspaces: Workspaces,
        max_line_bytes: int,
    ) -> None:
        self._program = program
        self._workspace = workspace
        self._kept = kept
        self._stdio = stdio
        self._workspaces = workspaces
        self._max_line_bytes = max_line_bytes

    @contextlib.asynccontextmanager
    async def connect_session(
        self, *, transport_options: TransportOptions | None = None, **session: Any
    ) -> AsyncIterator[Any]:
        options = transport_options or TransportOptions()
        async with (
            self._running() as (process, folder),
            streams() as (incoming, received, outgoing, to_send),
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._hear, process, incoming)
            tasks.start_soon(_say, process, to_send, incoming)
            tasks.start_soon(self._note_stderr, process)
            tasks.start_soon(self._watch, folder, incoming)
            async with options.session_class(received, outgoing, **session) as opened:
                yield opened
            tasks.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
        workspace = await self._workspaces.take(self._workspace, self._kept)
        try:
            box = await Box.start(self._program, workspace, self._stdio)
            try:
                await box.runs()
                yield box.process, workspace.path
            finally:
                with anyio.CancelScope(shield=True):
                    await box.end()
        finally:
            with anyio.CancelScope(shield=True):
                await self._workspaces.leave(self._workspace)

    async def _hear(self, process: asyncio.subprocess.Process, incoming: Any) -> None:
        """Deliver the lines of stdout until they end or cannot be borne, which ends the session."""
        assert process.stdout is not None
        pace, garbage, rest = _Pace(), 0, bytearray()
        try:
            while chunk := await process.stdout.read(_CHUNK_BYTES):
                # Only what came last can hold the end of the line.
                *lines, last = chunk.split(b"\n")
                for line in lines:
                    rest += line
                    message = _message(rest)
                    rest.clear()
                    await pace.step()
                    if message is not None:
                        await incoming.send(message)
                    elif (garbage := garbage + 1) > MAX_GARBAGE_LINES:
                        logs.warning("a program says what is no message", program=self._program.name)
                        return
                rest += last
                if len(rest) > self._max_line_bytes:
                    logs.warning("a program's line is too long", program=self._program.name)
                    return
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            incoming.close()

    async def _watch(self, folder: Path, incoming: Any) -> None:
        """End the session of a program whose files take too much room: each is limited, their sum is not."""
        most = self._stdio.limits["workspace_bytes"]
        while True:
            if not await anyio.to_thread.run_sync(is_within, folder, most):
                break
            await anyio.sleep(WATCH_SECONDS)
        logs.warning("a workspace is too large", program=self._program.name, workspace=self._workspace)
        incoming.close()

    async def _note_stderr(self, process: asyncio.subprocess.Process) -> None:
        """For the operator, up to a bound; the rest is read and dropped, so that nobody waits."""
        assert process.stderr is not None
        left, rest = MAX_STDERR_BYTES, b""
        while chunk := await process.stderr.read(_CHUNK_BYTES):
            if left <= 0:
                continue
            *lines, rest = (rest + chunk[:left]).split(b"\n")
            left -= len(chunk)
            if len(rest) > MAX_STDERR_LINE_CHARACTERS:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._note(line)
            if left <= 0:
                logs.info("a program says more than is logged", program=self._program.name)
        if rest:
            self._note(rest)

    def _note(self, line: bytes) -> None:
        text = line[:MAX_STDERR_LINE_CHARACTERS].decode("utf-8", "replace")
        readable = "".join(c if c.isprintable() else " " for c in text)
        logs.info("a program says", program=self._program.name, workspace=self._workspace, text=readable)


class _Pace:
    """At most so many messages in a second."""

    def __init__(self) -> None:
        self._count = 0
        self._began = time.monotonic()

    async def step(self) -> None:
        self._count += 1
        if self._count < MESSAGES_PER_SECOND:
            return
        await asyncio.sleep(max(0.0, self._began + 1.0 - time.monotonic()))
        self._count, self._began = 0, time.monotonic()


def _message(line: bytearray) -> SessionMessage | None:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(bytes(line), by_name=False))
    except ValueError:
        return None


async def _say(process: asyncio.subprocess.Process, to_send: Any, incoming: Any) -> None:
    assert process.stdin is not None
    try:
        async for item in to_send:
            text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            process.stdin.write(text.encode() + b"\n")
            await process.stdin.drain()
    except (OSError, RuntimeError):
        # It reads no more: nothing that is asked from now on would be answered.
        incoming.close()
