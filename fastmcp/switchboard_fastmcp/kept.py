"""Workspaces of sessions: they outlive their clients, and what they hold is somebody else's truth.

A worker whose turn it is brings the directory to what the session's files are (`bring`, `put`),
calls the program, and takes what it changed (`collect`, `get`). Until it is collected again a
directory counts as touched, whatever its worker said last: one that was lost in between leaves it
to be put right. One is removed when its session ends (`drop`), and after idle minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio

from . import logs
from .failures import Failure
from .folders import MAX_ENTRIES, Excess, File, Folder, Manifest, Most
from .workspaces import Workspaces

MAX_ENDED = 20_000
"""Sessions remembered as over, so that a request that was on its way does not bring one back."""

_ANYTHING = Most(MAX_ENTRIES, 2**62, 2**62)

Result = TypeVar("Result")


@dataclass(eq=False)
class Kept:
    """One of them."""

    path: Path
    uid: int | None
    holder: str = ""
    settled: Manifest | None = None
    """What it held when it was last collected, if it held nothing else."""
    is_open: bool = False
    """A turn that has not been collected: its call may still run."""
    wanted: Manifest = field(default_factory=dict)
    staged: dict[str, Path] = field(default_factory=dict)
    """Outside of the program's reach: files on their way in or out, by their paths."""
    used_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def work(self, work: Callable[[Folder], Result]) -> Result:
        """In a thread, on the directory."""

        def run() -> Result:
            with Folder(self.path, self.uid) as folder:
                return work(folder)

        return await anyio.to_thread.run_sync(run)

    def unstage(self) -> None:
        for path in self.staged.values():
            path.unlink(missing_ok=True)
        self.staged.clear()


