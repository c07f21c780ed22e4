"""Real processes for the tests: the service, the demo server, and odd peers in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from switchboard_fastmcp import boxes, settings, signatures
from switchboard_fastmcp.settings import Secret

# Making a TLS context takes longer than most tests here, and nothing here speaks TLS.
NO_TLS = httpx2.create_ssl_context(verify=False)
HERE = Path(__file__).resolve().parent.parent
KEY = "k" * 40
PATIENCE_SECONDS = 15.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def http() -> httpx2.AsyncClient:
    """An HTTP client that ignores this machine's environment."""
    return httpx2.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS, verify=NO_TLS)


class Process:
    """A child whose standard output is read line by line into a file."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], log: Path, under: tuple[str, ...] = ()
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                [*under, sys.executable, *arguments], cwd=HERE, env=environment, stdout=output, stderr=output
            )

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.log.read_text()):
                return found
            assert self.child.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} not seen in: {self.log.read_text()}")

    def stop(self) -> int:
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            raise


class Service(Process):
    """The FastMCP service, and a worker's way of talking to it."""

    def __init__(self, log: Path, under: tuple[str, ...] = (), **settings: str) -> None:
        environment = {"PATH": os.environ["PATH"], "FASTMCP_KEY": KEY, "FASTMCP_LISTEN": "127.0.0.1:0"}
        environment |= {"FASTMCP_REQUIRE_PROXY": "0"} | settings
        super().__init__(["-m", "switchboard_fastmcp"], environment, log, under)
        port = self.wait_for(r'"port": (\d+)')[1]
        self.url = f"http://127.0.0.1:{port}"

    def headers(self, path: str, body: bytes, **changes: Any) -> dict[str, str]:
        key = Secret(changes.get("key", KEY).encode())
        stamp = str(int(time.time()) + changes.get("skew_seconds", 0))
        nonce = changes.get("nonce", secrets.token_hex(16))
        return {
            "content-type": "application/json",
            "x-request-id": "test-request",
            "x-switchboard-time": stamp,
            "x-switchboard-nonce": nonce,
            "x-switchboard-signature": signatures.request_signature(key, "POST", path, stamp, nonce, body),
        }

    async def post(self, path: str, content: Any, **changes: Any) -> httpx2.Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = self.headers(path, body, **changes)
        async with http() as client:
            response = await client.post(self.url + path, content=body, headers=headers)
        proof = signatures.response_proof(
            Secret(KEY.encode()), headers["x-switchboard-nonce"], response.status_code
        )
        assert response.headers["x-switchboard-proof"] == proof
        return response

    async def call(self, specification: dict[str, Any], tool: str, **fields: Any) -> httpx2.Response:
        content = {"client_id": "a", "specification": specification, "tool": tool, "arguments": {}}
        return await self.post("/mcp/call_tool", content | fields)

    @contextlib.asynccontextmanager
    async def streaming(
        self, specification: dict[str, Any], tool: str, **fields: Any
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        content = {"client_id": "a", "specification": specification, "tool": tool, "stream": True}
        body = json.dumps(content | fields).encode()
        path = "/mcp/call_tool"
        async with (
            http() as client,
            client.stream(
                "POST", self.url + path, content=body, headers=self.headers(path, body)
            ) as response,
        ):
            assert response.status_code == 200
            assert response.headers["content-type"] == "application/x-ndjson"

            async def frames() -> AsyncIterator[dict[str, Any]]:
                async for line in response.aiter_lines():
                    yield json.loads(line)

            yield frames()

    async def clients(self) -> int:
        async with http() as client:
            return (await client.get(self.url + "/health")).json()["clients"]


class Demo(Process):
    """The FastMCP demo server."""

    def __init__(self, transport: str, log: Path, *more: str) -> None:
        arguments = ["demo/server.py", "--transport", transport, "--port", "0", *more]
        super().__init__(arguments, {"PATH": os.environ["PATH"]}, log)
        self.url = self.wait_for(r"listening on (\S+)")[1]
        self.specification = {"transport": transport, "url": self.url}

    async def state(self) -> dict[str, int]:
        async with http() as client:
            return (await client.get(httpx2.URL(self.url).join("/state"))).json()


class Peer:
    """A TCP server in the test's loop: counts connections, notes when they close."""

    def __init__(self, handle: Callable[..., Any]) -> None:
        self._handle = handle
        self.opened = 0
        self.open = 0
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open += 1
        try:
            await self._handle(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def specification(self) -> dict[str, Any]:
        return {"transport": "http", "url": self.url}


@contextlib.asynccontextmanager
async def listening(handle: Callable[..., Any]) -> AsyncIterator[Peer]:
    peer = Peer(handle)
    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Request line, headers (lower case) and body of one HTTP/1.1 request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
    return head[0], headers, await reader.readexactly(int(headers.get("content-length", "0")))


def http_response(status: int, body: bytes, media_type: str = "application/json", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-type: {media_type}", f"content-length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition (plain or awaitable) holds; fail if it never does."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return
            await anyio.sleep(0.01)


@pytest.fixture(scope="session")
def shared_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="session")
def service(shared_logs: Path) -> Iterator[Service]:
    running = Service(shared_logs / "service")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def demo_http(shared_logs: Path) -> Iterator[Demo]:
    running = Demo("http", shared_logs / "http")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def demo_sse(shared_logs: Path) -> Iterator[Demo]:
    running = Demo("sse", shared_logs / "sse")
    yield running
    running.stop()


@pytest.fixture(params=["http", "sse"])
def demo(request: pytest.FixtureRequest) -> Demo:
    """The demo server, once over streamable HTTP and once over legacy SSE."""
    return request.getfixturevalue(f"demo_{request.param}")


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Services with settings of their own; each is stopped, and must exit with 0."""
    started: list[Service] = []

    def start(under: tuple[str, ...] = (), **settings: str) -> Service:
        started.append(Service(tmp_path / f"service-{len(started)}", under, **settings))
        return started[-1]

    yield start
    for running in started:
        # What a test killed, it killed.
        assert running.stop() in (0, -signal.SIGKILL)


def sha256_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


DEMO_PROGRAM = HERE / "demo" / "stdio_server.py"


class Stdio:
    """A stdio-mode service with the demo program in its catalogue, and what tests look at from outside."""

    def __init__(self, start: Callable[..., Service], folder: Path) -> None:
        self._start = start
        self.root = folder / "workspaces"
        self.catalogue = folder / "catalogue.json"
        # A copy, since a checkout may be writable by others, and such a program is not started.
        self.program = folder / "stdio_server.py"
        self.program.write_bytes(DEMO_PROGRAM.read_bytes())
        self.program.chmod(0o755)
        # An argument that no other process of this machine has.
        self.tag = f"tag-{secrets.token_hex(8)}"
        self.entry = {
            "name": "demo",
            "program": str(self.program),
            "arguments": ["{workspace}", self.tag],
            "sha256": sha256_of(str(self.program)),
            "environment": {"PATH": "/usr/local/bin:/usr/bin:/bin", "GREETING": "hello"},
        }
        self.settings = {
            "FASTMCP_MODE": "stdio",
            "FASTMCP_CATALOGUE": str(self.catalogue),
            "FASTMCP_STDIO_WORKSPACES": str(self.root),
        }

    def service(self, *more: dict[str, Any], under: tuple[str, ...] = (), **settings: str) -> Service:
        self.catalogue.write_text(json.dumps([self.entry, *more]))
        return self._start(under, **self.settings | settings)

    def specification(self, workspace: str = "org/_/one", catalogue: str = "demo") -> dict[str, Any]:
        return {"transport": "stdio", "catalogue": catalogue, "workspace": workspace}

    async def use(self, service: Service, tool: str, workspace: str = "org/_/one", **arguments: Any) -> Any:
        """The tool's answer; the client is named after the workspace."""
        specification = self.specification(workspace)
        response = await service.call(specification, tool, arguments=arguments, client_id=workspace)
        assert response.status_code == 200, response.text
        result = response.json()["result"]
        return result["content"][0]["text"] if result["isError"] else result["structuredContent"]["result"]

    def processes(self) -> list[int]:
        """Programs of this test that live, and their children."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and self.tag.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def workspaces(self) -> list[str]:
        try:
            return [str(path.relative_to(self.root)) for path in self.root.glob("*/*/*")]
        except FileNotFoundError:
            # One went while it was looked at.
            return self.workspaces()


@pytest.fixture
def stdio(start_service: Callable[..., Service], tmp_path: Path) -> Stdio:
    return Stdio(start_service, tmp_path)


@pytest.fixture
def boxed(tmp_path: Path) -> None:
    """For tests of what only a kernel that grants namespaces can hold."""
    catalogue = tmp_path / "empty.json"
    catalogue.write_text("[]")
    environment = {"FASTMCP_KEY": KEY, "FASTMCP_MODE": "stdio", "FASTMCP_CATALOGUE": str(catalogue)}
    try:
        read = settings.read(environment | {"FASTMCP_STDIO_WORKSPACES": str(tmp_path / "probing")})
        asyncio.run(boxes.isolated(read))
    except settings.SettingsError as refused:
        pytest.skip(f"this machine does not isolate programs: {refused}")
