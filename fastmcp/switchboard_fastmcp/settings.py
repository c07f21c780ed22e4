"""Configuration, read once from the environment; every mistake is reported, not just the first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
class Program:
    """One entry of the operator's stdio catalogue."""

    command: str
    args: tuple[str, ...]
    env: dict[str, str] = field(repr=False)
    sha256: str

    def matches_digest(self) -> bool:
        """Whether the file is still the one the operator vouched for."""
        return hashlib.sha256(Path(self.command).read_bytes()).hexdigest() == self.sha256


@dataclass(frozen=True)
class Settings:
    """What `FASTMCP_*` said. Times in seconds, sizes in bytes."""

    host: str
    port: int
    key: Secret
    mode: str
    catalogue: dict[str, Program]
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
    catalogue: dict[str, Program] = {}
    if mode == "stdio":
        catalogue = _catalogue(environment.get("FASTMCP_CATALOGUE", ""), problems)
    if problems:
        raise SettingsError(problems)
    return Settings(
        host, port, Secret(key), mode, catalogue, idle_seconds, max_clients, require_proxy, max_result
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


def _catalogue(path: str, problems: list[str]) -> dict[str, Program]:
    if not path:
        problems.append("FASTMCP_CATALOGUE is missing: stdio mode runs catalogue entries only")
        return {}
    try:
        entries = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        problems.append("FASTMCP_CATALOGUE is not a readable JSON file")
        return {}
    if not isinstance(entries, dict):
        problems.append("FASTMCP_CATALOGUE is not a JSON object of entries")
        return {}
    programs: dict[str, Program] = {}
    for name, entry in entries.items():
        program = _program(entry)
        if isinstance(program, Program):
            programs[name] = program
        else:
            problems.append(f"FASTMCP_CATALOGUE entry {name!r}: {program}")
    return programs


def _program(entry: Any) -> Program | str:
    if not isinstance(entry, dict) or set(entry) - {"command", "args", "env", "sha256"}:
        return "is not an object of command, args, env and sha256"
    command, args = entry.get("command"), entry.get("args", [])
    env, sha256 = entry.get("env", {}), entry.get("sha256")
    if not isinstance(command, str) or not Path(command).is_absolute():
        return "command is not an absolute path"
    if not isinstance(args, list) or not all(isinstance(a, str) for a in args):
        return "args is not a list of strings"
    if not isinstance(env, dict) or not all(isinstance(v, str) for v in env.values()):
        return "env is not an object of strings"
    if not isinstance(sha256, str):
        return "sha256 is missing"
    program = Program(command, tuple(args), dict(env), sha256.lower())
    try:
        return program if program.matches_digest() else "sha256 is not that of the command's file"
    except OSError:
        return "command cannot be read"
