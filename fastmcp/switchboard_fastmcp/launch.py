"""Starts one catalogue program in a box of its own.

Stands alone, and is run as `python -I -S launch.py PLAN STATUS`: two inherited descriptors. The plan
is a JSON object (`boxes.py` writes it). STATUS stays empty and ends when the program runs; else it
brings the reason. The box: namespaces of its own (network, processes, mounts, IPC), a read-only view
of the machine, a user id that owns nothing but the workspace, resource limits, and no environment but
the entry's. When this process ends, in whatever way, the kernel ends everything in the box.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import select
import signal
import stat
import struct
import sys
from typing import Any, NoReturn

INSIDE = "/run/workspace"
"""Where a boxed program finds its workspace: the same for everyone, so paths tell nothing of tenants."""

HIDDEN = ("/tmp", "/var/tmp", "/run", "/dev/shm", "/sys")  # noqa: S108 (made private, not used)
"""What every process of a machine may write to, or meet other processes' sockets in."""

NOT_VOUCHED_FOR = "the program is not the one in the catalogue"

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
SYS_MOUNT_SETATTR = 442  # the same on every architecture; Linux 5.12
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """Why the program is not started: for the operator's log."""


def _did(result: int, what: str) -> None:
    if result != 0:
        raise Refused(f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _did(result, f"mount {kind or 'bind'} at {target}")


def _set_attributes(path: str, add: int, remove: int, flags: int = 0) -> None:
    attributes = struct.pack("QQQQ", add, remove, 0, 0)
    result = _libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), flags, attributes, ctypes.c_size_t(len(attributes))
    )
    _did(result, "mount_setattr")


def _die_with_parent() -> None:
    _did(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def _program(plan: dict[str, Any]) -> int:
    """The program's descriptor. It is opened once: what was compared is what will be executed."""
    try:
        program = os.open(plan["program"], os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"the program cannot be opened: {error.strerror}") from None
    found = os.fstat(program)
    if not stat.S_ISREG(found.st_mode):
        raise Refused("the program is not a regular file")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        # They could change it between the comparison and the start.
        raise Refused("the program may be written by its group or by everybody")
    digest = hashlib.sha256()
    head = b""
    while chunk := os.read(program, 1 << 20):
        head = head or chunk[:2]
        digest.update(chunk)
    if digest.hexdigest() != plan["sha256"]:
        raise Refused(NOT_VOUCHED_FOR)
    if head == b"#!":
        # The interpreter opens the script through this descriptor, not through its path.
        os.set_inheritable(program, True)
    return program


def _unshare(network: bool) -> None:
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | (0 if network else CLONE_NEWNET)
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _did(_libc.unshare(flags), "unshare")
        return
    _did(_libc.unshare(flags | CLONE_NEWUSER), "unshare")
    maps = (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"))
    for name, content in maps:
        with open(f"/proc/self/{name}", "wb", buffering=0) as file:
            file.write(content.encode())


def _furnish(plan: dict[str, Any]) -> None:
    """A view of the machine in which nothing can be written but the workspace and private scratch space."""
    size = f"size={plan['limits']['file_bytes']},nr_inodes=10000"
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _set_attributes("/", ATTR_RDONLY | ATTR_NOSUID, 0, AT_RECURSIVE)
    workspace = os.open(plan["workspace"], os.O_PATH | os.O_DIRECTORY)
    for path in plan["hidden"]:
        if os.path.isdir(path) and not os.path.islink(path):
            mode = "0755" if path in ("/run", "/sys", plan["root"]) else "1777"
            _mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, f"{size},mode={mode}")
        elif os.path.isfile(path):
            _mount("/dev/null", path, None, MS_BIND)
    os.mkdir(INSIDE)
    _mount(f"/proc/self/fd/{workspace}", INSIDE, None, MS_BIND)
    _set_attributes(INSIDE, ATTR_NOSUID | ATTR_NODEV, ATTR_RDONLY)
    os.close(workspace)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _lower(plan: dict[str, Any]) -> None:
    """Be the first to be killed when memory is short, be patient with others, and nobody in particular."""
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(b"1000")
    os.nice(5)
    if (uid := plan["uid"]) is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _did(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    # A change of user clears it.
    _die_with_parent()


def _limit(limits: dict[str, int]) -> None:
    for kind, most in (
        (resource.RLIMIT_NPROC, limits["processes"]),
        # Private writable memory. Address space means nothing: runtimes reserve much more than they use.
        (resource.RLIMIT_DATA, limits["memory_bytes"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 65_536),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _become(plan: dict[str, Any], program: int) -> NoReturn:
    # Python ignores these two; a program expects the defaults.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    workspace = plan["workspace"] if plan["isolation"] == "none" else INSIDE
    os.chdir(workspace)
    os.umask(0o077)
    arguments = [text.replace("{workspace}", workspace) for text in plan["arguments"]]
    _limit(plan["limits"])
    os.execve(program, [plan["program"], *arguments], plan["environment"])  # noqa: S606 (the operator's)


def _reaper(plan: dict[str, Any], program: int, status: int, parent: int) -> NoReturn:
    """Process 1 of the box. When it ends, the kernel kills whatever is left in there."""
    _furnish(plan)
    _lower(plan)
    if select.select([parent], [], [], 0)[0]:
        os._exit(1)  # the launcher was gone before the kernel was told to watch it
    if plan["probe"]:
        os._exit(0)
    child = os.fork()
    if child == 0:
        _guarded(status, lambda: _become(plan, program))
    for descriptor in (0, 1, 2, status, program):
        os.close(descriptor)
    while True:
        ended, code = os.wait()
        if ended == child:
            os._exit(max(0, os.waitstatus_to_exitcode(code)))


def _boxed(plan: dict[str, Any], program: int, status: int) -> NoReturn:
    _unshare(network=plan["isolation"] == "network")
    watched, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(held)
        _guarded(status, lambda: _reaper(plan, program, status, watched))
    # Ending the box and then this process, in this order, means that nothing is left once it has ended.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    for descriptor in (0, 1, 2, status, watched):
        os.close(descriptor)
    _, code = os.waitpid(child, 0)
    os._exit(0 if code == 0 else 1)


def _guarded(status: int, work: Any) -> NoReturn:
    """Run what does not return; whatever it raises is the reason told."""
    try:
        work()
    except Refused as refused:
        reason = str(refused)
    except OSError as error:
        reason = f"the program cannot be started: {error.strerror}"
    except BaseException as error:
        reason = f"the launcher failed: {type(error).__name__}"
    os.write(status, reason.encode())
    os._exit(1)


def _start(plan: dict[str, Any], status: int) -> NoReturn:
    _die_with_parent()
    if os.getppid() != plan["parent"]:
        os._exit(1)
    program = -1 if plan["probe"] else _program(plan)
    if plan["isolation"] != "none":
        _boxed(plan, program, status)
    _lower(plan)
    if plan["probe"]:
        os._exit(0)
    _become(plan, program)


def main() -> None:
    plan, status = (int(text) for text in sys.argv[1:3])
    os.set_inheritable(status, False)
    with os.fdopen(plan, "rb") as file:
        read = json.load(file)
    _guarded(status, lambda: _start(read, status))


if __name__ == "__main__":
    main()
