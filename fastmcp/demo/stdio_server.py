#!/usr/bin/env python3
"""The stdio MCP server of the development stack: works with files in its workspace, and tries to get out.

    PATH=/usr/bin python3 demo/stdio_server.py [argument ...]

Half of its tools are what such a server is for; the other half are attacks, so that tests can see
what a hostile program reaches: the environment, the network, other processes, other people's files,
memory, and whoever reads what it writes. Standard library only: the catalogue starts it by itself.
"""

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

_lock = threading.Lock()
_cancelled = {}
_kept = []
_started = time.time_ns()


def echo(text):
    """Answer with the same text."""
    return text


def write_file(path, text):
    """Write a file below the working directory."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, "utf-8")
    return f"{len(text)} characters"


def read_file(path):
    """Read a file, wherever it is."""
    return Path(path).read_bytes()[:100_000].decode("utf-8", "replace")


def list_files(path="."):
    """Names in a directory, wherever it is."""
    return sorted(os.listdir(path))


def write_then_sleep(path, ms):
    """Write half of a file, and sleep before the rest."""
    Path(path).write_text("half", "utf-8")
    time.sleep(ms / 1000)
    Path(path).write_text("whole", "utf-8")
    return "written"


def remove_file(path):
    """Remove a file."""
    os.unlink(path)
    return "removed"


def link(path, target):
    """Make a symbolic link."""
    os.symlink(target, path)
    return "linked"


def pipe(path):
    """Make a named pipe: whoever opens it waits."""
    os.mkfifo(path)
    return "made"


def swap(path, target, seconds):
    """Be a directory and a symbolic link in turn, as fast as possible, after having answered."""

    def swapping():
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                os.rename(path, path + "-aside")
                os.symlink(target, path)
                os.unlink(path)
                os.rename(path + "-aside", path)
            except OSError:
                pass

    threading.Thread(target=swapping, daemon=True).start()
    return "swapping"


def sleep(ms, progress=None, is_cancelled=None):
    """Sleep, with progress every 100 ms."""
    began = time.monotonic()
    while (left := ms / 1000 - (time.monotonic() - began)) > 0:
        if is_cancelled is not None and is_cancelled.wait(min(0.1, left)):
            Path("cancelled").touch()
            return "cancelled"
        if progress is not None:
            progress(min(ms, round((time.monotonic() - began) * 1000)), ms)
    return f"slept {ms} ms"


def whoami():
    """Everything the process can tell about itself."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "environment": dict(os.environ),
        "arguments": sys.argv[1:],
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "process": os.getpid(),
        "started": _started,
        "threads": threading.active_count(),
        "directory": os.getcwd(),
        "mode": oct(os.stat(".").st_mode & 0o7777),
        "capabilities": status["CapEff"].strip(),
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "interfaces": [name for _, name in socket.if_nameindex()],
    }


def connect(host, port):
    """Try to reach an address: `connected`, or the error's name."""
    try:
        with socket.create_connection((host, port), timeout=3):
            return "connected"
    except OSError as error:
        return type(error).__name__ + ": " + str(error.strerror or error)


def connect_local(path):
    """Try to reach a Unix socket."""
    with socket.socket(socket.AF_UNIX) as local:
        try:
            local.connect(path)  # a leading NUL names an abstract one
        except OSError as error:
            return str(error.strerror)
    return "connected"


def spawn(count, seconds=600):
    """Start processes that leave session and group and would outlive this one; says how many it got."""
    started = 0
    for _ in range(count):
        try:
            child = os.fork()
        except OSError:
            break
        if child == 0:
            os.setsid()
            for number in (0, 1, 2):
                os.close(number)
            time.sleep(seconds)
            os._exit(0)
        started += 1
    return started


def allocate(bytes):
    """Take memory, use it, keep it."""
    try:
        _kept.append(b"x" * bytes)
    except MemoryError:
        return "MemoryError"
    return "taken"


def write_big(bytes):
    """Write one file of that size."""
    try:
        with open("big", "wb") as file:
            for _ in range(0, bytes, 1 << 20):
                file.write(b"x" * (1 << 20))
    except OSError as error:
        return str(error.strerror)
    return "written"


