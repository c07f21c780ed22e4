"""What every request meets first: its id, its bounds, its authentication; and every response, its proof.

Plain ASGI, because the signature covers the body's bytes, and because a handler that watches for
the caller's departure needs the channel that framework middleware hides.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from . import logs
from .failures import Failure
from .settings import Settings
from .signatures import Doorkeeper, response_proof, well_formed_nonce

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_BRING_BYTES = 8 * 1024 * 1024
"""Of the list of a session's files: 1,000 paths of 1,024 bytes, escaped."""

BODY_SECONDS = 30.0

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._doorkeeper = Doorkeeper(settings.key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # A repeated header keeps its last value; the signature was checked against that same one.
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        token = logs.request_id.set(request_id)
        answer = _Answer(send, self._settings, headers.get("x-switchboard-nonce"), request_id)
        scope["switchboard.note"] = answer.note
        try:
            await self._admitted(scope, receive, headers, answer)
        except Failure as failure:
            await answer.fail(failure)
        except Exception as error:
            logs.error("request broke", exception=type(error).__name__, where=_where(error))
            await answer.fail(Failure("internal", "the service failed"))
        finally:
            if scope["path"] != "/health":
                answer.log(scope)
            logs.request_id.reset(token)

    async def _admitted(
        self, scope: Scope, receive: Receive, headers: dict[str, str], answer: _Answer
    ) -> None:
        if scope["path"] == "/health":
            await self._app(scope, receive, answer.send)
            return
        self._doorkeeper.precheck(headers)
        most = MAX_BRING_BYTES if scope["path"] == "/workspaces/bring" else MAX_BODY_BYTES
        body = await _read(receive, headers, most)
        self._doorkeeper.admit(scope["method"], scope["path"], headers, body)
        if scope["query_string"]:
            raise Failure("invalid", "query: no parameters are taken")
        await self._app(scope, _replay(body, receive), answer.send)


class _Answer:
    """The response on its way out: proved, marked with the request's id, and remembered."""

    def __init__(self, send: Send, settings: Settings, nonce: str | None, request_id: str) -> None:
        self._send = send
        self._settings = settings
        self._nonce = nonce if well_formed_nonce(nonce) else None
        self._request_id = request_id
        self._began = time.monotonic()
        self._status: int | None = None
        self._fields: dict[str, Any] = {}

    def note(self, **fields: Any) -> None:
        """Add fields to the request's log line."""
        self._fields.update(fields)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            extra = [(b"x-request-id", self._request_id.encode())]
            if self._nonce is not None:
                proof = response_proof(self._settings.key, self._nonce, message["status"])
                extra.append((b"x-switchboard-proof", proof.encode()))
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await self._send(message)

    async def fail(self, failure: Failure) -> None:
        self.note(code=failure.code, cause=failure.cause or failure.message)
        if self._status is not None:
            return
        body = json.dumps(failure.body(), ensure_ascii=False).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": failure.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def log(self, scope: Scope) -> None:
        write = logs.warning if "code" in self._fields else logs.info
        write(
            "request",
            method=scope["method"],
            path=scope["path"][:200],
            status=self._status,
            duration_ms=round((time.monotonic() - self._began) * 1000, 1),
            **self._fields,
        )


async def _read(receive: Receive, headers: dict[str, str], most: int) -> bytes:
    too_large = Failure("invalid", f"body: is larger than {most} bytes", status=413)
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length[:20]) > most:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    deadline = time.monotonic() + BODY_SECONDS
    more = True
    while more:
        try:
            message = await asyncio.wait_for(receive(), max(0.001, deadline - time.monotonic()))
        except asyncio.TimeoutError:
            raise Failure("invalid", "body: did not arrive in time", status=408) from None
        if message["type"] == "http.disconnect":
            raise Failure("invalid", "body: was cut off")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise too_large
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    replayed = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _where(error: BaseException) -> str:
    """File and line of the innermost frame: where to look, without any value."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return ""
    code = frame.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{code.co_name}:{frame.tb_lineno}"
