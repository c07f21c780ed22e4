"""The process itself: configuration, the stdio mode, its logs, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx2
import pytest
from conftest import HERE, KEY, Demo, Service, sha256_of, until

from switchboard_fastmcp import settings

pytestmark = pytest.mark.anyio

PROGRAM = """
import json, os, sys
from fastmcp import FastMCP

server = FastMCP("stdio-program")

@server.tool
def environment() -> dict[str, str]:
    return dict(os.environ)

@server.tool
def process() -> int:
    return os.getpid()

server.run(show_banner=False)
"""


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A program the operator vouches for, that a test then changes."""
    path = tmp_path / "command"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    entry = {"command": str(path), "args": [], "env": {}, "sha256": sha256_of(str(path))}
    (tmp_path / "catalogue.json").write_text(json.dumps({"program": entry}))
    return path


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = str(Path(sys.executable))
    entry = {
        "command": command,
        "args": [str(tmp_path / "program.py")],
        "env": {"GREETING": "hello"},
        "sha256": sha256_of(command),
    }
    path = tmp_path / "catalogue.json"
    path.write_text(json.dumps({"program": entry}))
    return path


async def test_a_catalogue_program_runs_with_its_environment_and_no_other(
    start_service: Callable[..., Service], catalogue: Path
) -> None:
    service = start_service(FASTMCP_MODE="stdio", FASTMCP_CATALOGUE=str(catalogue), HOME="/nowhere", USER="u")
    spec = {"transport": "stdio", "catalogue_id": "program"}
    response = await service.call(spec, "environment")
    assert response.status_code == 200, response.text
    found = response.json()["result"]["structuredContent"]
    # The program's own Python sets LC_CTYPE (PEP 538).
    assert {k: v for k, v in found.items() if k != "LC_CTYPE"} == {"GREETING": "hello"}
    assert KEY not in str(found)
    process = (await service.call(spec, "process")).json()["result"]["structuredContent"]["result"]
    await service.post("/mcp/disconnect", {"client_id": "a"})
    await until(lambda: not _alive(process))


REFUSED_IN_STDIO_MODE = [
    {"transport": "stdio", "catalogue_id": "other"},
    {"transport": "stdio"},
    {"transport": "stdio", "catalogue_id": "program", "auth": {"type": "bearer", "token": "t"}},
    {"transport": "stdio", "catalogue_id": "program", "headers": {"a": "b"}},
    {"transport": "http", "url": "http://127.0.0.1:9/"},
]


async def test_stdio_mode_takes_catalogue_entries_only(
    start_service: Callable[..., Service], catalogue: Path
) -> None:
    service = start_service(FASTMCP_MODE="stdio", FASTMCP_CATALOGUE=str(catalogue))
    for specification in REFUSED_IN_STDIO_MODE:
        response = await service.call(specification, "environment")
        assert response.status_code == 400, specification
        assert response.json()["error"]["message"].startswith("specification."), specification


async def test_a_program_that_changed_since_it_was_vouched_for_is_not_started(
    start_service: Callable[..., Service], command: Path, tmp_path: Path
) -> None:
    catalogue = str(command.with_name("catalogue.json"))
    service = start_service(FASTMCP_MODE="stdio", FASTMCP_CATALOGUE=catalogue)
    await anyio.to_thread.run_sync(command.write_text, f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    response = await service.call({"transport": "stdio", "catalogue_id": "program"}, "x")
    assert response.json()["error"]["code"] == "unreachable"
    assert not (tmp_path / "ran").exists()


def test_all_mistakes_of_the_configuration_are_reported_together() -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "FASTMCP_LISTEN": "nowhere",
        "FASTMCP_KEY": "tooshort",
        "FASTMCP_MODE": "http2",
        "FASTMCP_IDLE_SECONDS": "nan",
        "FASTMCP_MAX_CLIENTS": "-1",
        "FASTMCP_REQUIRE_PROXY": "yes",
        "LOG_FORMAT": "text",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "switchboard_fastmcp"],
        cwd=HERE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(set(environment) - {"PATH"})
    assert "tooshort" not in ended.stderr


def test_stdio_mode_names_every_bad_catalogue_entry(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    good = {"command": sys.executable, "sha256": sha256_of(sys.executable)}
    entries = {"fine": good, "relative": good | {"command": "sh"}, "forged": good | {"sha256": "0" * 64}}
    path.write_text(json.dumps(entries))
    environment = {"FASTMCP_KEY": KEY, "FASTMCP_MODE": "stdio", "FASTMCP_CATALOGUE": str(path)}
    with pytest.raises(settings.SettingsError) as raised:
        settings.read(environment)
    assert [p.partition(":")[0] for p in raised.value.problems] == [
        "FASTMCP_CATALOGUE entry 'relative'",
        "FASTMCP_CATALOGUE entry 'forged'",
    ]


def test_the_key_is_not_printed() -> None:
    assert KEY not in repr(settings.read({"FASTMCP_KEY": KEY}))


async def test_a_stopping_service_finishes_its_calls_and_exits_with_zero(
    start_service: Callable[..., Service], demo_sse: Demo
) -> None:
    service = start_service()
    finished: list[int] = []

    async def call() -> None:
        response = await service.call(demo_sse.specification, "sleep", arguments={"ms": 1000})
        finished.append(response.status_code)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await until(lambda: _sleeping(demo_sse, 1))
        service.child.terminate()
        await until(lambda: _refuses(service))
    assert finished == [200]
    assert service.stop() == 0
    assert "stopped" in service.log.read_text()


async def test_every_line_of_the_log_is_json_with_the_request_id_and_no_payload(
    start_service: Callable[..., Service], demo_http: Demo
) -> None:
    service = start_service()
    token = "token-that-must-not-be-logged"
    spec = demo_http.specification | {"auth": {"type": "bearer", "token": token}}
    await service.call(spec, "echo", arguments={"text": "argument-that-must-not-be-logged"})
    await service.call(spec, "fail", arguments={"message": "argument-that-must-not-be-logged"})
    await service.call(spec, "no_such_tool", arguments={})
    await service.post("/mcp/call_tool", b'{"client_id": "argument-that-must-not-be-logged')
    service.stop()
    text = service.log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all({"timestamp", "level", "message"} <= set(line) for line in lines)
    requests = [line for line in lines if line["message"] == "request"]
    assert [line["request_id"] for line in requests] == ["test-request"] * 4
    assert requests[0]["client_id"] == "a"
    assert "must-not-be-logged" not in text


async def _sleeping(demo: Demo, count: int) -> bool:
    return (await demo.state())["sleeping"] == count


async def _refuses(service: Service) -> bool:
    try:
        await service.clients()
    except httpx2.TransportError:
        return True
    return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