def write_odd(name_hex):
    """Write a file whose name is these bytes."""
    with open(os.path.join(b".", bytes.fromhex(name_hex)), "wb") as file:
        file.write(b"odd")
    return "written"


def write_many(count, bytes=0):
    """Write that many files of that size."""
    for number in range(count):
        Path(f"many-{number}").write_bytes(b"x" * bytes)
    return "written"


def nest(depth):
    """Leave directories of that depth, the last ones closed even to their owner."""
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    os.mkdir("closed")
    os.chmod("closed", 0)
    return "left"


def flood(bytes, newline=False, stderr=False):
    """Write what is no message."""
    line = b"x" * 1023 + (b"\n" if newline else b"x")
    with _lock:
        for _ in range(0, bytes, 1024):
            os.write(2 if stderr else 1, line)
    return "written"


def notify(count):
    """Send notifications as fast as possible."""
    params = {"level": "info", "data": 1}
    line = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params})
    with _lock:
        for _ in range(count):
            os.write(1, line.encode() + b"\n")
    return "sent"


def burn():
    """Use the processor without end."""
    while True:
        pass


def end(code=0):
    """End at once."""
    os._exit(code)


TOOLS = {
    tool.__name__: tool
    for tool in (
        *(echo, write_file, read_file, list_files, sleep, whoami, connect, connect_local),
        *(write_then_sleep, remove_file, link, pipe, swap, write_odd),
        *(spawn, allocate, write_big, write_many, nest, flood, notify, burn, end),
    )
}
_TYPES = {
    **dict.fromkeys(("text", "path", "host", "target", "name_hex"), "string"),
    **dict.fromkeys(("newline", "stderr"), "boolean"),
}
_READS_ONLY = {"echo", "read_file", "list_files", "sleep", "whoami", "connect", "connect_local"}


def definition(name, tool):
    names = tool.__code__.co_varnames[: tool.__code__.co_argcount]
    names = [argument for argument in names if argument not in ("progress", "is_cancelled")]
    optional = len(tool.__defaults__ or ()) - (2 if name == "sleep" else 0)
    return {
        "name": name,
        "description": tool.__doc__,
        "inputSchema": {
            "type": "object",
            "properties": {argument: {"type": _TYPES.get(argument, "integer")} for argument in names},
            "required": names[: len(names) - optional],
        },
        "annotations": {"readOnlyHint": name in _READS_ONLY},
    }


def send(message):
    with _lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def call(identifier, params):
    tool = TOOLS.get(params.get("name"))
    if tool is None:
        send({"id": identifier, "error": {"code": -32602, "message": "there is no such tool"}})
        return
    arguments = dict(params.get("arguments") or {})
    if tool is sleep:
        arguments["is_cancelled"] = _cancelled.setdefault(identifier, threading.Event())
        token = (params.get("_meta") or {}).get("progressToken")
        if token is not None:

            def progress(done, total):
                what = {"progressToken": token, "progress": done, "total": total}
                send({"method": "notifications/progress", "params": what})

            arguments["progress"] = progress
    try:
        value = tool(**arguments)
        failed = False
    except Exception as error:
        value, failed = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}", True
    result = {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}
    if not failed:
        result["structuredContent"] = {"result": value}
    send({"id": identifier, "result": {**result, "isError": failed}})


def answer(message):
    method, identifier, params = message.get("method"), message.get("id"), message.get("params") or {}
    if method == "notifications/cancelled":
        _cancelled.setdefault(params.get("requestId"), threading.Event()).set()
    elif identifier is None:
        return
    elif method == "initialize":
        send(
            {
                "id": identifier,
                "result": {
                    "protocolVersion": params.get("protocolVersion", "2025-06-18"),
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "switchboard-demo-stdio", "version": "0.1.0"},
                },
            }
        )
    elif method == "tools/list":
        send({"id": identifier, "result": {"tools": [definition(*tool) for tool in TOOLS.items()]}})
    elif method == "tools/call":
        threading.Thread(target=call, args=(identifier, params), daemon=True).start()
    elif method == "ping":
        send({"id": identifier, "result": {}})
    else:
        send({"id": identifier, "error": {"code": -32601, "message": "there is no such method"}})


if __name__ == "__main__":
    print("demo program started", file=sys.stderr, flush=True)
    for line in sys.stdin:
        answer(json.loads(line))
