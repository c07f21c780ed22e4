"""Boxes: one program each, with its launcher (`launch.py`), from the start to the certain end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from . import launch, logs
from .catalogue import Program
from .failures import Failure
from .settings import Settings, SettingsError, Stdio
from .workspaces import Workspace

EXIT_SECONDS = 1.0
"""How long a program may take to end after its input was closed (MCP, stdio, shutdown)."""

KILL_SECONDS = 5.0


class Box:
    """A started launcher. Whoever has one must `end` it."""

    def __init__(self, process: asyncio.subprocess.Process, status: int, boxed: bool, uid: int | None):
        self.process = process
        self._status = status
        self._boxed = boxed
        self._uid = uid

    @staticmethod
    async def start(program: Program | None, workspace: Workspace, stdio: Stdio) -> Box:
        """In a session and process group of its own."""
        process, status = await _launched(_plan(program, workspace, stdio))
        return Box(process, status, stdio.isolation != "none", workspace.uid)

    async def runs(self) -> None:
        """Wait until the program runs, or raise what kept it from running."""
        reason = await self.told()
        if reason == launch.NOT_VOUCHED_FOR:
            raise Failure("unreachable", reason)
        if reason:
            raise Failure("unreachable", "the program cannot be started", cause=reason)

    async def told(self) -> str:
        """Why the launcher could not do as it was told; empty if it could."""
        reader = asyncio.StreamReader()
        status, self._status = self._status, -1
        pipe = os.fdopen(status, "rb", buffering=0)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            return (await reader.read(1000)).decode("utf-8", "replace")
        finally:
            transport.close()

    async def end(self) -> None:
        """Close the program's input, give it a moment, and kill everything in the box."""
        if self._status >= 0:
            os.close(self._status)
        assert self.process.stdin is not None
        self.process.stdin.close()
        steps = ((None, EXIT_SECONDS), (signal.SIGTERM, KILL_SECONDS), (signal.SIGKILL, KILL_SECONDS))
        for number, seconds in steps:
            if number is not None:
                self._signal(number)
            if await self._has_ended(seconds):
                break
        else:
            logs.error("a program could not be ended", process=self.process.pid)
        if not self._boxed:
            await self._kill_the_rest()
        # A pipe that nobody reads any more never comes to its end by itself. Nothing public closes it.
        with contextlib.suppress(PermissionError):
            self.process._transport.close()  # type: ignore[attr-defined]

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # At SIGTERM the launcher ends the box, and then itself. Without a box it is the program.
            if number == signal.SIGTERM:
                self.process.send_signal(number)
            else:
                os.killpg(self.process.pid, number)

    async def _has_ended(self, seconds: float) -> bool:
        # Not `wait()`: that waits for the ends of the pipes too, which a survivor may hold open.
        deadline = time.monotonic() + seconds
        while self.process.returncode is None:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.01)
        return True

    async def _kill_the_rest(self) -> None:
        """Without a box, what a program has started may outlive it: its group, and its user's processes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self._uid is not None:
            # Becomes that user itself, which need not be able to reach our interpreter's file.
            everything = f"import os; os.setgroups([]); os.setresuid(*[{self._uid}] * 3); os.kill(-1, 9)"
            killer = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-S", "-c", everything),
                cwd="/",
                stderr=asyncio.subprocess.DEVNULL,
            )
            await killer.wait()


def _plan(program: Program | None, workspace: Workspace, stdio: Stdio) -> dict[str, Any]:
    """What the launcher is to do; without a program, only whether it could."""
    root = str(stdio.root)
    entry = {} if program is None else asdict(program)
    return entry | {
        "probe": program is None,
        "parent": os.getpid(),
        "workspace": str(workspace.path),
        "root": root,
        "uid": workspace.uid,
        "hidden": [*launch.HIDDEN, root, stdio.catalogue_path],
        "isolation": stdio.isolation,
        "limits": stdio.limits,
    }


async def _launched(plan: dict[str, Any]) -> tuple[asyncio.subprocess.Process, int]:
    # Neither an argument nor a variable: those are readable in /proc, and an environment may be confidential.
    plan_file = os.memfd_create("plan")
    status, told = os.pipe()
    try:
        os.write(plan_file, json.dumps(plan).encode())
        os.lseek(plan_file, 0, os.SEEK_SET)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", str(Path(launch.__file__)), str(plan_file), str(told)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
            pass_fds=(plan_file, told),
        )
    except BaseException as error:
        os.close(status)
        if isinstance(error, OSError):
            raise Failure("busy", "no further program can be started", cause=str(error.strerror)) from None
        raise
    finally:
        os.close(plan_file)
        os.close(told)
    return process, status


async def isolated(settings: Settings) -> Settings:
    """The same settings with the best isolation that this machine grants, or `SettingsError`."""
    stdio = settings.stdio
    assert stdio is not None
    reasons = []
    for isolation in ("full", "network", "none") if stdio.allow_network else ("full",):
        candidate = replace(stdio, isolation=isolation)
        if (reason := await _refusal(candidate)) is None:
            return replace(settings, stdio=candidate)
        reasons.append(reason)
    advice = "namespaces are refused here; 1 starts programs without, and only the container holds them"
    raise SettingsError([f"FASTMCP_STDIO_ALLOW_NETWORK={int(stdio.allow_network)}: {advice} ({reasons[0]})"])


async def _refusal(stdio: Stdio) -> str | None:
    place = stdio.root / "probe"
    place.mkdir(mode=0o700)
    try:
        box = await Box.start(None, Workspace(place, None if stdio.uids is None else stdio.uids[0]), stdio)
        try:
            return await box.told() or None
        finally:
            await box.end()
    finally:
        place.rmdir()
