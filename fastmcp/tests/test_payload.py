"""Payloads pass unchanged: what the library does not know must survive it."""

from __future__ import annotations

import json

import pytest
from conftest import Service, http_response, listening, read_request
from handmade import HandMade, result

pytestmark = pytest.mark.anyio

ODD_RESULT = (
    '{"vendor":{"z":1,"a":[null,true]},"content":[{"type":"video","data":"AA==","codec":"av1"},'
    '{"type":"text","text":"grüße \\u0000 \U0001f980","annotations":'
    '{"priority":0.123456789012,"vendorHint":"x"}}],'
    '"structuredContent":[12345678901234567890,{"deep":{"$ref":"#/x"}}],"isError":false,'
    '"_meta":{"io.example/trace":"t"},"ttlMs":-5}'
)
ODD_TOOLS = (
    '{"tools":[{"name":"odd","vendor":1,"execution":{"taskSupport":"optional"},"inputSchema":'
    '{"type":"object","$defs":{"d":{"$anchor":"d"}},"$schema":"https://json-schema.org/draft/2020-12/schema"},'
    '"annotations":{"readOnlyHint":true,"vendorHint":"y"},"outputSchema":{"type":"array"}}]CURSOR}'
)


async def test_a_result_keeps_unknown_fields_types_order_and_numbers(service: Service) -> None:
    async with listening(HandMade(tools_call=lambda m: result(m["id"], ODD_RESULT))) as peer:
        response = await service.call(peer.specification, "odd", client_id="odd-call")
    expected = json.dumps({"result": json.loads(ODD_RESULT)}, ensure_ascii=False, separators=(",", ":"))
    assert response.text == expected


async def test_tool_definitions_of_all_pages_keep_unknown_fields(service: Service) -> None:
    def page(message: dict) -> bytes:
        last = "cursor" in message.get("params", {})
        return result(message["id"], ODD_TOOLS.replace("CURSOR", "" if last else ',"nextCursor":""'))

    async with listening(HandMade(tools_list=page)) as peer:
        content = {"client_id": "odd-list", "specification": peer.specification}
        response = await service.post("/mcp/list_tools", content)
    tool = json.loads(ODD_TOOLS.replace("CURSOR", ""))["tools"][0]
    assert response.json() == {"tools": [tool, tool]}


async def test_arguments_and_meta_arrive_as_sent_and_reserved_meta_does_not(service: Service) -> None:
    seen: list[dict] = []

    def answer(message: dict) -> bytes:
        seen.append(message["params"])
        return result(message["id"], '{"content":[]}')

    arguments = {"n": 12345678901234567890, "f": 0.1, "none": None, "text": "\U0001f980", "nested": [[{}]]}
    meta = {"traceparent": "00-x", "vendor": None, "progressToken": 7, "io.modelcontextprotocol/x": 1}
    async with listening(HandMade(tools_call=answer)) as peer:
        await service.call(peer.specification, "odd", client_id="odd-meta", arguments=arguments, meta=meta)
    assert seen[0]["name"] == "odd"
    assert seen[0]["arguments"] == arguments
    assert seen[0]["_meta"] == {"traceparent": "00-x", "vendor": None}


async def test_only_the_specifications_headers_reach_the_server(service: Service) -> None:
    server = HandMade(tools_call=lambda m: result(m["id"], '{"content":[]}'))
    async with listening(server) as peer:
        spec = peer.specification | {"headers": {"X-Api-Key": "k1"}}
        await service.call(spec, "odd", client_id="odd-headers")
    for headers in server.headers:
        assert headers["x-api-key"] == "k1"
        assert headers["accept-encoding"] == "identity"
        assert not [name for name in headers if name.startswith(("x-switchboard", "x-request"))]


async def test_arguments_that_must_travel_as_headers_do_without_a_list_before(service: Service) -> None:
    """A modern server (2026-07-28) refuses a call without its Mcp-Param headers, so they are learnt."""
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    calls: list[dict[str, str]] = []

    async def handle(reader, writer) -> None:
        while True:
            _, headers, body = await read_request(reader)
            message = json.loads(body)
            common = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
            if message["method"] == "server/discover":
                answer = common | {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            elif message["method"] == "tools/list":
                answer = common | {"tools": [{"name": "odd", "inputSchema": schema}]}
            else:
                calls.append(headers)
                answer = {"resultType": "complete", "content": []}
            reply = {"jsonrpc": "2.0", "id": message["id"]}
            if message["method"] == "tools/call" and headers.get("mcp-param-region") != "eu":
                error = {"code": -32020, "message": "header mismatch"}
                writer.write(http_response(400, json.dumps(reply | {"error": error}).encode()))
            else:
                writer.write(http_response(200, json.dumps(reply | {"result": answer}).encode()))

    async with listening(handle) as peer:
        response = await service.call(
            peer.specification, "odd", client_id="param", arguments={"region": "eu"}
        )
    assert response.status_code == 200, response.text
    assert [call["mcp-name"] for call in calls] == ["odd", "odd"]
