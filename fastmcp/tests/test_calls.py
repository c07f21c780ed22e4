"""The promises of the four endpoints, over both transports, against the real demo server."""

from __future__ import annotations

import anyio
import pytest
from conftest import Demo, Service, until

pytestmark = pytest.mark.anyio


async def test_connect_describes_the_server_and_says_whether_the_client_is_new(
    service: Service, demo: Demo
) -> None:
    content = {"client_id": f"describe-{demo.url}", "specification": demo.specification}
    first = (await service.post("/mcp/connect", content)).json()
    assert first["connected"] == "new"
    assert first["server_info"]["name"] == "switchboard-demo"
    assert "tools" in first["capabilities"]
    era = "2026-07-28" if demo.specification["transport"] == "http" else "2025-11-25"
    assert first["protocol_version"] == era
    again = (await service.post("/mcp/connect", content)).json()
    assert again == first | {"connected": "existing"}


async def test_every_tool_is_listed_with_its_annotations(service: Service, demo: Demo) -> None:
    content = {"client_id": "list", "specification": demo.specification}
    tools = (await service.post("/mcp/list_tools", content)).json()["tools"]
    hints = {tool["name"]: tool["annotations"].get("readOnlyHint") for tool in tools}
    assert hints.pop("counter_increment") is False
    assert hints == dict.fromkeys(["echo", "add", "sleep", "fail", "big", "read_counter"], True)
    assert tools[0]["inputSchema"]["properties"]


async def test_a_call_answers_with_the_servers_result(service: Service, demo: Demo) -> None:
    response = await service.call(demo.specification, "add", arguments={"a": 2, "b": 3})
    assert response.status_code == 200
    assert response.headers["x-request-id"] == "test-request"
    assert response.json()["result"]["structuredContent"] == {"result": 5.0}


async def test_a_tool_that_fails_is_a_result_and_not_an_error(service: Service, demo: Demo) -> None:
    response = await service.call(demo.specification, "fail", arguments={"message": "no luck"})
    assert response.status_code == 200
    assert response.json()["result"]["isError"] is True
    assert "no luck" in response.json()["result"]["content"][0]["text"]


async def test_a_result_of_four_mebibytes_arrives_whole(service: Service, demo: Demo) -> None:
    size = 4 * 1024 * 1024
    response = await service.call(demo.specification, "big", arguments={"bytes": size})
    assert response.json()["result"]["content"][0]["text"] == "x" * size


async def test_progress_comes_as_frames_before_the_result(service: Service, demo: Demo) -> None:
    async with service.streaming(demo.specification, "sleep", arguments={"ms": 350}) as frames:
        seen = [frame async for frame in frames]
    assert [next(iter(frame)) for frame in seen] == ["progress"] * (len(seen) - 1) + ["result"]
    steps = [frame["progress"]["progress"] for frame in seen[:-1]]
    assert len(steps) >= 3
    assert steps == sorted(steps)
    assert seen[0]["progress"]["total"] == 350
    assert seen[0]["progress"]["message"].startswith("slept")


@pytest.mark.parametrize("stream", [False, True])
async def test_closing_the_request_cancels_the_call_upstream(
    service: Service, demo: Demo, stream: bool
) -> None:
    before = await demo.state()
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            fields = {"arguments": {"ms": 60_000}, "timeout_ms": 90_000}
            if stream:
                async with service.streaming(demo.specification, "sleep", **fields) as frames:
                    async for _ in frames:
                        pass
            else:
                await service.call(demo.specification, "sleep", **fields)

        tasks.start_soon(call)
        await until(lambda: _state(demo, "sleeping", 1))
        tasks.cancel_scope.cancel()
    await until(lambda: _state(demo, "cancelled", before["cancelled"] + 1))
    assert await _state(demo, "sleeping", 0)
    # The client survives the loss of one call.
    response = await service.call(demo.specification, "echo", arguments={"text": "still here"})
    assert response.status_code == 200


async def test_a_call_that_takes_too_long_is_a_timeout_and_is_cancelled_upstream(
    service: Service, demo: Demo
) -> None:
    response = await service.call(demo.specification, "sleep", arguments={"ms": 60_000}, timeout_ms=300)
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "timeout"
    await until(lambda: _state(demo, "sleeping", 0))


async def test_calls_of_one_client_run_at_the_same_time(service: Service, demo: Demo) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(_sleep, service, demo)
        await until(lambda: _state(demo, "sleeping", 8))


async def test_an_unknown_tool_is_an_upstream_answer_of_the_server(service: Service, demo: Demo) -> None:
    response = await service.call(demo.specification, "no_such_tool")
    if response.status_code == 200:
        assert response.json()["result"]["isError"] is True
    else:
        assert response.json()["error"]["code"] == "upstream"
        assert isinstance(response.json()["error"]["jsonrpc"]["code"], int)


async def test_a_call_that_is_not_repeatable_runs_once_per_request(service: Service, demo: Demo) -> None:
    before = (await demo.state())["counter"]
    for _ in range(3):
        await service.call(demo.specification, "counter_increment")
    assert (await demo.state())["counter"] == before + 3


async def _sleep(service: Service, demo: Demo) -> None:
    response = await service.call(demo.specification, "sleep", arguments={"ms": 1000})
    assert response.status_code == 200


async def _state(demo: Demo, name: str, value: int) -> bool:
    return (await demo.state())[name] == value
