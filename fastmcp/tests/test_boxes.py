"""What a hostile program of the catalogue can reach, tried from inside it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DEMO_PROGRAM, HERE, KEY, Stdio, until

pytestmark = pytest.mark.anyio

INSIDE = "/run/workspace"
IS_ROOT = os.geteuid() == 0


async def test_a_program_sees_its_entrys_environment_and_nothing_of_ours(stdio: Stdio, boxed: None) -> None:
    service = stdio.service(HOME="/nowhere", SECRET="of the operator")
    seen = await stdio.use(service, "whoami")
    # The program's own Python sets LC_CTYPE (PEP 538).
    environment = {name: value for name, value in seen["environment"].items() if name != "LC_CTYPE"}
    assert environment == stdio.entry["environment"]
    assert seen["arguments"] == [INSIDE, stdio.tag]
    assert (seen["directory"], seen["mode"]) == (INSIDE, "0o700")
    assert seen["processes"] == [1, seen["process"]]
    assert seen["interfaces"] == ["lo"]
    assert (int(seen["capabilities"], 16), seen["no_new_privileges"]) == (0, "1")
    # The script itself, and the directory being listed.
    assert len(seen["descriptors"]) <= 5
    assert KEY not in str(seen)
    for path in ("/proc/1/environ", f"/proc/{service.child.pid}/environ", str(stdio.catalogue)):
        answer = await stdio.use(service, "read_file", path=path)
        assert answer.startswith(("PermissionError", "FileNotFoundError")), (path, answer)


@pytest.mark.skipif(not IS_ROOT, reason="only root gives each workspace a user of its own")
async def test_each_workspace_has_a_user_of_its_own(stdio: Stdio, boxed: None) -> None:
    service = stdio.service(FASTMCP_STDIO_UIDS="70001-70002")
    users = set()
    for workspace in ("org/_/one", "org/_/two"):
        seen = await stdio.use(service, "whoami", workspace)
        assert seen["uid"] == seen["gid"] == (stdio.root / workspace).stat().st_uid
        assert seen["groups"] == []
        users.add(seen["uid"])
    assert users == {70001, 70002}
    response = await service.call(stdio.specification("org/_/three"), "whoami", client_id="three")
    assert response.json()["error"]["code"] == "busy"
    await service.post("/mcp/disconnect", {"client_id": "org/_/one"})
    await until(lambda: stdio.workspaces() == ["org/_/two"])
    assert (await stdio.use(service, "whoami", "org/_/three"))["uid"] == 70001


async def test_a_program_reaches_no_network_and_no_socket(stdio: Stdio, boxed: None, tmp_path: Path) -> None:
    service = stdio.service()
    port = int(service.url.rpartition(":")[2])
    with socket.socket(socket.AF_UNIX) as local, socket.socket(socket.AF_UNIX) as nameless:
        path = str(tmp_path / "s")
        local.bind(path)
        os.chmod(path, 0o777)  # noqa: S103
        nameless.bind("\0" + stdio.tag)
        for listener in (local, nameless):
            listener.listen()
        for host, number in (("127.0.0.1", port), ("169.254.169.254", 80), ("192.0.2.1", 443)):
            assert "unreachable" in await stdio.use(service, "connect", host=host, port=number)
        assert await stdio.use(service, "connect_local", path=path) == "No such file or directory"
        assert await stdio.use(service, "connect_local", path="\0" + stdio.tag) == "Connection refused"


async def test_a_program_writes_into_its_workspace_and_private_scratch_space_only(
    stdio: Stdio, boxed: None
) -> None:
    service = stdio.service()
    assert await stdio.use(service, "write_file", path="made/here", text="x") == "1 characters"
    assert (stdio.root / "org/_/one/made/here").read_text() == "x"
    assert await stdio.use(service, "write_file", path="/tmp/scratch", text="x") == "1 characters"
    assert not Path("/tmp/scratch").exists()
    elsewhere = [f"{folder}/{stdio.tag}" for folder in ("", "/etc", "/var", "/dev")]
    program = DEMO_PROGRAM.read_bytes()
    for path in (*elsewhere, str(DEMO_PROGRAM)):
        answer = await stdio.use(service, "write_file", path=path, text="x")
        # Below /tmp a write goes into scratch space, wherever this checkout happens to lie.
        scratch = path.startswith("/tmp/") and answer == "1 characters"
        assert scratch or answer.startswith(("OSError: Read-only", "PermissionError")), (path, answer)
        assert path == str(DEMO_PROGRAM) or not Path(path).exists()
    assert DEMO_PROGRAM.read_bytes() == program


async def test_no_program_finds_anothers_workspace(stdio: Stdio, boxed: None) -> None:
    service = stdio.service()
    await stdio.use(service, "write_file", "globex/_/theirs", path="secret", text="of globex")
    await stdio.use(service, "echo", "acme/_/ours", text="x")
    theirs = stdio.root / "globex/_/theirs"
    process = stdio.processes()[0]
    for path in (
        str(theirs / "secret"),
        str(stdio.root),
        f"{INSIDE}/../../globex/_/theirs/secret",
        f"/proc/{process}/root{theirs}/secret",
        f"/proc/{process}/cwd/secret",
        "/proc/1/cwd/secret",
    ):
        answer = await stdio.use(service, "read_file", "acme/_/ours", path=path)
        assert "of globex" not in answer
        assert answer.startswith(("FileNotFoundError", "PermissionError", "IsADirectoryError")), answer
    assert await stdio.use(service, "list_files", "acme/_/ours", path="/run") == ["workspace"]
    assert await stdio.use(service, "list_files", "acme/_/ours") == []


async def test_a_fork_bomb_memory_and_files_are_bounded(stdio: Stdio, boxed: None) -> None:
    service = stdio.service(
        FASTMCP_STDIO_MAX_PROCESSES="20",
        FASTMCP_STDIO_MAX_MEMORY_BYTES=str(128 * 1024 * 1024),
        FASTMCP_STDIO_MAX_FILE_BYTES=str(4 * 1024 * 1024),
    )
    assert await stdio.use(service, "allocate", bytes=1 << 30) == "MemoryError"
    assert await stdio.use(service, "allocate", bytes=1 << 20) == "taken"
    assert await stdio.use(service, "write_big", bytes=1 << 27) == "File too large"
    assert 5 < await stdio.use(service, "spawn", count=10_000) < 20
    # It cannot start the thread for one more call, which is its own trouble and nobody else's.
    assert await stdio.use(service, "echo", "org/_/other", text="x") == "x"
    assert 5 < await stdio.use(service, "spawn", "org/_/other", count=10_000) < 20


@pytest.mark.parametrize("files", [{"count": 5, "bytes": 1 << 20}, {"count": 20_001}])
async def test_a_workspace_that_grows_too_large_ends_with_its_program(
    stdio: Stdio, files: dict[str, int]
) -> None:
    service = stdio.service(
        FASTMCP_STDIO_MAX_WORKSPACE_BYTES=str(100 << 20 if "bytes" not in files else 4 << 20)
    )
    await stdio.use(service, "echo", text="x")
    await service.call(stdio.specification(), "write_many", arguments=files, client_id="org/_/one")
    await until(lambda: "a workspace is too large" in service.log.read_text())
    await until(lambda: stdio.workspaces() == [])
    assert await stdio.use(service, "list_files") == []


async def test_a_program_that_burns_its_processor_time_is_ended(stdio: Stdio, boxed: None) -> None:
    service = stdio.service(FASTMCP_STDIO_MAX_CPU_SECONDS="1")
    response = await service.call(stdio.specification(), "burn", client_id="org/_/one")
    assert response.json()["error"]["code"] == "protocol"


@pytest.fixture
def passable(stdio: Stdio) -> Iterator[None]:
    """Workspaces that others can walk to, as an operator's are; pytest closes its own folders."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)  # noqa: S103
        stdio.root = Path(folder) / "workspaces"
        stdio.settings["FASTMCP_STDIO_WORKSPACES"] = str(stdio.root)
        yield


