"""Directories that programs work in: `root/<organization>/<user or _>/<configuration or session>`.

One is made when its first client starts and removed when its last one has ended; a session's is kept
in between (`kept.py`). Beside this service nobody writes below the root. Where the service runs as
root, each workspace has a user id of its own while it is in use, so that no program can touch
another's files or processes.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from . import logs
from .failures import Failure

MAX_ENTRIES = 20_000
MARK = ".switchboard-workspaces"
"""Says that what lies beside it is ours to remove."""

STAGING = ".staging"
"""Beside the workspaces, and no program's: files of sessions on their way in or out."""


@dataclass
class Workspace:
    """A directory, mode 0700, and the user id that owns it (None: the service's own)."""

    path: Path
    uid: int | None
    clients: int = 0
    kept: bool = False
    """A session's: there without a client too, which counts as one more."""


class Workspaces:
    """Those in use. Not for several threads."""

    def __init__(self, root: Path, uids: range | None) -> None:
        self._root = root
        self._free = None if uids is None else deque(uids)
        self._used: dict[str, Workspace] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self.staging = root / STAGING
        self.staging.mkdir(mode=0o700, exist_ok=True)
        self.make_room: Callable[[], Awaitable[None]] | None = None
        """Lets go of a workspace that nobody is in, if there is one."""

    def clients(self, name: str) -> int:
        """How many are in it."""
        workspace = self._used.get(name)
        return 0 if workspace is None else workspace.clients

    async def take(self, name: str, kept: bool = False) -> Workspace:
        """The workspace of this name, empty unless somebody is in it already. Give it back with `leave`.

        `kept`: only if it is one that is kept, since another would be empty."""
        await self._ready(name, kept)
        workspace = self._used.get(name)
        if kept and (workspace is None or not workspace.kept):
            raise Failure("lost", "the workspace is not here")
        if workspace is None:
            workspace = self._used[name] = self._make(name)
        workspace.clients += 1
        return workspace

    async def leave(self, name: str) -> None:
        """One client less. The last one's processes must have ended."""
        workspace = self._used[name]
        workspace.clients -= 1
        if workspace.clients == 0:
            del self._used[name]
            task = self._leaving[name] = asyncio.create_task(self._remove(name, workspace))
            await asyncio.shield(task)

    def unkeep(self, name: str) -> None:
        """It goes with its last client from now on, of which the keeper still counts as one."""
        self._used[name].kept = False

    async def _ready(self, name: str, kept: bool) -> None:
        """Wait until what has this name is removed and a user id is free, if one is about to be."""
        has_made_room = False
        while True:
            if (leaving := self._leaving.get(name)) is not None:
                await asyncio.shield(leaving)
            elif kept or name in self._used or self._free is None or self._free:
                return
            elif self._leaving:
                await asyncio.wait(self._leaving.values(), return_when=asyncio.FIRST_COMPLETED)
            elif has_made_room or self.make_room is None:
                return
            else:
                has_made_room = True
                await self.make_room()

    def _make(self, name: str) -> Workspace:
        if self._free is not None and not self._free:
            raise Failure("busy", "every user id for programs is in use")
        uid = None if self._free is None else self._free[0]
        path = self._root / name
        try:
            for parent in reversed(path.relative_to(self._root).parents[:-1]):
                (self._root / parent).mkdir(mode=0o711, exist_ok=True)
            path.mkdir(mode=0o700)
            if uid is not None:
                os.chown(path, uid, uid)
        except OSError as error:
            raise Failure("internal", "no workspace could be made", cause=str(error.strerror)) from None
        if self._free is not None:
            # The longest unused comes first, the one just used last.
            self._free.popleft()
        return Workspace(path, uid)

    async def _remove(self, name: str, workspace: Workspace) -> None:
        try:
            await remove(workspace.path)
            for parent in workspace.path.relative_to(self._root).parents[:-1]:
                try:
                    (self._root / parent).rmdir()
                except OSError:
                    break
        finally:
            del self._leaving[name]
            if self._free is not None and workspace.uid is not None:
                self._free.append(workspace.uid)


def is_within(path: Path, most_bytes: int) -> bool:
    """Whether the files below take no more room than that, and are no more than `MAX_ENTRIES`."""
    taken, entries, folders = 0, 0, [str(path)]
    while folders:
        try:
            with os.scandir(folders.pop()) as listing:
                for entry in listing:
                    taken += entry.stat(follow_symlinks=False).st_blocks * 512
                    entries += 1
                    if taken > most_bytes or entries > MAX_ENTRIES:
                        return False
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError as error:
            # What vanished or was closed meanwhile does not count; what lies too deep to be counted does.
            if error.errno == errno.ENAMETOOLONG:
                return False
    return True


async def remove(path: Path) -> None:
    """Remove a directory with all that a hostile program may have left there: any depth, any mode."""
    # Python's own walks recurse and hold a descriptor per level.
    for command in (("chmod", "-R", "u+rwX"), ("rm", "-rf")):
        if command[0] == "chmod" and os.geteuid() == 0:
            continue
        process = await asyncio.create_subprocess_exec(
            *command,
            "--",
            str(path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await process.wait()
    if os.path.lexists(path):  # noqa: ASYNC240 (one look)
        logs.error("a workspace could not be removed", path=str(path))


def prepared(root: Path) -> str | None:
    """Make the root and mark it as ours, or say what is wrong with it."""
    try:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not (root / MARK).exists():
            if any(root.iterdir()):
                return "is not empty and was not made by this service"
            (root / MARK).touch(mode=0o600)
        # Where there are no namespaces, programs reach their own directory through it by name.
        os.chmod(root, 0o711)  # noqa: S103
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    return None


async def swept(root: Path) -> None:
    """Remove what a killed service has left."""
    for left in os.listdir(root):
        if left != MARK:
            await remove(root / left)
