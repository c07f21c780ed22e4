"""Running a request's work: within its time, only while its caller is there, as JSON or as frames."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from fastapi import Request
from fastapi.responses import Response

from . import logs, shapes
from .failures import Failure

Work = Callable[[], Awaitable[dict[str, Any]]]

_FRAMES_WAITING = 64


def json_response(content: dict[str, Any], status: int = 200) -> Response:
    """One JSON document."""
    return Response(_encoded(content), status_code=status, media_type="application/json")


async def work_for(request: Request, body: shapes.Connect, work: Work) -> Response:
    """Run `work`; its result as JSON, or raise its `Failure`. Nothing is left running either way."""
    outcome: Response | Failure | None = None

    async def run() -> None:
        nonlocal outcome
        try:
            outcome = json_response(await _in_time(body, work))
        except Failure as failure:
            outcome = failure
        scope.cancel()

    request.scope["switchboard.note"](client_id=body.client_id)
    async with anyio.create_task_group() as tasks:
        scope = tasks.cancel_scope
        tasks.start_soon(run)
        await departure(request)
        scope.cancel()
    if isinstance(outcome, Response):
        return outcome
    if outcome is None:
        request.scope["switchboard.note"](abandoned=True)
        # Nobody is there to read it.
        return Response(status_code=499)
    raise outcome


async def departure(request: Request) -> None:
    """Return when the caller has closed the request."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _in_time(body: shapes.Connect, work: Work) -> dict[str, Any]:
    with anyio.move_on_after(body.timeout_ms / 1000) as limit:
        return await work()
    assert limit.cancelled_caught
    raise Failure("timeout", "the call did not end in time")


class Frames(Response):
    """A call as newline-delimited JSON: `{"progress": ..}` lines, then one `result` or `error`."""

    media_type = "application/x-ndjson"

    def __init__(self, request: Request, body: shapes.CallTool) -> None:
        super().__init__()
        # Length is unknown; the framing is HTTP's.
        del self.headers["content-length"]
        self._request = request
        self._body = body
        self._work: Work | None = None
        self._frames, self._to_send = anyio.create_memory_object_stream[bytes](_FRAMES_WAITING)

    def during(self, work: Work) -> Frames:
        self._work = work
        return self

    async def progress(self, progress: float, total: float | None, message: str | None) -> None:
        """Progress of the upstream; a caller that reads too slowly misses some of it."""
        fields: dict[str, Any] = {"progress": progress}
        if total is not None:
            fields["total"] = total
        if message is not None:
            fields["message"] = message
        try:
            self._frames.send_nowait(_encoded({"progress": fields}) + b"\n")
        except (anyio.WouldBlock, anyio.BrokenResourceError, anyio.ClosedResourceError, Failure):
            return

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        note = scope["switchboard.note"]
        note(client_id=self._body.client_id, stream=True)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                await departure(self._request)
                note(abandoned=True)
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            tasks.start_soon(self._run, note)
            async for frame in self._to_send:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()

    async def _run(self, note: Any) -> None:
        assert self._work is not None
        async with self._frames:
            try:
                last = _encoded(await _in_time(self._body, self._work))
            except Failure as failure:
                note(code=failure.code, cause=failure.cause or failure.message)
                last = _encoded(failure.body())
            except Exception as error:
                logs.error("call broke", exception=type(error).__name__)
                note(code="internal")
                last = _encoded(Failure("internal", "the service failed").body())
            await self._frames.send(last + b"\n")


def _encoded(content: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()
    except (ValueError, RecursionError) as error:
        raise Failure("protocol", "the server's answer is not JSON", cause=type(error).__name__) from None
