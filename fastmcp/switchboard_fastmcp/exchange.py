"""The endpoints by which a worker brings a session's files to its workspace, and takes them from there.

Contents travel in pieces, so that the bounds and signatures of every other request hold for them too.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import ValidationError

from . import shapes
from .answers import json_response
from .clients import Clients
from .failures import Failure
from .folders import File, Most
from .kept import KeptWorkspaces


def add_routes(app: FastAPI, clients: Clients) -> None:
    """Those of the stdio mode; in the other one they say so."""

    def kept() -> KeptWorkspaces:
        if clients.kept is None:
            raise Failure("invalid", "workspace: stdio is not served by this deployment")
        return clients.kept

    @app.post("/workspaces/bring")
    async def bring(body: shapes.Bring) -> Response:
        files = None
        if body.files is not None:
            files = {file.path: File(file.size, file.sha256) for file in body.files}
        return json_response(await kept().bring(body.workspace, body.holder, body.digest, files))

    @app.post("/workspaces/put")
    async def put(request: Request) -> Response:
        head, newline, content = (await request.body()).partition(b"\n")
        body = _piece(head)
        if not newline or len(content) != body.size:
            raise Failure("invalid", "size: is not that of the content")
        placed = await kept().put(body.workspace, body.holder, body.path, body.offset, content)
        return json_response({"placed": placed})

    @app.post("/workspaces/collect")
    async def collect(body: shapes.Collect) -> Response:
        most = Most(body.max_files, body.max_bytes, body.max_file_bytes)
        return json_response(await kept().collect(body.workspace, body.holder, most))

    @app.post("/workspaces/get")
    async def get(body: shapes.Piece) -> Response:
        piece = await kept().get(body.workspace, body.holder, body.path, body.offset, body.size)
        return Response(piece, media_type="application/octet-stream")

    @app.post("/workspaces/drop")
    async def drop(body: shapes.Drop) -> Response:
        return json_response({"dropped": await kept().drop(body.organization, body.session)})


def _piece(head: bytes) -> shapes.Piece:
    try:
        read: Any = json.loads(head)
        return shapes.Piece.model_validate(read)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"]) or "body"
        raise Failure("invalid", f"{field[:200]}: {error.errors()[0]['msg']}") from None
    except (ValueError, RecursionError):
        raise Failure("invalid", "body: does not begin with a line of JSON") from None