@pytest.mark.skipif(not IS_ROOT or not shutil.which("setpriv"), reason="takes root's rights away by setpriv")
async def test_without_namespaces_it_starts_only_if_the_operator_says_so(
    stdio: Stdio, boxed: None, passable: None
) -> None:
    under = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    stdio.catalogue.write_text("[]")
    environment = {"PATH": os.environ["PATH"], "FASTMCP_KEY": KEY, "FASTMCP_LISTEN": "127.0.0.1:0"}
    refused = subprocess.run(
        [*under, sys.executable, "-m", "switchboard_fastmcp"],
        cwd=HERE,
        env=environment | stdio.settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("FASTMCP_STDIO_ALLOW_NETWORK=0: namespaces are refused here")

    service = stdio.service(under=under, FASTMCP_STDIO_ALLOW_NETWORK="1")
    assert '"isolation": "none"' in service.log.read_text()
    seen = await stdio.use(service, "whoami")
    assert seen["uid"] == 61184
    assert seen["directory"] == str(stdio.root / "org/_/one")
    # They have left session and group; their user gives them away.
    assert await stdio.use(service, "spawn", count=5) == 5
    await service.post("/mcp/disconnect", {"client_id": "org/_/one"})
    await until(lambda: not stdio.processes() and stdio.workspaces() == [])
