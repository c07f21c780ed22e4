"""The one error type of the service, and its two faces: HTTP status and JSON body.

A failure's `message` is for the worker that called; `cause` goes to the log only. Neither may hold
a token, an argument, a result or an upstream's response body.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

STATUS = {
    "invalid": 400,
    "unauthenticated": 401,
    "lost": 409,
    "internal": 500,
    "unreachable": 502,
    "unauthorized": 502,
    "protocol": 502,
    "upstream": 502,
    "busy": 503,
    "timeout": 504,
}
"""Every code there is, with its HTTP status. Stable: workers decide retries by these."""

_JSONRPC_MESSAGE_CHARACTERS = 1000
_MINT = secrets.token_hex(16)
"""Marks our own errors among JSON-RPC errors; unguessable, so no upstream can forge one."""


@dataclass(frozen=True)
class JsonRpcError:
    """The upstream's own JSON-RPC error: its integer code and its (bounded) message."""

    code: int
    message: str


class Failure(Exception):
    """What a request of a worker can fail with.

    `unreachable`, `busy` and `lost` promise that nothing was delivered to the upstream, so repeating is
    safe; after `protocol` and `timeout` the upstream may have acted.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        cause: str = "",
        jsonrpc: JsonRpcError | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.cause = cause
        self.jsonrpc = jsonrpc
        self.status = STATUS[code] if status is None else status

    def body(self) -> dict[str, Any]:
        """`{"error": {"code", "message", "jsonrpc"?: {"code", "message"}}}`."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.jsonrpc is not None:
            error["jsonrpc"] = {"code": self.jsonrpc.code, "message": self.jsonrpc.message}
        return {"error": error}


class SessionLost(Failure):
    """The upstream no longer knows the session and executed nothing: connect anew, send once more."""

    def __init__(self, cause: str = "") -> None:
        super().__init__("protocol", "the server ended the session", cause=cause)


def upstream_error(code: int, message: str) -> Failure:
    """The upstream answered with a JSON-RPC error of its own."""
    readable = "".join(c if c.isprintable() else " " for c in message[:_JSONRPC_MESSAGE_CHARACTERS])
    return Failure(
        "upstream",
        "the server answered with an error",
        cause=f"JSON-RPC error {code}",
        jsonrpc=JsonRpcError(code, readable),
    )


def minted(failure: Failure) -> dict[str, Any]:
    """A failure as a JSON-RPC error object for `reclaimed` to take back."""
    data = {
        "mint": _MINT,
        "code": failure.code,
        "message": failure.message,
        "cause": failure.cause,
        "session_lost": isinstance(failure, SessionLost),
    }
    return {"code": -32603, "message": failure.message, "data": data}


def reclaimed(data: Any) -> Failure | None:
    """The failure that `minted` made, or None for a server's own error."""
    if not isinstance(data, dict) or data.get("mint") != _MINT or data.get("code") not in STATUS:
        return None
    if data["session_lost"]:
        return SessionLost(data["cause"])
    return Failure(data["code"], data["message"], cause=data["cause"])
