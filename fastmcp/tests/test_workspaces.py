"""Workspaces of sessions: brought, worked in, collected, dropped; and programs that would have us reach
out of them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import Service, Stdio, until

from switchboard_fastmcp.folders import File
from switchboard_fastmcp.kept import digest_of

pytestmark = pytest.mark.anyio

ORGANIZATION, SESSION = "org", "5e551011"
NAME = f"{ORGANIZATION}/user/{SESSION}"
IS_ROOT = os.geteuid() == 0


class Worker:
    """A worker at a session's workspace."""

    def __init__(self, stdio: Stdio, service: Service, name: str = NAME, holder: str = "turn-1") -> None:
        self.stdio = stdio
        self.service = service
        self.name = name
        self.holder = holder
        self.folder = stdio.root / name

    async def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        body = {"workspace": self.name, "holder": self.holder} | fields
        answer = (await self.service.post(f"/workspaces/{verb}", body)).json()
        assert isinstance(answer, dict)
        return answer

    async def put(self, path: str, content: bytes, offset: int = 0, **fields: Any) -> dict[str, Any]:
        head = {"workspace": self.name, "holder": self.holder, "path": path, "offset": offset}
        head |= {"size": len(content)} | fields
        response = await self.service.post("/workspaces/put", json.dumps(head).encode() + b"\n" + content)
        answer = response.json()
        assert isinstance(answer, dict)
        return answer

    async def bring(self, files: dict[str, bytes], is_swapping: bool = False) -> list[str]:
        """Bring the directory to these files; answers which were missing. A program that swaps directories
        meanwhile may be in a file's way."""
        told = {path: File(len(content), sha256(content)) for path, content in files.items()}
        listed = [{"path": path, "size": file.size, "sha256": file.sha256} for path, file in told.items()]
        if (await self.ask("bring", digest=digest_of(told)))["current"]:
            return []
        missing = (await self.ask("bring", digest=digest_of(told), files=listed))["missing"]
        for path in missing:
            answer = await self.put(path, files[path])
            assert answer == {"placed": True} or (is_swapping and answer["error"]["code"] == "busy"), answer
        return sorted(missing)

    async def call(self, tool: str, **arguments: Any) -> Any:
        specification = self.stdio.specification(self.name) | {"kept": True}
        response = await self.service.call(
            specification, tool, arguments=arguments, client_id=self.name, holder=self.holder
        )
        answer = response.json()
        if "error" in answer:
            return answer["error"]["code"]
        result = answer["result"]
        return result["content"][0]["text"] if result["isError"] else result["structuredContent"]["result"]

    async def collect(self, **most: int) -> dict[str, Any]:
        return await self.ask(
            "collect", **{"max_files": 100, "max_bytes": 10_000_000, "max_file_bytes": 5_000_000} | most
        )

    async def get(self, path: str, offset: int = 0, size: int = 1024 * 1024) -> bytes:
        body = {"workspace": self.name, "holder": self.holder, "path": path, "offset": offset, "size": size}
        response = await self.service.post("/workspaces/get", body)
        assert response.status_code == 200, response.text
        return response.content

    async def drop(self) -> int:
        organization, _, session = self.name.split("/")
        body = {"organization": organization, "session": session}
        return (await self.service.post("/workspaces/drop", body)).json()["dropped"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def told(path: str, content: bytes) -> dict[str, Any]:
    return {"path": path, "size": len(content), "sha256": sha256(content)}


@pytest.fixture
def worker(stdio: Stdio) -> Worker:
    return Worker(stdio, stdio.service())


def test_the_digest_of_a_manifest_is_the_one_that_workers_compute() -> None:
    files = {"b/c": File(1, sha256(b"x")), "é": File(0, sha256(b"")), "a": File(2, sha256(b"xy"))}
    assert digest_of({}) == sha256(b"")
    assert digest_of(files) == "5a15c4a07b57cd1f3cdf9052bda12d869c6b60c5cbe71e2e5381349af2ef2654"


async def test_files_are_brought_read_changed_and_collected(worker: Worker) -> None:
    files = {"a": b"first", "d/e/f": b"deep", "empty": b"", "gone": b"x"}
    assert await worker.bring(files) == ["a", "d/e/f", "empty", "gone"]
    for path in files:
        seen = (worker.folder / path).stat()
        assert (seen.st_mode & 0o7777, seen.st_uid) == (0o600, worker.folder.stat().st_uid)
    assert (worker.folder / "d/e").stat().st_mode & 0o7777 == 0o700
    assert await worker.call("read_file", path="d/e/f") == "deep"
    await worker.call("write_file", path="a", text="second")
    await worker.call("write_file", path="new/g", text="made")
    await worker.call("remove_file", path="gone")
    collected = await worker.collect()
    assert sorted(collected["changed"], key=lambda file: file["path"]) == [
        told("a", b"second"),
        told("new/g", b"made"),
    ]
    assert (collected["removed"], collected["skipped"]) == (["gone"], [])
    assert (await worker.get("a", 0, 2), await worker.get("a", 2, 4)) == (b"se", b"cond")
    assert await worker.get("new/g") == b"made"


async def test_what_is_there_already_is_not_brought_again_unless_something_happened_since(
    worker: Worker,
) -> None:
    await worker.bring({"a": b"x", "b": b"y"})
    await worker.call("write_file", path="a", text="changed")
    await worker.collect()
    after = {"a": File(7, sha256(b"changed")), "b": File(1, sha256(b"y"))}
    assert await worker.ask("bring", digest=digest_of(after)) == {"current": True, "missing": []}
    # Whoever brought it was lost before it collected: what the program did does not stand.
    await worker.call("write_file", path="b", text="never collected")
    late, worker.holder = worker.holder, "turn-2"
    assert (await worker.ask("bring", digest=digest_of(after)))["current"] is False
    assert await worker.bring({"a": b"changed", "b": b"y"}) == ["b"]
    assert await worker.call("read_file", path="b") == "y"
    worker.holder = late
    assert await worker.call("echo", text="x") == "lost"


async def test_a_call_that_outlives_its_turn_does_not_write_into_the_next(worker: Worker) -> None:
    await worker.bring({"a": b"x"})
    await worker.call("echo", text="x")
    specification = worker.stdio.specification(NAME) | {"kept": True}
    arguments = {"path": "a", "ms": 1_000}
    response = await worker.service.call(
        specification,
        "write_then_sleep",
        arguments=arguments,
        client_id=NAME,
        holder=worker.holder,
        timeout_ms=500,
    )
    assert response.json()["error"]["code"] == "timeout"
    assert (worker.folder / "a").read_bytes() == b"half"
    worker.holder = "turn-2"
    assert await worker.bring({"a": b"x"}) == ["a"]
    # Longer than the rest of that call would take.
    assert await worker.call("sleep", ms=1_500) == "slept 1500 ms"
    assert await worker.call("read_file", path="a") == "x"
    assert (await worker.collect())["changed"] == []


async def test_what_a_program_writes_between_its_calls_is_gone_at_the_next(worker: Worker) -> None:
    await worker.bring({"d/a": b"x"})
    await worker.call("swap", path="d", target="/etc", seconds=1)
    assert "changed" in await worker.collect()
    (worker.folder / "by-the-program").write_text("y")
    assert await worker.bring({"d/a": b"x"}, is_swapping=True) in ([], ["d/a"])
    assert not (worker.folder / "by-the-program").exists()


async def test_the_program_goes_on_between_turns_and_its_directory_outlives_it(worker: Worker) -> None:
    await worker.bring({"a": b"x"})
    process = (await worker.call("whoami"))["started"]
    await worker.collect()
    await worker.bring({"a": b"x"})
    assert (await worker.call("whoami"))["started"] == process
    await worker.service.post("/mcp/disconnect", {"client_id": NAME})
    await until(lambda: not worker.stdio.processes())
    assert (worker.folder / "a").read_bytes() == b"x"
    assert await worker.call("read_file", path="a") == "x"


async def test_a_turn_that_is_over_changes_and_learns_nothing(worker: Worker) -> None:
    await worker.bring({"a": b"x"})
    late = Worker(worker.stdio, worker.service, holder="turn-0")
    for answer in (
        await late.collect(),
        await late.put("a", b"y"),
        await late.ask("get", path="a", offset=0, size=1),
    ):
        assert answer["error"]["code"] == "lost"


async def test_a_workspace_that_is_not_here_is_not_begun_by_a_call(worker: Worker) -> None:
    assert await worker.call("echo", text="x") == "lost"
    assert (await worker.collect())["error"]["code"] == "lost"
    assert worker.stdio.workspaces() == []


async def test_content_comes_in_pieces_and_is_what_was_announced(worker: Worker) -> None:
    content = os.urandom(2_500_000)
    announced = {"big": File(len(content), sha256(content))}
    files = [told("big", content)]
    assert (await worker.ask("bring", digest=digest_of(announced), files=files))["missing"] == ["big"]
    half = 1 << 19
    for wrong in (
        await worker.put("big", content[:half], offset=1),
        await worker.put("other", b"x"),
        await worker.put("big", b"x" * 10, size=9),
        await worker.put("big", b"x", offset=len(content)),
    ):
        assert wrong["error"]["code"] == "invalid"
    for offset in range(0, len(content), half):
        answer = await worker.put("big", content[offset : offset + half], offset=offset)
    assert answer == {"placed": True}
    assert (worker.folder / "big").read_bytes() == content

    announced = {"small": File(3, sha256(b"abc"))}
    await worker.ask("bring", digest=digest_of(announced), files=[told("small", b"abc")])
    assert (await worker.put("small", b"xyz"))["error"]["message"] == "sha256: is not that of the content"
    assert not (worker.folder / "small").exists()
    assert list((worker.stdio.root / ".staging").iterdir()) == []


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/./b", "a/../b", "", "a/", "a\0b", "."])
async def test_a_path_that_leads_elsewhere_is_refused(worker: Worker, path: str) -> None:
    announced = [told(path, b"x")]
    answer = await worker.ask("bring", digest="0" * 64, files=announced)
    assert answer["error"]["code"] == "invalid"
    assert answer["error"]["message"].startswith("files.0.path")
    assert (await worker.put(path, b"x"))["error"]["code"] == "invalid"


async def test_what_is_no_file_is_named_and_not_followed(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the machine")
    await worker.bring({"kept": b"x"})
    for path, target in {
        "absolute": "/etc/passwd",
        "up": "../../../../../../etc/passwd",
        "secret": str(tmp_path / "secret"),
        "folder": "/etc",
        "itself": "itself",
    }.items():
        assert await worker.call("link", path=path, target=target) == "linked"
    await worker.call("pipe", path="pipe")
    await worker.call("write_odd", name_hex="ff61")
    await worker.call("remove_file", path="kept")
    await worker.call("link", path="kept", target="/etc/hostname")
    collected = await worker.collect()
    links = ["absolute", "folder", "itself", "kept", "pipe", "secret", "up", "�a"]
    assert (collected["changed"], collected["removed"]) == ([], ["kept"])
    assert sorted(collected["skipped"]) == links
    # The next turn begins without them.
    assert await worker.bring({"kept": b"x", "folder/inside": b"y"}) == ["folder/inside", "kept"]
    assert await worker.call("list_files") == ["folder", "kept"]
    assert (worker.folder / "folder/inside").read_bytes() == b"y"
    assert not Path("/etc/inside").exists()


async def test_what_is_too_much_is_said_and_nothing_of_it_taken(worker: Worker) -> None:
    await worker.bring({"a": b"x"})
    await worker.call("write_big", bytes=3 << 20)
    assert await worker.collect(max_file_bytes=1 << 20) == {"excess": "file", "path": "big"}
    assert await worker.collect(max_bytes=2 << 20) == {"excess": "bytes", "path": None}
    assert await worker.bring({"a": b"x"}) == []
    await worker.call("write_many", count=200)
    assert await worker.collect() == {"excess": "files", "path": None}
    assert list((worker.stdio.root / ".staging").iterdir()) == []
    assert await worker.bring({"a": b"x"}) == []
    assert await worker.call("list_files") == ["a"]


async def test_what_lies_too_deep_is_named_and_the_next_turn_begins_without_it(worker: Worker) -> None:
    await worker.bring({"a": b"x"})
    began = (await worker.call("whoami"))["started"]
    # The program is somewhere down there after this, which is its own trouble.
    await worker.call("nest", depth=1500)
    skipped = (await worker.collect())["skipped"]
    assert [name.count("/") for name in skipped] == [31]
    assert await worker.bring({"a": b"x"}) == ["a"]
    assert await worker.call("list_files") == ["a"]
    assert (await worker.call("whoami"))["started"] != began


async def test_a_program_that_swaps_directories_for_links_gets_nothing_from_outside(
    worker: Worker, tmp_path: Path
) -> None:
    # Both ways at once: what lies outside is neither collected nor written to.
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("of the machine")
    outside.chmod(0o777)
    files = {"swapped/a": b"inside"}
    await worker.bring(files)
    await worker.call("swap", path="swapped", target=str(outside), seconds=5)
    for number in range(100):
        for file in (await worker.collect()).get("changed", []):
            assert await worker.get(file["path"]) in (b"inside", b"new")
        announced = {f"swapped/{number}": b"new", "swapped/a": b"inside"}
        listed = [told(path, content) for path, content in announced.items()]
        digest = digest_of({path: File(len(content), sha256(content)) for path, content in announced.items()})
        brought = await worker.ask("bring", digest=digest, files=listed)
        for path in brought.get("missing", []):
            answer = await worker.put(path, announced[path])
            assert answer == {"placed": True} or answer["error"]["code"] in ("busy", "lost"), answer
    assert sorted(path.name for path in outside.iterdir()) == ["a"]
    assert (outside / "a").read_text() == "of the machine"


@pytest.mark.skipif(not IS_ROOT, reason="only root could give away what is not the program's")
async def test_files_that_are_not_the_programs_own_are_left_where_they_are(worker: Worker) -> None:
    await worker.bring({"a": b"x"})
    (worker.folder / "root's").write_text("not the program's")
    collected = await worker.collect()
    assert (collected["changed"], collected["skipped"]) == ([], ["root's"])


async def test_one_session_sees_nothing_of_another(worker: Worker, boxed: None) -> None:
    theirs = Worker(worker.stdio, worker.service, f"{ORGANIZATION}/user/other")
    await theirs.bring({"secret": b"theirs"})
    await worker.bring({"a": b"x"})
    for path in (
        str(theirs.folder / "secret"),
        "../other/secret",
        "/run/workspace/../other/secret",
        str(worker.stdio.root / ".staging"),
    ):
        assert "Error" in await worker.call("read_file", path=path)
    assert await worker.call("list_files") == ["a"]
    refused = await worker.ask("get", path="../other/secret", offset=0, size=1)
    assert refused["error"]["code"] == "invalid"
    assert (await worker.collect())["changed"] == []


async def test_the_end_of_a_session_ends_its_programs_and_takes_the_directory_along(worker: Worker) -> None:
    other = Worker(worker.stdio, worker.service, "org/user/other")
    await other.bring({"a": b"theirs"})
    await worker.bring({"a": b"x"})
    assert await worker.call("spawn", count=3) == 3
    assert await worker.drop() == 1
    assert worker.stdio.workspaces() == ["org/user/other"]
    assert not (await worker.collect()).get("changed")
    assert worker.stdio.processes() == []
    assert await worker.service.clients() == 0
    # It does not come back: a request that was on its way is too late.
    answer = await worker.ask("bring", digest=digest_of({}))
    assert answer["error"]["code"] == "lost"
    assert await worker.drop() == 0
    assert await other.call("read_file", path="a") == "theirs"


async def test_a_service_that_stops_leaves_no_workspace(worker: Worker) -> None:
    await worker.bring({"a": b"x"})
    await worker.call("nest", depth=50)
    assert await anyio.to_thread.run_sync(worker.service.stop) == 0
    assert worker.stdio.workspaces() == []


async def test_a_workspace_that_nobody_uses_goes_after_a_while(stdio: Stdio) -> None:
    worker = Worker(stdio, stdio.service(FASTMCP_IDLE_SECONDS="1"))
    await worker.bring({"a": b"x"})
    await worker.call("echo", text="x")
    await until(lambda: stdio.workspaces() == [])
    assert await worker.bring({"a": b"x"}) == ["a"]


@pytest.mark.skipif(not IS_ROOT, reason="only root gives each workspace a user of its own")
async def test_a_kept_workspace_makes_room_when_users_run_out(stdio: Stdio) -> None:
    service = stdio.service(FASTMCP_STDIO_UIDS="70001-70002")
    workers = [Worker(stdio, service, f"org/user/{number}") for number in range(3)]
    for worker in workers:
        await worker.bring({"a": b"x"})
        if worker is workers[0]:
            await worker.collect()
    assert sorted(stdio.workspaces()) == ["org/user/1", "org/user/2"]
    for worker in workers[1:]:
        # Their turns are under way: neither makes room.
        assert await worker.call("read_file", path="a") == "x"
    assert (await workers[0].ask("bring", digest=digest_of({})))["error"]["code"] == "busy"
    await workers[1].collect()
    assert await workers[0].bring({"a": b"y"}) == ["a"]
    assert sorted(stdio.workspaces()) == ["org/user/0", "org/user/2"]
