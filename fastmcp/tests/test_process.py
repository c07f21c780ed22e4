"""The process itself: configuration, its logs, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import anyio
import httpx2
import pytest
from conftest import HERE, KEY, Demo, Service, until

from switchboard_fastmcp import settings

pytestmark = pytest.mark.anyio


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