class KeptWorkspaces:
    """All of this service. Not for several threads."""

    def __init__(
        self,
        workspaces: Workspaces,
        most: int,
        idle_seconds: float,
        expel: Callable[[str], Awaitable[None]],
        is_used: Callable[[str], bool],
    ) -> None:
        self._workspaces = workspaces
        self._most = most
        self._idle_seconds = idle_seconds
        self._expel = expel
        self._is_used = is_used
        # Least recently brought first.
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._ended: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._numbers = itertools.count()
        workspaces.make_room = self._make_room

    async def bring(
        self, name: str, holder: str, digest: str, files: dict[str, File] | None
    ) -> dict[str, Any]:
        """Begin a turn. `current` says that the directory is what the digest says; else the files are
        asked for, and those that are `missing` are to be put."""
        if files is not None and digest_of(files) != digest:
            raise Failure("invalid", "digest: is not that of the files")
        for last in (False, True):
            kept = await self._taken(name)
            try:
                async with kept.lock:
                    if self._kept.get(name) is not kept:
                        raise _lost()
                    if kept.is_open and kept.holder != holder:
                        # Whoever had the turn was lost, and its call may still write.
                        await self._expel(name)
                    return await self._brought(kept, name, holder, digest, files)
            except OSError as error:
                logs.warning("a workspace could not be brought", workspace=name, cause=str(error.strerror))
                if last:
                    raise Failure("busy", "the workspace cannot be brought") from None
            # Whatever it is that a program left there: the program ends, and another directory is begun.
            await self._let_go(name)
        raise AssertionError("unreachable")

    async def _brought(
        self, kept: Kept, name: str, holder: str, digest: str, files: Manifest | None
    ) -> dict[str, Any]:
        kept.holder = holder
        kept.is_open = True
        kept.used_at = time.monotonic()
        kept.unstage()
        settled, kept.settled = kept.settled, None
        if settled is not None and digest_of(settled) == digest:
            # Without a client nobody writes; a program that lives may have, between its calls.
            nobody = self._workspaces.clients(name) == 1
            if nobody or await kept.work(lambda folder: _holds(folder, settled)):
                kept.wanted = settled
                return {"current": True, "missing": []}
        if files is None:
            return {"current": False, "missing": []}
        await kept.work(lambda folder: folder.keep_only(files))
        kept.wanted = files
        missing = await kept.work(lambda folder: _missing(folder, files))
        return {"current": not missing, "missing": missing}

    def check_turn(self, name: str, holder: str | None) -> None:
        """Refuse a call whose turn is over, or never was."""
        kept = self._kept.get(name)
        if kept is None or kept.holder != holder or not kept.is_open:
            raise _lost()

    async def put(self, name: str, holder: str, path: str, offset: int, piece: bytes) -> bool:
        """A piece of a file that was missing, in order; True once the file is in its place."""
        async with self._turn(name, holder) as kept:
            file = kept.wanted.get(path)
            if file is None or offset + len(piece) > file.size:
                raise Failure("invalid", "path: is no file that is wanted, or it is smaller")
            staged = kept.staged.get(path)
            if staged is None:
                staged = kept.staged[path] = self._stage()
            await anyio.to_thread.run_sync(_append, staged, offset, piece)
            if offset + len(piece) < file.size:
                return False
            del kept.staged[path]
            try:
                if await anyio.to_thread.run_sync(_sha256_of, staged) != file.sha256:
                    raise Failure("invalid", "sha256: is not that of the content")
                await kept.work(lambda folder: folder.place(path, staged))
            except OSError as error:
                # It was cleared before: the program runs and has its own ideas.
                raise Failure("busy", "the workspace cannot be written", cause=str(error.strerror)) from None
            finally:
                staged.unlink(missing_ok=True)
            return True

    async def collect(self, name: str, holder: str, most: Most) -> dict[str, Any]:
        """What differs from what was brought. Changed files are copied, so that what is got is what was
        told, whatever the program goes on to do."""
        async with self._turn(name, holder) as kept:
            kept.unstage()
            try:
                now, changed, skipped = await kept.work(lambda folder: self._compare(kept, folder, most))
            except Excess as excess:
                kept.unstage()
                kept.is_open = False
                return {"excess": excess.what, "path": excess.path}
            removed = [path for path in kept.wanted if path not in now]
            kept.is_open = False
            # What is no file of the session's goes when the next turn begins.
            kept.settled = None if skipped else now
            told = [{"path": path, "size": now[path].size, "sha256": now[path].sha256} for path in changed]
            return {"changed": told, "removed": removed, "skipped": skipped}

    async def get(self, name: str, holder: str, path: str, offset: int, size: int) -> bytes:
        """A piece of a file that was collected."""
        async with self._turn(name, holder) as kept:
            staged = kept.staged.get(path)
            if staged is None:
                raise Failure("invalid", "path: is no file that was collected")
            piece = await anyio.to_thread.run_sync(_piece, staged, offset, size)
            if offset + size >= staged.stat().st_size:
                # It is asked for in order, and once.
                del kept.staged[path]
                staged.unlink()
            return piece

    async def drop(self, organization: str, session: str) -> int:
        """End everything in the workspaces of a session and remove them; says how many there were."""
        self._ended[organization, session] = None
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        meant = [name for name in self._kept if _of(name) == (organization, session)]
        for name in meant:
            await self._let_go(name)
        return len(meant)

    async def close(self) -> None:
        """Let go of all, before the service stops."""
        for name in list(self._kept):
            await self._let_go(name)

    async def sweep(self) -> None:
        """Let go of those that nobody is in and nobody brought for the idle time."""
        oldest_kept = time.monotonic() - self._idle_seconds
        for name, kept in list(self._kept.items()):
            if kept.used_at < oldest_kept and self._is_idle(name, kept):
                await self._let_go(name)

    def _is_idle(self, name: str, kept: Kept) -> bool:
        return not self._is_used(name) and not kept.lock.locked()

    async def _make_room(self) -> None:
        for name, kept in self._kept.items():
            # Not between bringing and calling: the call would find nothing.
            if not kept.is_open and self._is_idle(name, kept):
                await self._let_go(name)
                return

    async def _taken(self, name: str) -> Kept:
        if _of(name) in self._ended:
            raise _lost()
        kept = self._kept.get(name)
        if kept is None:
            if len(self._kept) >= self._most:
                await self._make_room()
            workspace = await self._workspaces.take(name)
            kept = self._kept.get(name)
            if kept is not None or _of(name) in self._ended:
                # Somebody else was as quick, or it ended meanwhile.
                await self._workspaces.leave(name)
                return await self._taken(name)
            kept = self._kept[name] = Kept(workspace.path, workspace.uid)
            workspace.kept = True
        self._kept.move_to_end(name)
        return kept

    @contextlib.asynccontextmanager
    async def _turn(self, name: str, holder: str) -> AsyncIterator[Kept]:
        kept = self._kept.get(name)
        if kept is None:
            raise _lost()
        async with kept.lock:
            if kept.holder != holder or self._kept.get(name) is not kept:
                raise _lost()
            kept.used_at = time.monotonic()
            yield kept

    async def _let_go(self, name: str) -> None:
        kept = self._kept.pop(name, None)
        if kept is None:
            return
        self._workspaces.unkeep(name)
        # Whoever is in there ends first: what they hold is not theirs any more.
        await self._expel(name)
        async with kept.lock:
            kept.unstage()
        await self._workspaces.leave(name)

    def _compare(self, kept: Kept, folder: Folder, most: Most) -> tuple[Manifest, list[str], list[str]]:
        found = folder.find(most)
        now: Manifest = {}
        changed: list[str] = []
        copied = 0
        for path, size in found.sizes.items():
            known = kept.wanted.get(path)
            if known is not None and known.size == size and folder.read(path, most.file_bytes) == known:
                now[path] = known
                continue
            staged = self._stage()
            kept.staged[path] = staged
            # Files may grow while they are copied: the sum is bounded too.
            room = min(most.file_bytes, most.bytes - copied)
            with staged.open("ab", buffering=0) as copy:
                try:
                    file = folder.read(path, room, copy.fileno())
                except Excess:
                    raise (Excess("bytes") if room < most.file_bytes else Excess("file", path)) from None
            if file is None or file == known or file.size == 0:
                # Gone meanwhile, or what it was, or nothing to get.
                kept.staged.pop(path).unlink()
            if file is not None:
                copied += file.size
                now[path] = file
                if file != known:
                    changed.append(path)
        if sum(file.size for file in now.values()) > most.bytes:
            raise Excess("bytes")
        return now, changed, found.skipped

    def _stage(self) -> Path:
        return self._workspaces.staging / str(next(self._numbers))


