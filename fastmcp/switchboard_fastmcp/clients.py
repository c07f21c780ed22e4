"""All clients of this replica: found by id, connected once, expired when idle, bounded in number."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import httpx2

from . import logs
from .failures import Failure, SessionLost
from .kept import KeptWorkspaces
from .settings import Settings
from .shapes import Specification
from .transports import Means
from .upstream import Upstream
from .workspaces import Workspaces

Result = TypeVar("Result")


class Clients:
    """Least recently used first. Nothing awaits between looking a client up and entering it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        stdio = settings.stdio
        workspaces = None if stdio is None else Workspaces(stdio.root, stdio.uids)
        # One for all: loading the certificate store takes longer than a call does.
        self._means = Means(settings, httpx2.create_ssl_context(), workspaces)
        self.kept = workspaces and KeptWorkspaces(
            workspaces, settings.max_clients, settings.idle_seconds, self.expel, self.is_used
        )
        self._clients: OrderedDict[str, Upstream] = OrderedDict()
        # Replaced, expired or evicted, and not released yet.
        self._leaving: set[Upstream] = set()
        self._closers: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._clients)

    async def on(
        self,
        client_id: str,
        specification: Specification,
        work: Callable[[Upstream, bool], Awaitable[Result]],
    ) -> Result:
        """Run `work(client, new)` on a connected client; once more if its session proved dead."""
        specification.check(self._settings)
        for last in (False, True):
            async with self._use(client_id, specification) as (upstream, new):
                try:
                    return await work(upstream, new)
                except SessionLost as lost:
                    self._forget(upstream)
                    if last:
                        raise
                    logs.info("session lost, connecting anew", client_id=client_id, cause=lost.cause)
        raise AssertionError("unreachable")

    def disconnect(self, client_id: str) -> bool:
        """Let go of a client. Calls that run on it end before it does."""
        upstream = self._clients.get(client_id)
        if upstream is None:
            return False
        self._forget(upstream)
        return True

    def check_turn(self, specification: Specification, holder: str | None) -> None:
        """Refuse with `lost` a call in a workspace that is kept when it is not its turn."""
        if specification.kept and self.kept is not None:
            self.kept.check_turn(specification.workspace or "", holder)

    def is_used(self, workspace: str) -> bool:
        """Whether a call runs in a workspace."""
        everyone = (*self._clients.values(), *self._leaving)
        return any(one.users > 0 and one.specification.workspace == workspace for one in everyone)

    async def expel(self, workspace: str) -> None:
        """End the clients in a workspace, whatever runs on them, and wait until they are released."""
        everyone = {*self._clients.values(), *self._leaving}
        meant = [upstream for upstream in everyone if upstream.specification.workspace == workspace]
        for upstream in meant:
            self._forget(upstream)
            upstream.stop()
        await asyncio.gather(*(upstream.closed() for upstream in meant))

    async def sweep_forever(self) -> None:
        """Expire what nobody used for the configured time."""
        idle_seconds = self._settings.idle_seconds
        while True:
            await asyncio.sleep(min(5.0, idle_seconds / 4))
            oldest_kept = time.monotonic() - idle_seconds
            for upstream in list(self._clients.values()):
                if upstream.gone or (upstream.users == 0 and upstream.used_at < oldest_kept):
                    self._forget(upstream)
            if self.kept is not None:
                await self.kept.sweep()

    async def close(self) -> None:
        """Disconnect everything and wait until it is released."""
        everyone = {*self._clients.values(), *self._leaving}
        self._clients.clear()
        for upstream in everyone:
            upstream.stop()
        if everyone:
            await asyncio.gather(*(upstream.closed() for upstream in everyone))
        if self.kept is not None:
            await self.kept.close()

    @contextlib.asynccontextmanager
    async def _use(
        self, client_id: str, specification: Specification
    ) -> AsyncIterator[tuple[Upstream, bool]]:
        upstream, new = self._find(client_id, specification)
        upstream.users += 1
        try:
            await upstream.opened()
            yield upstream, new
        except asyncio.CancelledError:
            # Given up, on a stream that may be dead without anyone having noticed: the next call
            # gets another one.
            if not upstream.connecting and upstream.stale:
                self._forget(upstream)
            raise
        finally:
            upstream.users -= 1
            upstream.used_at = time.monotonic()
            if upstream.gone or (upstream.users == 0 and upstream.connecting):
                self._forget(upstream)
            if upstream.users == 0 and upstream in self._leaving:
                self._release(upstream)

    def _find(self, client_id: str, specification: Specification) -> tuple[Upstream, bool]:
        upstream = self._clients.get(client_id)
        if upstream is not None and (upstream.gone or upstream.specification != specification):
            self._forget(upstream)
            upstream = None
        if upstream is not None:
            self._clients.move_to_end(client_id)
            return upstream, False
        if len(self._clients) >= self._settings.max_clients:
            self._make_room()
        upstream = Upstream(client_id, specification, self._means)
        self._clients[client_id] = upstream
        return upstream, True

    def _make_room(self) -> None:
        for upstream in self._clients.values():
            if upstream.users == 0:
                self._forget(upstream)
                return
        raise Failure("busy", "every client of this replica is in use")

    def _forget(self, upstream: Upstream) -> None:
        """No new call gets this client; it is released when the last call on it has ended."""
        if self._clients.get(upstream.client_id) is upstream:
            del self._clients[upstream.client_id]
            self._leaving.add(upstream)
        if upstream.users == 0 and upstream in self._leaving:
            self._release(upstream)

    def _release(self, upstream: Upstream) -> None:
        upstream.stop()

        async def wait() -> None:
            await upstream.closed()
            self._leaving.discard(upstream)

        closer = asyncio.create_task(wait())
        self._closers.add(closer)
        closer.add_done_callback(self._closers.discard)
