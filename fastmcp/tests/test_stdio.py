"""The stdio mode: what programs of the catalogue are given, how they are spoken to, and that they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import DEMO_PROGRAM, HERE, KEY, Service, Stdio, sha256_of, until

from switchboard_fastmcp import settings

pytestmark = pytest.mark.anyio

CONNECTS = 1000 if os.environ.get("SWITCHBOARD_FULL") == "1" else 40


async def test_a_program_lists_and_calls_like_any_other_server(stdio: Stdio) -> None:
    service = stdio.service()
    connected = await service.post(
        "/mcp/connect", {"client_id": "org/_/one", "specification": stdio.specification()}
    )
    assert connected.json()["server_info"]["name"] == "switchboard-demo-stdio"
    listed = await service.post(
        "/mcp/list_tools", {"client_id": "org/_/one", "specification": stdio.specification()}
    )
    assert {"echo", "whoami"} <= {tool["name"] for tool in listed.json()["tools"]}
    assert await stdio.use(service, "echo", text="hé\n") == "hé\n"
    assert await service.clients() == 1


async def test_progress_of_a_program_comes_as_frames(stdio: Stdio) -> None:
    service = stdio.service()
    async with service.streaming(stdio.specification(), "sleep", arguments={"ms": 350}) as frames:
        received = [frame async for frame in frames]
    assert [list(frame) for frame in received[:2]] == [["progress"], ["progress"]]
    assert received[-1]["result"]["structuredContent"] == {"result": "slept 350 ms"}


async def test_a_call_that_is_out_of_time_is_cancelled_in_the_program(stdio: Stdio) -> None:
    service = stdio.service()
    # Starting the program is not what runs out of time.
    await stdio.use(service, "echo", text="x")
    response = await service.call(
        stdio.specification(), "sleep", arguments={"ms": 60_000}, timeout_ms=2_000, client_id="org/_/one"
    )
    assert response.json()["error"]["code"] == "timeout"
    await until(lambda: _listed(stdio, service, "cancelled"))


async def test_a_program_that_ends_during_a_call_fails_that_call_and_is_started_again(stdio: Stdio) -> None:
    service = stdio.service()
    response = await service.call(stdio.specification(), "end", client_id="org/_/one")
    assert response.json()["error"]["code"] == "protocol"
    assert await stdio.use(service, "echo", text="again") == "again"


async def test_two_clients_in_one_workspace_share_it_and_the_last_one_takes_it_along(stdio: Stdio) -> None:
    service = stdio.service()
    specification = stdio.specification("org/user/one")
    for client in ("a", "b"):
        call = {"arguments": {"path": client, "text": "x"}, "client_id": client}
        assert (await service.call(specification, "write_file", **call)).status_code == 200
    await service.post("/mcp/disconnect", {"client_id": "a"})
    await until(lambda: len({_session(process) for process in stdio.processes()}) == 1)
    answer = await service.call(specification, "list_files", arguments={}, client_id="b")
    assert answer.json()["result"]["structuredContent"]["result"] == ["a", "b"]
    await service.post("/mcp/disconnect", {"client_id": "b"})
    await until(lambda: not (stdio.root / "org").exists())


REFUSED = [
    {"transport": "stdio", "catalogue": "other", "workspace": "a/b/c"},
    {"transport": "stdio", "workspace": "a/b/c"},
    {"transport": "stdio", "catalogue": "demo"},
    {"transport": "stdio", "catalogue": "demo", "workspace": "a/../c"},
    {"transport": "stdio", "catalogue": "demo", "workspace": "/a/b/c"},
    {"transport": "stdio", "catalogue": "demo", "workspace": "a/b"},
    {"transport": "stdio", "catalogue": "demo", "workspace": "a/b/c\n"},
    {"transport": "stdio", "catalogue": "demo", "workspace": "a/b/" + "c" * 65},
    {"transport": "stdio", "catalogue": "demo", "workspace": "a/b/c", "command": "/bin/sh"},
    {"transport": "stdio", "catalogue": "demo", "workspace": "a/b/c", "arguments": ["x"]},
    {"transport": "stdio", "catalogue": "demo", "workspace": "a/b/c", "headers": {"a": "b"}},
    {
        "transport": "stdio",
        "catalogue": "demo",
        "workspace": "a/b/c",
        "auth": {"type": "bearer", "token": "t"},
    },
    {"transport": "http", "url": "http://127.0.0.1:9/"},
]


async def test_stdio_mode_takes_an_entry_and_a_workspace_and_nothing_else(stdio: Stdio) -> None:
    service = stdio.service()
    for specification in REFUSED:
        response = await service.call(specification, "echo")
        assert response.status_code == 400, specification
        assert response.json()["error"]["message"].startswith("specification."), specification
    assert stdio.workspaces() == []


@pytest.mark.parametrize("change", ["content", "writable", "gone"])
async def test_a_program_that_changed_since_it_was_vouched_for_is_not_started(
    stdio: Stdio, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "program"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    service = stdio.service({"name": "changing", "program": str(path), "sha256": sha256_of(str(path))})
    if change == "content":
        path.write_text("#!/bin/sh\ntouch ran; sleep 60\n")
    elif change == "writable":
        path.chmod(0o777)
    else:
        path.unlink()
    response = await service.call(stdio.specification(catalogue="changing"), "x")
    assert response.json()["error"]["code"] == "unreachable"
    assert str(path) not in response.text
    assert stdio.workspaces() == []


async def test_what_is_no_mcp_server_fails_and_leaves_nothing(stdio: Stdio) -> None:
    programs = {"true": "exit 0", "garbage": "while :; do echo nonsense; done", "loud": "yes >&2"}
    more = []
    for name, script in programs.items():
        path = stdio.root.parent / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        more.append({"name": name, "program": str(path), "sha256": sha256_of(str(path))})
        more[-1]["environment"] = {"PATH": "/usr/bin:/bin"}
    service = stdio.service(*more)
    for name in programs:
        response = await service.call(stdio.specification(catalogue=name), "x", timeout_ms=3_000)
        assert response.json()["error"]["code"] in ("protocol", "timeout"), name
    await until(lambda: stdio.workspaces() == [])


async def test_what_a_program_says_beside_the_protocol_is_for_the_operator(stdio: Stdio) -> None:
    service = stdio.service()
    answer = await stdio.use(service, "flood", bytes=4_000_000, newline=True, stderr=True)
    assert answer == "written"
    assert await stdio.use(service, "echo", text="x") == "x"
    service.stop()
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    said = [line for line in lines if line["message"] == "a program says"]
    assert said[0]["text"] == "demo program started"
    assert said[0]["program"] == "demo"
    assert sum(len(line["text"]) for line in said) <= 64 * 1024
    assert max(len(line["text"]) for line in said) <= 500


async def test_a_program_that_floods_its_output_is_given_up_and_costs_nobody_else(stdio: Stdio) -> None:
    service = stdio.service(FASTMCP_MAX_RESULT_BYTES="1000000")
    await stdio.use(service, "echo", "org/_/other", text="x")
    before = _descriptors(service)
    for flood in ({"bytes": 50_000_000}, {"bytes": 50_000_000, "newline": True}):
        response = await service.call(stdio.specification(), "flood", arguments=flood, client_id="hostile")
        assert response.json()["error"]["code"] == "protocol"
    assert _resident_bytes(service) < 400_000_000
    await until(lambda: stdio.workspaces() == ["org/_/other"] and _descriptors(service) <= before + 2)
    assert await stdio.use(service, "echo", "org/_/other", text="y") == "y"


async def test_a_program_that_talks_without_end_leaves_the_others_their_turn(stdio: Stdio) -> None:
    service = stdio.service()
    await stdio.use(service, "echo", "org/_/other", text="x")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_call, service, stdio, "notify", {"count": 1_000_000})
        for number in range(20):
            with anyio.fail_after(5):
                answer = await stdio.use(service, "echo", "org/_/other", text=str(number))
            assert answer == str(number)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("end", ["disconnect", "idle", "by itself", "stop", "kill"])
async def test_everything_a_program_started_ends_with_it(stdio: Stdio, boxed: None, end: str) -> None:
    idle = {"FASTMCP_IDLE_SECONDS": "4"} if end == "idle" else {}
    service = stdio.service(**idle)
    assert await stdio.use(service, "spawn", count=5) == 5
    assert len(stdio.processes()) >= 6
    if end == "disconnect":
        await service.post("/mcp/disconnect", {"client_id": "org/_/one"})
    elif end == "by itself":
        await service.call(stdio.specification(), "end", client_id="org/_/one")
    elif end == "stop":
        assert await anyio.to_thread.run_sync(service.stop) == 0
    elif end == "kill":
        service.child.kill()
    await until(lambda: not stdio.processes())
    if end != "kill":
        await until(lambda: stdio.workspaces() == [])


async def test_many_connects_leave_no_process_no_directory_and_no_descriptor(stdio: Stdio) -> None:
    service = stdio.service()
    await stdio.use(service, "echo", text="x")
    await service.post("/mcp/disconnect", {"client_id": "org/_/one"})
    await until(lambda: stdio.workspaces() == [] and not _children(service))
    before = _descriptors(service)
    limit = anyio.CapacityLimiter(8)

    async def once(number: int) -> None:
        async with limit:
            workspace = f"org/user/{number}"
            assert await stdio.use(service, "echo", workspace, text="x") == "x"
            await service.post("/mcp/disconnect", {"client_id": workspace})

    async with anyio.create_task_group() as tasks:
        for number in range(CONNECTS):
            tasks.start_soon(once, number)
    await until(lambda: stdio.workspaces() == [] and not _children(service) and not stdio.processes())
    await until(lambda: _descriptors(service) <= before + 2)
    assert await service.clients() == 0


async def test_a_start_clears_what_a_killed_service_left_and_nothing_else(stdio: Stdio) -> None:
    service = stdio.service()
    await stdio.use(service, "write_file", path="left", text="x")
    await stdio.use(service, "nest", depth=1500)
    service.child.kill()
    await until(lambda: not stdio.processes())
    assert stdio.workspaces() == ["org/_/one"]
    stdio.service()
    assert stdio.workspaces() == []


def test_a_folder_that_is_not_ours_is_not_taken(stdio: Stdio) -> None:
    stdio.catalogue.write_text("[]")
    stdio.root.mkdir()
    (stdio.root / "somebody's").touch()
    with pytest.raises(settings.SettingsError) as raised:
        settings.read({"FASTMCP_KEY": KEY} | stdio.settings)
    assert raised.value.problems == ["FASTMCP_STDIO_WORKSPACES is not empty and was not made by this service"]


BAD_ENTRIES: dict[str, dict[str, Any]] = {
    "program is not an absolute path": {"program": "sh"},
    "program is not a regular file": {"program": "/usr"},
    "program cannot be read": {"program": "/no/such/program"},
    "arguments is not a list of strings": {"arguments": "-c"},
    "arguments hold a placeholder other than {workspace}": {"arguments": ["{home}"]},
    "environment is not an object of strings": {"environment": {"A": 1}},
    "sha256 is not 64 lower-case hex digits": {"sha256": "0"},
    "sha256 is not that of the program's file": {"sha256": "0" * 64},
    "is not an object of arguments, description, environment, name, program, sha256": {"command": "sh"},
}


def test_every_bad_entry_of_the_catalogue_is_named(stdio: Stdio) -> None:
    entries = [
        stdio.entry | bad | {"name": f"bad{number}"} for number, bad in enumerate(BAD_ENTRIES.values())
    ]
    stdio.catalogue.write_text(json.dumps([stdio.entry, *entries, stdio.entry]))
    with pytest.raises(settings.SettingsError) as raised:
        settings.read({"FASTMCP_KEY": KEY} | stdio.settings)
    expected = [
        f"FASTMCP_CATALOGUE entry 'bad{number}': {problem}" for number, problem in enumerate(BAD_ENTRIES)
    ]
    assert raised.value.problems == [*expected, "FASTMCP_CATALOGUE entry 'demo': stands twice"]


def test_the_demo_program_needs_nothing_but_an_interpreter() -> None:
    """So that a catalogue's single hash covers all of it."""
    request = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n'
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(DEMO_PROGRAM)],
        input=request,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=HERE,
        check=True,
    )
    assert json.loads(ran.stdout)["result"]["serverInfo"]["name"] == "switchboard-demo-stdio"


async def _listed(stdio: Stdio, service: Service, name: str) -> bool:
    return name in await stdio.use(service, "list_files")


async def _call(service: Service, stdio: Stdio, tool: str, arguments: dict[str, Any]) -> None:
    await service.call(stdio.specification(), tool, arguments=arguments, client_id="hostile")


def _session(process: int) -> int:
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return 0


def _children(service: Service) -> str:
    return Path(f"/proc/{service.child.pid}/task/{service.child.pid}/children").read_text().strip()


def _descriptors(service: Service) -> int:
    return len(os.listdir(f"/proc/{service.child.pid}/fd"))


def _resident_bytes(service: Service) -> int:
    pages = Path(f"/proc/{service.child.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
