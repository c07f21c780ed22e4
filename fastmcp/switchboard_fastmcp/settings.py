"""Configuration, read once from the environment; every mistake is reported, not just the first."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import catalogue, workspaces
from .catalogue import Program

MINIMUM_KEY_BYTES = 32


class Secret:
    """Bytes that show up neither in `repr`, nor in a log, nor in a traceback."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def expose(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return "Secret(..)"


class SettingsError(Exception):
    """All that is wrong with the configuration, one sentence each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Stdio:
    """What `FASTMCP_STDIO_*` and the catalogue said: how programs are run."""

    catalogue: dict[str, Program]
    catalogue_path: str
    root: Path
    """Of all workspaces."""
    uids: range | None
    """One for each workspace; None where the service is not root."""
    limits: dict[str, int]
    """By name, see `_LIMITS`."""
    allow_network: bool
    isolation: str = "full"
    """`full`; `network`: all but the network's namespace; `none`: no namespaces (`boxes.isolated`)."""


@dataclass(frozen=True)
class Settings:
    """What `FASTMCP_*` said. Times in seconds, sizes in bytes."""

    host: str
    port: int
    key: Secret
    mode: str
    stdio: Stdio | None
    idle_seconds: float
    max_clients: int
    require_proxy: bool
    max_result_bytes: int


def read(environment: Mapping[str, str]) -> Settings:
    """Build the settings, or raise `SettingsError` naming every variable that is wrong."""
    problems: list[str] = []
    host, port = _listen(environment.get("FASTMCP_LISTEN", "127.0.0.1:8090"), problems)
    key = environment.get("FASTMCP_KEY", "").encode()
    if not key:
        problems.append("FASTMCP_KEY is missing: the secret shared with the tool workers")
    elif len(key) < MINIMUM_KEY_BYTES:
        problems.append(f"FASTMCP_KEY is shorter than {MINIMUM_KEY_BYTES} bytes")
    mode = _choice(environment, "FASTMCP_MODE", "http", ("http", "stdio"), problems)
    _choice(environment, "LOG_FORMAT", "json", ("json",), problems)
    require_proxy = _choice(environment, "FASTMCP_REQUIRE_PROXY", "1", ("0", "1"), problems) == "1"
    idle_seconds = _number(environment, "FASTMCP_IDLE_SECONDS", 600, float, problems)
    max_clients = _number(environment, "FASTMCP_MAX_CLIENTS", 1000, int, problems)
    max_result = _number(environment, "FASTMCP_MAX_RESULT_BYTES", 32 * 1024 * 1024, int, problems)
    stdio = _stdio(environment, problems) if mode == "stdio" else None
    if problems:
        raise SettingsError(problems)
    return Settings(
        host, port, Secret(key), mode, stdio, idle_seconds, max_clients, require_proxy, max_result
    )


def _listen(value: str, problems: list[str]) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    # `isascii` too: `isdigit` alone accepts digits that `int` reads differently from people.
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        problems.append("FASTMCP_LISTEN is not host:port")
        return "", 0
    return host, int(port)


def _choice(
    environment: Mapping[str, str],
    name: str,
    default: str,
    allowed: tuple[str, ...],
    problems: list[str],
) -> str:
    value = environment.get(name, default)
    if value not in allowed:
        problems.append(f"{name} is not one of: {', '.join(allowed)}")
    return value


def _number(environment: Mapping[str, str], name: str, default: Any, kind: Any, problems: list[str]) -> Any:
    try:
        value = kind(environment.get(name, default))
    except ValueError:
        value = 0
    if not 0 < value < 2**40:
        problems.append(f"{name} is not a number above 0")
    return value


_LIMITS = {
    "processes": ("FASTMCP_STDIO_MAX_PROCESSES", 64),
    "memory_bytes": ("FASTMCP_STDIO_MAX_MEMORY_BYTES", 512 * 1024 * 1024),
    "files": ("FASTMCP_STDIO_MAX_FILES", 256),
    "file_bytes": ("FASTMCP_STDIO_MAX_FILE_BYTES", 64 * 1024 * 1024),
    "workspace_bytes": ("FASTMCP_STDIO_MAX_WORKSPACE_BYTES", 256 * 1024 * 1024),
    "cpu_seconds": ("FASTMCP_STDIO_MAX_CPU_SECONDS", 600),
}


def _stdio(environment: Mapping[str, str], problems: list[str]) -> Stdio:
    path = environment.get("FASTMCP_CATALOGUE", "")
    programs: dict[str, Program] = {}
    if not path:
        problems.append("FASTMCP_CATALOGUE is missing: stdio mode runs catalogue entries only")
    else:
        programs, wrong = catalogue.read(path)
        problems += [f"FASTMCP_CATALOGUE {problem}" for problem in wrong]
    root = Path(environment.get("FASTMCP_STDIO_WORKSPACES", ""))
    if not root.is_absolute():
        problems.append("FASTMCP_STDIO_WORKSPACES is not an absolute path: the folder for workspaces")
    elif problem := workspaces.prepared(root):
        problems.append(f"FASTMCP_STDIO_WORKSPACES {problem}")
    limits = {name: _number(environment, *limit, int, problems) for name, limit in _LIMITS.items()}
    given = environment.get("FASTMCP_STDIO_UIDS", "61184-65519")
    uids = _uids(given, problems) if os.geteuid() == 0 else None
    allow = _choice(environment, "FASTMCP_STDIO_ALLOW_NETWORK", "0", ("0", "1"), problems) == "1"
    return Stdio(programs, os.path.abspath(path), root, uids, limits, allow)


def _uids(value: str, problems: list[str]) -> range | None:
    found = re.fullmatch(r"(\d{1,10})-(\d{1,10})", value, re.ASCII)
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1000 <= first <= last < 2**32 - 1:
        problems.append("FASTMCP_STDIO_UIDS is not first-last, from 1000 on")
        return None
    return range(first, last + 1)
