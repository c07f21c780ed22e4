"""Worker and service prove to each other that they hold the same key, without ever sending it.

The worker signs each request; the service proves itself over the request's nonce in each response.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable

from .failures import Failure
from .settings import Secret

SKEW_SECONDS = 60
MAX_NONCES = 262_144
"""Nonces remembered: 2,000 requests a second for the whole window, about 40 MB at worst."""

_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TIME = re.compile(r"[0-9]{1,12}", re.ASCII)
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)


def request_signature(key: Secret, method: str, path: str, unix_seconds: str, nonce: str, body: bytes) -> str:
    """Hex HMAC-SHA256 over the request's line, time, nonce and body digest."""
    digest = hashlib.sha256(body).hexdigest()
    text = f"switchboard-fastmcp-request\n{method}\n{path}\n{unix_seconds}\n{nonce}\n{digest}"
    return hmac.new(key.expose(), text.encode(), hashlib.sha256).hexdigest()


def response_proof(key: Secret, nonce: str, status: int) -> str:
    """Hex HMAC-SHA256 over the request's nonce and the response's status."""
    text = f"switchboard-fastmcp-response\n{nonce}\n{status}"
    return hmac.new(key.expose(), text.encode(), hashlib.sha256).hexdigest()


def well_formed_nonce(nonce: str | None) -> bool:
    """32 lower-case hexadecimal digits."""
    return nonce is not None and _NONCE.fullmatch(nonce) is not None


class Doorkeeper:
    """Decides whether a request came from a worker that holds the key, now, and for the first time."""

    def __init__(self, key: Secret, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock
        # Nonce -> time after which its request would be refused for its age anyway. Insertion
        # order is expiry order up to the skew, which is all that pruning needs.
        self._seen: dict[str, float] = {}

    def precheck(self, headers: dict[str, str]) -> None:
        """What can be refused before the body is read: absent or stale credentials."""
        nonce = headers.get("x-switchboard-nonce")
        stamp = headers.get("x-switchboard-time", "")
        signature = headers.get("x-switchboard-signature", "")
        if not well_formed_nonce(nonce) or not _TIME.fullmatch(stamp):
            raise _refused("nonce or time is missing or malformed")
        if not _SIGNATURE.fullmatch(signature):
            raise _refused("signature is missing or malformed")
        if abs(self._clock() - int(stamp)) > SKEW_SECONDS:
            raise _refused("time is too far from ours")

    def admit(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        """Raise `Failure` unless signature and nonce hold. Call `precheck` first."""
        nonce = headers["x-switchboard-nonce"]
        stamp = headers["x-switchboard-time"]
        expected = request_signature(self._key, method, path, stamp, nonce, body)
        if not hmac.compare_digest(expected, headers["x-switchboard-signature"]):
            raise _refused("signature does not match")
        # Only signed nonces are stored, so a stranger can neither fill this memory nor burn a
        # worker's nonce in advance.
        now = self._clock()
        self._prune(now)
        if nonce in self._seen:
            raise _refused("nonce was used before")
        if len(self._seen) >= MAX_NONCES:
            raise Failure("busy", "too many requests in the last two minutes")
        self._seen[nonce] = now + 2 * SKEW_SECONDS + 1

    def _prune(self, now: float) -> None:
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest] > now:
                return
            del self._seen[oldest]


def _refused(cause: str) -> Failure:
    return Failure("unauthenticated", "the request is not authenticated", cause=cause)
