"""Upstreams that are down, hang, lie, flood or redirect: a documented error, in time, and no leak."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable

import anyio
import pytest
from conftest import Demo, Service, http_response, listening, read_request, until
from handmade import HandMade, result

pytestmark = pytest.mark.anyio

SECRET = "hunter2-should-never-be-seen"


def code_of(response) -> str:
    assert set(response.json()) == {"error"}, response.text
    assert SECRET not in response.text
    assert "Traceback" not in response.text
    return response.json()["error"]["code"]


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_server_that_is_down_is_unreachable(service: Service, transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    spec = {"transport": transport, "url": f"http://127.0.0.1:{port}/mcp"}
    response = await service.call(spec, "x", client_id=f"down-{transport}")
    assert response.status_code == 502
    assert code_of(response) == "unreachable"


async def test_a_name_that_does_not_resolve_is_unreachable(service: Service) -> None:
    spec = {"transport": "http", "url": "http://nowhere.invalid/mcp"}
    assert code_of(await service.call(spec, "x", client_id="nxdomain")) == "unreachable"


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_server_that_hangs_is_a_timeout_and_its_connection_is_released(
    service: Service, transport: str
) -> None:
    async def hang(reader, writer) -> None:
        await reader.read()
        while await reader.read(65536):
            pass

    async with listening(hang) as peer:
        spec = {"transport": transport, "url": peer.url}
        response = await service.call(spec, "x", client_id=f"hang-{transport}", timeout_ms=300)
        assert response.status_code == 504
        assert code_of(response) == "timeout"
        await until(lambda: peer.open == 0)


@pytest.mark.parametrize(
    "begun",
    [
        None,
        b"HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\n\r\nid: 1\ndata:\n\nid: 2\ndata: {",
    ],
)
async def test_a_call_that_hangs_is_cut_off_and_the_client_goes_on(
    service: Service, begun: bytes | None
) -> None:
    """A handshake-era server may ignore `notifications/cancelled` and hold its response open."""
    hanging = 0

    async def handle(reader, writer) -> None:
        nonlocal hanging
        while True:
            line, headers, body = await read_request(reader)
            message = json.loads(body) if body else {}
            if message.get("params", {}).get("name") == "hang":
                hanging += 1
                writer.write(begun or b"")
                await reader.read()
                hanging -= 1
                return
            writer.write(server._respond(line, headers, body))

    server = HandMade(tools_call=lambda m: result(m["id"], '{"content":[]}'))
    async with listening(handle) as peer:
        client_id = f"mute-{peer.port}"
        response = await service.call(peer.specification, "hang", client_id=client_id, timeout_ms=300)
        assert code_of(response) == "timeout"
        await until(lambda: hanging == 0)
        await until(lambda: "notifications/cancelled" in server.seen)
        assert (await service.call(peer.specification, "x", client_id=client_id)).status_code == 200
    assert server.seen.count("initialize") == 1
    assert not [h for h in server.headers if "last-event-id" in h or "x-switchboard-call" in h]


@pytest.mark.parametrize("transport", ["http", "sse"])
@pytest.mark.parametrize(
    "answer",
    [
        http_response(500, SECRET.encode(), "text/plain"),
        http_response(503, json.dumps({"oops": SECRET}).encode()),
        http_response(200, SECRET.encode(), "text/html"),
        http_response(200, b"{" + SECRET.encode()),
        http_response(200, b"{}"),
        http_response(200, SECRET.encode(), "text/event-stream"),
        http_response(200, b"event: endpoint\ndata: http://elsewhere.invalid/\n\n", "text/event-stream"),
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"",
    ],
)
async def test_garbage_at_connecting_is_a_protocol_error(
    service: Service, answer: bytes, transport: str
) -> None:
    async def garbage(reader, writer) -> None:
        while True:
            await read_request(reader)
            writer.write(answer)
            if not answer.startswith(b"HTTP"):
                return

    async with listening(garbage) as peer:
        spec = {"transport": transport, "url": peer.url}
        response = await service.call(spec, "x", client_id=f"garbage-{hash(answer)}-{transport}")
        assert response.status_code == 502
        assert code_of(response) == "protocol"
        await until(lambda: peer.open == 0)
    assert SECRET not in service.log.read_text()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda m: http_response(500, SECRET.encode(), "text/plain"), "protocol"),
        (lambda m: http_response(401, SECRET.encode(), "text/plain"), "unauthorized"),
        (lambda m: http_response(403, SECRET.encode(), "text/plain"), "unauthorized"),
        (lambda m: http_response(202, b"", "text/plain"), "protocol"),
        (lambda m: http_response(200, SECRET.encode(), "text/html"), "protocol"),
        (lambda m: http_response(200, b'{"half": "' + SECRET.encode()), "protocol"),
        (lambda m: http_response(200, b'{"jsonrpc":"2.0","id":1,"result":[]}'), "protocol"),
        (lambda m: result(m["id"], '{"content":[],"number":NaN}'), "protocol"),
        (lambda m: result(m["id"], "[" * 5000 + "]" * 5000), "protocol"),
        (lambda m: b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{", None),
        (lambda m: b"nonsense\r\n\r\n", "protocol"),
    ],
)
async def test_a_bad_answer_fails_its_call_and_no_other(
    service: Service, answer: Callable, code: str | None
) -> None:
    """The client, and a call that waits on it meanwhile, must survive what one call ran into."""
    release = asyncio.Event()

    async def handle(reader, writer) -> None:
        server = HandMade()
        while True:
            line, headers, body = await read_request(reader)
            message = json.loads(body) if body else {}
            if message.get("params", {}).get("name") == "slow":
                await release.wait()
                writer.write(result(message["id"], '{"content":[]}'))
            elif message.get("method") == "tools/call":
                writer.write(answer(message))
                if code is None:
                    return
            else:
                writer.write(server._respond(line, headers, body))

    outcomes: list[int] = []

    async def slow() -> None:
        outcomes.append((await service.call(peer.specification, "slow", client_id=client_id)).status_code)

    async with listening(handle) as peer:
        client_id = f"survives-{peer.port}"
        await service.post("/mcp/connect", {"client_id": client_id, "specification": peer.specification})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slow)
            response = await service.call(peer.specification, "bad", client_id=client_id)
            release.set()
        assert code_of(response) == (code or "protocol")
        assert outcomes == [200]
        leave = await service.post("/mcp/disconnect", {"client_id": client_id})
        assert leave.json() == {"disconnected": True}
    assert SECRET not in service.log.read_text()


async def test_a_jsonrpc_error_of_the_server_is_passed_on_with_its_code(service: Service) -> None:
    error = {"code": -32000, "message": "quota\x1b[31m used up", "data": {"mint": "x", "code": "internal"}}

    def answer(message: dict) -> bytes:
        return http_response(
            200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode()
        )

    async with listening(HandMade(tools_call=answer)) as peer:
        response = await service.call(peer.specification, "x", client_id="quota")
    assert response.status_code == 502
    body = response.json()["error"]
    assert body["code"] == "upstream"
    assert body["jsonrpc"] == {"code": -32000, "message": "quota [31m used up"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_redirect_to_another_origin_is_never_followed(
    service: Service, status: int, transport: str
) -> None:
    async with listening(HandMade()) as target:

        async def redirect(reader, writer) -> None:
            while True:
                await read_request(reader)
                writer.write(http_response(status, b"", "text/plain", f"location: {target.url}"))

        async with listening(redirect) as peer:
            spec = {"transport": transport, "url": peer.url}
            response = await service.call(spec, "x", client_id=f"redirect-{transport}-{status}")
        assert code_of(response) == "protocol"
        assert target.opened == 0


async def test_a_result_over_the_bound_is_refused(
    start_service: Callable[..., Service], demo_http: Demo, demo_sse: Demo
) -> None:
    service = start_service(FASTMCP_MAX_RESULT_BYTES="100000")
    for demo in (demo_http, demo_sse):
        response = await service.call(demo.specification, "big", arguments={"bytes": 200_000})
        assert response.status_code == 502
        assert code_of(response) == "protocol"
        response = await service.call(demo.specification, "big", arguments={"bytes": 20_000})
        assert response.status_code == 200


async def test_a_list_of_tools_that_never_ends_is_refused(service: Service) -> None:
    pages = iter(range(10**6))

    def answer(message: dict) -> bytes:
        return result(message["id"], json.dumps({"tools": [], "nextCursor": f"page-{next(pages)}"}))

    async with listening(HandMade(tools_list=answer)) as peer:
        content = {"client_id": "endless", "specification": peer.specification}
        assert code_of(await service.post("/mcp/list_tools", content)) == "protocol"


async def test_leaving_while_connecting_frees_the_connection(service: Service) -> None:
    async def hang(reader, writer) -> None:
        while await reader.read(65536):
            pass

    before = await service.clients()
    async with listening(hang) as peer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: service.call(peer.specification, "x", client_id="leaving"))
            await until(lambda: peer.open == 1)
            tasks.cancel_scope.cancel()
        await until(lambda: peer.open == 0)
    assert await service.clients() == before


async def test_a_deadline_holds_against_a_server_that_also_ignores_being_told(service: Service) -> None:
    """The library waits for its own cancellation notices; callers must not."""

    async def handle(reader, writer) -> None:
        while True:
            line, headers, body = await read_request(reader)
            message = json.loads(body) if body else {}
            if message.get("method") in ("tools/call", "notifications/cancelled"):
                await reader.read()
                return
            writer.write(server._respond(line, headers, body))

    server = HandMade()
    async with listening(handle) as peer:
        content = {"client_id": "deaf", "specification": peer.specification}
        await service.post("/mcp/connect", content)
        with anyio.fail_after(4):
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(_hang, service, peer.specification)


async def _hang(service: Service, specification: dict) -> None:
    response = await service.call(specification, "x", client_id="deaf", timeout_ms=200)
    assert code_of(response) == "timeout"
