"""The operator's catalogue: the programs that stdio mode may start, and nothing else may.

A JSON list of entries `{"name", "description"?, "program", "arguments"?, "sha256", "environment"?}`.
The token workers read names and descriptions of the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_FILE_BYTES = 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PLACEHOLDER = re.compile(r"\{\w*\}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"name", "description", "program", "arguments", "sha256", "environment"}


@dataclass(frozen=True)
class Program:
    """One entry: an absolute path, arguments (`{workspace}` is the directory), the whole environment."""

    name: str
    program: str
    arguments: tuple[str, ...]
    sha256: str
    environment: dict[str, str] = field(repr=False)


def read(path: str) -> tuple[dict[str, Program], list[str]]:
    """The entries by name, and what is wrong with the file, one sentence each."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        entries = json.loads(content) if len(content) <= MAX_FILE_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}, ["is not a readable JSON file"]
    if not isinstance(entries, list):
        return {}, ["is not a JSON list of entries, of at most 1 MiB"]
    programs: dict[str, Program] = {}
    problems: list[str] = []
    for place, entry in enumerate(entries):
        program = _program(entry)
        if isinstance(program, str):
            problems.append(f"entry {_label(entry, place)}: {program}")
        elif program.name in programs:
            problems.append(f"entry {program.name!r}: stands twice")
        else:
            programs[program.name] = program
    return programs, problems


def _label(entry: Any, place: int) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return repr(name[:64]) if isinstance(name, str) else str(place)


def _program(entry: Any) -> Program | str:
    if not isinstance(entry, dict) or set(entry) - _FIELDS:
        return f"is not an object of {', '.join(sorted(_FIELDS))}"
    name, program, sha256 = entry.get("name"), entry.get("program"), entry.get("sha256")
    arguments, environment = entry.get("arguments", []), entry.get("environment", {})
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "name is not 1 to 64 of A-Z a-z 0-9 . _ -"
    if not isinstance(entry.get("description", ""), str):
        return "description is not a string"
    if not _is_text(program) or not os.path.isabs(program) or os.path.normpath(program) != program:
        return "program is not an absolute path"
    if not isinstance(arguments, list) or not all(_is_text(argument) for argument in arguments):
        return "arguments is not a list of strings"
    if any(found != "{workspace}" for text in arguments for found in _PLACEHOLDER.findall(text)):
        return "arguments hold a placeholder other than {workspace}"
    if not isinstance(environment, dict) or not all(
        _is_text(text) and "=" not in key and key and _is_text(key) for key, text in environment.items()
    ):
        return "environment is not an object of strings"
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        return "sha256 is not 64 lower-case hex digits"
    return _problem(program, sha256) or Program(name, program, tuple(arguments), sha256, dict(environment))


def _problem(program: str, sha256: str) -> str | None:
    """Told at start, so that nobody finds out at the first call; compared again at every start of it."""
    try:
        mode = os.stat(program).st_mode
        if not stat.S_ISREG(mode):
            return "program is not a regular file"
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "program may be written by its group or by everybody"
        if hashlib.sha256(Path(program).read_bytes()).hexdigest() != sha256:
            return "sha256 is not that of the program's file"
    except OSError:
        return "program cannot be read"
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value