def digest_of(files: Manifest) -> str:
    """SHA-256 over the lines `<sha256> <size> <path>`, in the order of the paths' bytes, each ended by
    a NUL: which no path holds."""
    digest = hashlib.sha256()
    for path in sorted(files, key=str.encode):
        digest.update(f"{files[path].sha256} {files[path].size} {path}\0".encode())
    return digest.hexdigest()


def _holds(folder: Folder, files: Manifest) -> bool:
    try:
        found = folder.find(_ANYTHING)
    except Excess:
        return False
    return found.sizes.keys() == files.keys() and not found.skipped and not _missing(folder, files)


def _missing(folder: Folder, files: Manifest) -> list[str]:
    missing = []
    for path, file in files.items():
        try:
            is_there = folder.read(path, file.size) == file
        except Excess:
            is_there = False
        if not is_there:
            missing.append(path)
    return missing


def _of(name: str) -> tuple[str, str]:
    organization, _, session = name.split("/")
    return organization, session


def _append(staged: Path, offset: int, piece: bytes) -> None:
    with staged.open("ab") as file:
        if file.tell() != offset:
            raise Failure("invalid", "offset: is not where the last piece ended")
        file.write(piece)


def _sha256_of(staged: Path) -> str:
    digest = hashlib.sha256()
    with staged.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _piece(staged: Path, offset: int, size: int) -> bytes:
    with staged.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def _lost() -> Failure:
    return Failure("lost", "the workspace is not here, or it is another's turn")
