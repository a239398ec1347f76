"""Composition root: the only place that wires the parts together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar

from server.access.authenticate import Authenticator
from server.api import conversations, docs, events, failures, health, keys, stream, tenants, transfer, users
from server.api.edge import keep_encoded
from server.api.options import options
from server.api.services import Services
from server.database.address import Address
from server.database.connections import Database
from server.log import retention
from server.log.append import Appender
from server.log.follow import Follower
from server.operations import lease
from server.operations.requests import observe
from server.settings import Settings


def create_app(settings: Settings, address: Address) -> Litestar:
    """Return the ASGI application that serves the database at an address, which need not be up yet."""
    database = Database(address, pool_size=settings.pool_size)
    parts = Services(
        settings=settings,
        database=database,
        authenticator=Authenticator(database, processes=settings.workers),
        appender=Appender(database, lanes=settings.append_lanes),
        follower=Follower(database),
    )

    @asynccontextmanager
    async def running(_app: Litestar) -> AsyncIterator[None]:
        await database.open()
        background = [asyncio.create_task(parts.follower.run(), name="follower")]
        if settings.retention_interval:
            keeping = retention.run_forever(
                database, interval=settings.retention_interval, idempotency_hours=settings.idempotency_hours
            )
            background.append(asyncio.create_task(keeping, name="retention"))
        try:
            async with lease.lease(database):
                yield
        finally:
            await parts.appender.drain()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await database.close()

    handlers = [
        *conversations.HANDLERS,
        *events.HANDLERS,
        stream.stream_events,
        *users.HANDLERS,
        *transfer.HANDLERS,
        *tenants.HANDLERS,
        *keys.HANDLERS,
        *health.HANDLERS,
        *docs.HANDLERS,
    ]
    app = Litestar(
        route_handlers=[options(handlers), *handlers],
        lifespan=[running],
        exception_handlers=failures.HANDLERS,
        openapi_config=docs.documentation(),
        request_max_body_size=settings.max_request_bytes,
        logging_config=None,
    )
    app.asgi_handler = keep_encoded(app.asgi_handler)
    app.state.services = parts
    app.state.stopping = asyncio.Event()
    return observe(app, settings.log_requests)
