"""Reading and writing below a directory that somebody else changes at the same time.

A program owns its workspace and may swap anything in it for a symbolic link while we look. So
nothing here follows one and no path is resolved twice: each directory is opened from the one above
it, and what is done is done to what was opened. Everything blocks, and belongs in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAX_DEPTH = 32
"""Levels that are looked into; the worker allows fewer."""

MAX_ENTRIES = 20_000
MAX_SKIPPED = 100

_CHUNK_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class File:
    """What one is told by: bytes, and lower-case hexadecimal."""

    size: int
    sha256: str


Manifest = dict[str, File]
"""By path, whose segments are joined with `/`."""


@dataclass(frozen=True)
class Most:
    """What a workspace may hold."""

    files: int
    bytes: int
    file_bytes: int


class Excess(Exception):
    """There is more than may be collected: `files`, `bytes` or, with its path, `file`."""

    def __init__(self, what: str, path: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.path = path


@dataclass
class Found:
    """What lies in a workspace: sizes of regular files by path, and names of what else."""

    sizes: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    entries: int = 0

    def skip(self, path: str) -> None:
        if len(self.skipped) < MAX_SKIPPED:
            # A name need not be text.
            self.skipped.append(os.fsencode(path).decode("utf-8", "replace"))


class Folder:
    """A workspace's directory, held open. `uid`: whose everything in it is, if not ours."""

    def __init__(self, path: Path, uid: int | None) -> None:
        self._uid = uid
        self._top = _allowed(None, str(path), _FOLDER)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._top)

    def find(self, most: Most) -> Found:
        """Every regular file, or `Excess`. Symbolic links, pipes and the like are named, not opened."""
        found = Found()
        self._find(self._top, "", 1, found)
        if len(found.sizes) > most.files:
            raise Excess("files")
        for path, size in found.sizes.items():
            if size > most.file_bytes:
                raise Excess("file", path)
        if sum(found.sizes.values()) > most.bytes:
            raise Excess("bytes")
        return found

    def _find(self, folder: int, prefix: str, depth: int, found: Found) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                found.entries += 1
                if found.entries > MAX_ENTRIES:
                    raise Excess("files")
                path = prefix + entry.name
                try:
                    seen = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                if stat.S_ISREG(seen.st_mode) and _is_text(entry.name) and self._owns(seen):
                    found.sizes[path] = seen.st_size
                elif stat.S_ISDIR(seen.st_mode) and _is_text(entry.name) and depth < MAX_DEPTH:
                    self._find_below(folder, entry.name, path, depth, found)
                else:
                    found.skip(path)

    def _find_below(self, folder: int, name: str, path: str, depth: int, found: Found) -> None:
        try:
            below = _allowed(folder, name, _FOLDER)
        except OSError:
            found.skip(path)
            return
        try:
            self._find(below, f"{path}/", depth + 1, found)
        finally:
            os.close(below)

    def read(self, path: str, most_bytes: int, into: int | None = None) -> File | None:
        """What a file holds, copied into a descriptor if asked; None if it is no file of the program's."""
        try:
            with self._above(path) as (folder, name):
                file = _allowed(folder, name, _FILE)
        except OSError:
            return None
        try:
            seen = os.fstat(file)
            if not stat.S_ISREG(seen.st_mode) or not self._owns(seen):
                return None
            digest, size = hashlib.sha256(), 0
            while chunk := os.read(file, _CHUNK_BYTES):
                size += len(chunk)
                if size > most_bytes:
                    # It grows while it is read.
                    raise Excess("file", path)
                digest.update(chunk)
                if into is not None:
                    _write(into, chunk)
            return File(size, digest.hexdigest())
        finally:
            os.close(file)

    def keep_only(self, wanted: Manifest) -> None:
        """Remove all that is not wanted. Raises `OSError` where that is not to be had this way: what lies
        too deep, or moves about."""
        folders = {parent for path in wanted for parent in _parents(path)}
        self._keep_only(self._top, "", wanted, folders, 1)

    def _keep_only(self, folder: int, prefix: str, wanted: Manifest, folders: set[str], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, MAX_ENTRIES + 1)]
        if len(names) > MAX_ENTRIES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        for name in names:
            # A running program may be quicker.
            with contextlib.suppress(FileNotFoundError):
                self._keep_or_remove(folder, name, prefix + name, wanted, folders, depth)

    def _keep_or_remove(
        self, folder: int, name: str, path: str, wanted: Manifest, folders: set[str], depth: int
    ) -> None:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            if path not in wanted or not stat.S_ISREG(mode):
                os.unlink(name, dir_fd=folder)
            return
        below = _allowed(folder, name, _FOLDER)
        try:
            self._keep_only(below, f"{path}/", wanted, folders, depth + 1)
        finally:
            os.close(below)
        if path not in folders:
            os.rmdir(name, dir_fd=folder)

    def place(self, path: str, staged: Path) -> None:
        """Move a finished file to its path. Raises `OSError` where something is in its way."""
        with self._above(path, make=True) as (folder, name):
            file = os.open(staged, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fchmod(file, 0o600)
                if self._uid is not None:
                    os.fchown(file, self._uid, self._uid)
            finally:
                os.close(file)
            # Replaces a symbolic link, never what it points to.
            os.rename(staged, name, dst_dir_fd=folder)

    @contextlib.contextmanager
    def _above(self, path: str, make: bool = False) -> Iterator[tuple[int, str]]:
        *folders, name = path.split("/")
        held = os.dup(self._top)
        try:
            for segment in folders:
                below = self._made(held, segment) if make else _allowed(held, segment, _FOLDER)
                os.close(held)
                held = below
            yield held, name
        finally:
            os.close(held)

    def _made(self, folder: int, name: str) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
        below = _allowed(folder, name, _FOLDER)
        if self._uid is not None and os.fstat(below).st_uid == os.geteuid():
            os.fchown(below, self._uid, self._uid)
        return below

    def _owns(self, seen: os.stat_result) -> bool:
        return seen.st_uid == (os.geteuid() if self._uid is None else self._uid)


def _allowed(folder: int | None, name: str, flags: int) -> int:
    """Open, also what the program has closed to its own user, who may be ours."""
    try:
        return os.open(name, flags, dir_fd=folder)
    except PermissionError:
        # A descriptor of the thing itself: by its name, it could be another by now.
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if not stat.S_ISLNK(os.fstat(held).st_mode):
                os.chmod(f"/proc/self/fd/{held}", 0o700)
        finally:
            os.close(held)
        return os.open(name, flags, dir_fd=folder)


def _parents(path: str) -> list[str]:
    segments = path.split("/")
    return ["/".join(segments[:count]) for count in range(1, len(segments))]


def _write(file: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(file, rest) :]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
