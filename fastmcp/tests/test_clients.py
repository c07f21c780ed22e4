"""How long a client lives: connected once, kept, replaced, expired, bounded, reconnected."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from conftest import Demo, Service, listening, until
from handmade import HandMade, result

pytestmark = pytest.mark.anyio


async def test_concurrent_first_calls_connect_once(service: Service, demo: Demo) -> None:
    before = (await demo.state())["connections"]
    statuses: list[int] = []

    async def call() -> None:
        response = await service.call(
            demo.specification, "echo", client_id=f"flight-{demo.url}", arguments={"text": "x"}
        )
        statuses.append(response.status_code)

    async with anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(call)
    assert statuses == [200] * 12
    assert (await demo.state())["connections"] == before + 1


async def test_a_known_client_with_another_specification_connects_anew(service: Service, demo: Demo) -> None:
    client_id = f"change-{demo.url}"
    first = {"client_id": client_id, "specification": demo.specification}
    changed = {
        "client_id": client_id,
        "specification": demo.specification | {"auth": {"type": "bearer", "token": "t"}},
    }
    seen = [
        (await service.post("/mcp/connect", content)).json()["connected"]
        for content in (first, first, changed, changed, first)
    ]
    assert seen == ["new", "existing", "new", "existing", "new"]


async def test_a_bearer_token_is_sent_and_a_wrong_one_is_unauthorized(
    service: Service, tmp_path: object
) -> None:
    demo = Demo("sse", tmp_path / "demo", "--bearer", "right")  # type: ignore[operator]
    try:
        for token, status in [("right", 200), ("wrong", 502)]:
            auth = {"auth": {"type": "bearer", "token": token}}
            response = await service.call(demo.specification | auth, "read_counter", client_id="bearer")
            assert response.status_code == status, response.text
        assert response.json()["error"]["code"] == "unauthorized"
        assert "wrong" not in service.log.read_text()
        assert "right" not in service.log.read_text()
    finally:
        demo.stop()


async def test_disconnecting_forgets_the_client_and_says_whether_there_was_one(
    service: Service, demo: Demo
) -> None:
    content = {"client_id": f"leave-{demo.url}", "specification": demo.specification}
    await service.post("/mcp/connect", content)
    leave = {"client_id": content["client_id"]}
    assert (await service.post("/mcp/disconnect", leave)).json() == {"disconnected": True}
    assert (await service.post("/mcp/disconnect", leave)).json() == {"disconnected": False}
    assert (await service.post("/mcp/connect", content)).json()["connected"] == "new"


async def test_an_idle_client_expires_and_a_busy_one_does_not(
    start_service: Callable[..., Service], demo_sse: Demo
) -> None:
    service = start_service(FASTMCP_IDLE_SECONDS="0.4")
    async with service.streaming(demo_sse.specification, "sleep", arguments={"ms": 1200}) as frames:
        async for frame in frames:
            # Past the idle time and a sweep, and still in use.
            if frame.get("progress", {}).get("progress", 0) > 900:
                assert await service.clients() == 1
        assert "result" in frame
    await until(lambda: _clients(service, 0))


async def test_the_least_recently_used_client_makes_room_unless_it_is_in_use(
    start_service: Callable[..., Service], demo_http: Demo
) -> None:
    service = start_service(FASTMCP_MAX_CLIENTS="2")

    async def connect(client_id: str) -> str:
        content = {"client_id": client_id, "specification": demo_http.specification}
        return (await service.post("/mcp/connect", content)).json()["connected"]

    assert [await connect(name) for name in ("a", "b", "a", "c")] == ["new", "new", "existing", "new"]
    assert await service.clients() == 2
    assert [await connect(name) for name in ("a", "b")] == ["existing", "new"]

    # Both in use at once: nobody makes room.
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_sleep, service, demo_http, "a")
        tasks.start_soon(_sleep, service, demo_http, "b")
        await until(lambda: _sleeping(demo_http, 2))
        response = await service.call(demo_http.specification, "echo", client_id="third")
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "busy"
        tasks.cancel_scope.cancel()


async def test_a_session_the_server_forgot_is_opened_again_and_the_call_sent_once(
    service: Service,
) -> None:
    server = HandMade("first", tools_call=lambda m: result(m["id"], '{"content":[]}'))
    async with listening(server) as peer:
        assert (await service.call(peer.specification, "x", client_id="forgot")).status_code == 200
        server.session = "second"
        response = await service.call(peer.specification, "x", client_id="forgot")
        assert response.json() == {"result": {"content": []}}
    assert server.seen.count("initialize") == 2
    assert server.seen.count("tools/call") == 3


async def test_a_server_that_keeps_forgetting_is_not_asked_for_ever(service: Service) -> None:
    server = HandMade("first", tools_call=lambda m: b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n")
    async with listening(server) as peer:
        response = await service.call(peer.specification, "x", client_id="amnesia")
    assert response.json()["error"]["code"] == "protocol"
    assert server.seen.count("tools/call") == 2


async def test_an_sse_client_whose_server_restarted_connects_again(
    service: Service, tmp_path: object
) -> None:
    first = Demo("sse", tmp_path / "first")  # type: ignore[operator]
    port = first.url.split(":")[2].split("/")[0]
    assert (await service.call(first.specification, "read_counter", client_id="restart")).status_code == 200
    first.stop()
    second = Demo("sse", tmp_path / "second", "--port", port)  # type: ignore[operator]
    try:
        assert second.url == first.url
        response = await service.call(second.specification, "read_counter", client_id="restart")
        assert response.status_code == 200, response.text
    finally:
        second.stop()


async def _clients(service: Service, count: int) -> bool:
    return await service.clients() == count


async def _sleeping(demo: Demo, count: int) -> bool:
    return (await demo.state())["sleeping"] == count


async def _sleep(service: Service, demo: Demo, client_id: str) -> None:
    fields = {"client_id": client_id, "arguments": {"ms": 60_000}, "timeout_ms": 90_000}
    await service.call(demo.specification, "sleep", **fields)
