"""What a worker may ask, as models that refuse everything else."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx2
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from .failures import Failure
from .settings import Settings, Stdio

MAX_PIECE_BYTES = 1024 * 1024
"""Of a file, in one request; the worker sends half of it."""

MAX_DEPTH = 128
"""Levels of JSON nesting in arguments and meta; the gateway allows fewer."""

_SEGMENT = "[A-Za-z0-9_-]{1,64}"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]{0,8192}", re.ASCII)
# These belong to HTTP or to the protocol; a tenant's header may not bend either.
_RESERVED_HEADERS = frozenset(
    [
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "accept",
        "accept-encoding",
        "cache-control",
        "last-event-id",
    ]
)
_RESERVED_PREFIXES = ("mcp-", "proxy-", "x-switchboard-", "sec-")


def _sendable(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what no JSON encoder could send: NaN, lone surrogates, endless nesting."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str):
                if not _is_text(item):
                    raise ValueError("holds half of a surrogate pair")
            elif isinstance(item, float) and not math.isfinite(item):
                raise ValueError("holds a number that is not finite")
        if not below:
            return value
        level = below
    raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name, content in value.items():
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError("holds a name that is no header name")
        if lower in _RESERVED_HEADERS or lower.startswith(_RESERVED_PREFIXES):
            raise ValueError(f"may not set {lower}")
        if not _HEADER_VALUE.fullmatch(content):
            raise ValueError(f"holds a value for {lower} that no header can carry")
    return value


def _url(value: str) -> str:
    parts = _split(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an absolute http or https URL")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("may hold neither credentials nor a fragment")
    try:
        # What the HTTP client cannot read is the caller's mistake, found before anything is opened.
        httpx2.URL(value)
    except httpx2.InvalidURL:
        raise ValueError("is not a URL that can be connected to") from None
    return value


def _proxy(value: SecretStr) -> SecretStr:
    parts = _split(value.get_secret_value())
    if parts.scheme != "http" or not parts.hostname or not parts.port or parts.path not in ("", "/"):
        raise ValueError("is not http://user:password@host:port")
    return value


def _split(value: str) -> Any:
    # Python strips control characters from URLs, which other parsers do not.
    if len(value) > 2048 or not value.isascii() or any(c <= " " or c == "\x7f" for c in value):
        raise ValueError("is not a plain ASCII URL of at most 2048 characters")
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts


def _bearer(value: SecretStr) -> SecretStr:
    token = value.get_secret_value()
    if not token or " " in token or not _HEADER_VALUE.fullmatch(token):
        raise ValueError("is not a bearer token")
    return value


def _path(value: str) -> str:
    if "\0" in value or any(segment in ("", ".", "..") for segment in value.split("/")):
        raise ValueError("is not a path of a file")
    if not _is_text(value):
        raise ValueError("holds half of a surrogate pair")
    return value


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NoAuth(_Strict):
    """The server asks for nothing."""

    type: Literal["none"]


class BearerAuth(_Strict):
    """`Authorization: Bearer <token>` on every request to the server (RFC 6750)."""

    type: Literal["bearer"]
    token: Annotated[SecretStr, AfterValidator(_bearer)]


class Specification(_Strict):
    """Everything needed to connect a client, so that any replica can."""

    transport: Literal["http", "sse", "stdio"]
    url: Annotated[str, AfterValidator(_url)] | None = None
    auth: Annotated[NoAuth | BearerAuth, Field(discriminator="type")] = NoAuth(type="none")
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default={}, repr=False)
    proxy: Annotated[SecretStr, AfterValidator(_proxy)] | None = None
    catalogue: str | None = None
    workspace: Annotated[str, Field(pattern=rf"^{_SEGMENT}/{_SEGMENT}/{_SEGMENT}$")] | None = None
    """Organization, user or `_`, configuration or session: what a program's directory belongs to."""
    kept: bool = False
    """The workspace is a session's, and was brought; one that is not here is not begun."""

    def check(self, settings: Settings) -> None:
        """Refuse with `invalid` what this deployment does not do."""
        stdio = settings.stdio
        problem = self._http_problem(settings) if stdio is None else self._stdio_problem(stdio)
        if problem:
            raise Failure("invalid", f"specification.{problem}")

    def _http_problem(self, settings: Settings) -> str | None:
        if self.transport == "stdio":
            return "transport: stdio is not served by this deployment"
        if self.url is None:
            return "url: is required"
        if self.catalogue is not None:
            return "catalogue: belongs to stdio"
        if self.workspace is not None or self.kept:
            return "workspace: belongs to stdio"
        if self.proxy is None and settings.require_proxy:
            return "proxy: is required"
        if isinstance(self.auth, BearerAuth) and any(n.lower() == "authorization" for n in self.headers):
            return "headers: may not set authorization beside a bearer token"
        return None

    def _stdio_problem(self, stdio: Stdio) -> str | None:
        if self.transport != "stdio":
            return "transport: only stdio is served by this deployment"
        if self.url or self.headers or self.proxy or not isinstance(self.auth, NoAuth):
            return "transport: stdio takes a catalogue entry, a workspace and nothing else"
        if self.catalogue not in stdio.catalogue:
            return "catalogue: is not in the operator's catalogue"
        if self.workspace is None:
            return "workspace: is required"
        return None


ClientId = Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
TimeoutMs = Annotated[int, Field(ge=1, le=600_000)]
Json = Annotated[dict[str, Any], AfterValidator(_sendable)]


class Connect(_Strict):
    """`POST /mcp/connect` and `POST /mcp/list_tools`. The timeout covers everything."""

    client_id: ClientId
    specification: Specification
    timeout_ms: TimeoutMs = 30_000


class CallTool(Connect):
    """`POST /mcp/call_tool`. `meta` is merged into the request's `_meta` (MCP, `RequestParams`)."""

    tool: Annotated[str, Field(min_length=1, max_length=1024)]
    arguments: Json = Field(default={}, repr=False)
    meta: Json | None = Field(default=None, repr=False)
    stream: bool = False
    holder: str | None = None
    """Whose turn it is at a workspace that is kept."""


class Disconnect(_Strict):
    """`POST /mcp/disconnect`."""

    client_id: ClientId


class Turn(_Strict):
    """Whose workspace, and whose turn it is. `holder` names the turn, and nobody else's."""

    workspace: Annotated[str, Field(pattern=rf"^{_SEGMENT}/{_SEGMENT}/{_SEGMENT}$")]
    holder: Annotated[str, Field(pattern=rf"^{_SEGMENT}$")]


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0, le=2**40)]


class KnownFile(_Strict):
    """A file of a session."""

    path: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_path)]
    size: Bytes
    sha256: Sha256


class Bring(Turn):
    """`POST /workspaces/bring`. Without files: whether it is there already."""

    digest: Sha256
    files: list[KnownFile] | None = None


class Piece(Turn):
    """`POST /workspaces/put` (followed by the content) and `POST /workspaces/get`."""

    path: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_path)]
    offset: Bytes
    size: Annotated[int, Field(ge=0, le=MAX_PIECE_BYTES)]


class Collect(Turn):
    """`POST /workspaces/collect`: no more than this."""

    max_files: Annotated[int, Field(ge=0, le=100_000)]
    max_bytes: Bytes
    max_file_bytes: Bytes


class Drop(_Strict):
    """`POST /workspaces/drop`: the session is over."""

    organization: Annotated[str, Field(pattern=rf"^{_SEGMENT}$")]
    session: Annotated[str, Field(pattern=rf"^{_SEGMENT}$")]
