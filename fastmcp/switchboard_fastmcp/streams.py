"""The pairs of streams between a session of the library and a transport of ours."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio


@contextlib.asynccontextmanager
async def streams() -> AsyncIterator[tuple[Any, Any, Any, Any]]:
    """`(incoming, received, outgoing, to_send)`, without buffers: who sends waits for the reader."""
    incoming, received = anyio.create_memory_object_stream[Any](0)
    outgoing, to_send = anyio.create_memory_object_stream[Any](0)
    async with incoming, received, outgoing, to_send:
        yield incoming, received, outgoing, to_send
