"""The HTTP interface: five endpoints, each a few lines on top of `Clients`; more in `exchange.py`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from . import exchange, shapes
from .answers import Frames, json_response, work_for
from .clients import Clients
from .edge import Edge
from .failures import Failure
from .settings import Settings
from .upstream import Upstream


def build(settings: Settings) -> FastAPI:
    """The application. Its clients live as long as its lifespan."""
    clients = Clients(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(clients.sweep_forever())
        try:
            yield
        finally:
            sweeper.cancel()
            await clients.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(Edge, settings=settings)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    _add_routes(app, clients, settings)
    exchange.add_routes(app, clients)
    return app


def _add_routes(app: FastAPI, clients: Clients, settings: Settings) -> None:
    @app.get("/health")
    async def health() -> Response:
        isolation = {} if settings.stdio is None else {"isolation": settings.stdio.isolation}
        return json_response({"status": "ok", "clients": len(clients), "mode": settings.mode} | isolation)

    @app.post("/mcp/connect")
    async def connect(request: Request, body: shapes.Connect) -> Response:
        async def work(upstream: Upstream, new: bool) -> dict[str, Any]:
            connected = "new" if new else "existing"
            return {"client_id": body.client_id, **upstream.describe(), "connected": connected}

        return await work_for(request, body, lambda: clients.on(body.client_id, body.specification, work))

    @app.post("/mcp/list_tools")
    async def list_tools(request: Request, body: shapes.Connect) -> Response:
        async def work(upstream: Upstream, _: bool) -> dict[str, Any]:
            return {"tools": await upstream.list_tools()}

        return await work_for(request, body, lambda: clients.on(body.client_id, body.specification, work))

    @app.post("/mcp/call_tool")
    async def call_tool(request: Request, body: shapes.CallTool) -> Response:
        # Refused with its proper status, also where frames would follow.
        body.specification.check(settings)
        frames = Frames(request, body) if body.stream else None
        on_progress = frames.progress if frames else None

        async def work(upstream: Upstream, _: bool) -> dict[str, Any]:
            clients.check_turn(body.specification, body.holder)
            result = await upstream.call_tool(body.tool, body.arguments, body.meta, on_progress)
            return {"result": result}

        def call() -> Awaitable[dict[str, Any]]:
            return clients.on(body.client_id, body.specification, work)

        return frames.during(call) if frames else await work_for(request, body, call)

    @app.post("/mcp/disconnect")
    async def disconnect(body: shapes.Disconnect) -> Response:
        return json_response({"disconnected": clients.disconnect(body.client_id)})


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    path = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        raise Failure("invalid", "body: is not JSON")
    field = ".".join(path) or "body"
    raise Failure("invalid", f"{field[:200]}: {first['msg'].removeprefix('Value error, ')}")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "there is no such endpoint", 405: "the method is not allowed"}
    raise Failure("invalid", messages.get(error.status_code, "body: is not JSON"), status=error.status_code)
