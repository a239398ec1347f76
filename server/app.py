"""Composition root: the only place that wires the parts together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta

from litestar import Litestar

from server.access.authenticate import Authenticator
from server.api import (
    constraints,
    context,
    conversations,
    docs,
    embeddings,
    events,
    failures,
    golden,
    health,
    items,
    keys,
    migration_steps,
    policies,
    search,
    stream,
    tenants,
    transfer,
    users,
    working_set,
)
from server.api.edge import keep_encoded
from server.api.options import options
from server.api.services import Services
from server.context.composing import Composer
from server.context.control import Control
from server.context.hot import WorkingSets
from server.context.keeper import Keeper
from server.context.reach import Reach
from server.context.snapshots import Recorder
from server.context.touches import Toucher
from server.database.address import Address
from server.database.connections import Database
from server.database.ids import uuid7
from server.embeddings.backfill.kept import KeptBackfill
from server.embeddings.embedder import Embedder
from server.embeddings.lifecycle.facts import Rules
from server.embeddings.migration.control import Migration
from server.embeddings.migration.measuring import Measuring
from server.log import retention
from server.log.append import Appender
from server.log.follow import Follower
from server.log.heads import Heads
from server.log.tails import Tails
from server.log.undeleted import Deletions
from server.operations import lease, metrics
from server.operations.requests import observe
from server.search.indexes import Indexes
from server.search.near import Builder
from server.search.search import Searcher
from server.search.shadow import Shadow
from server.settings import Settings


def create_app(settings: Settings, address: Address) -> Litestar:
    """Return the ASGI application that serves the database at an address, which need not be up yet."""
    database = Database(address, pool_size=settings.pool_size)
    heads = Heads(database)
    tails = Tails(database, heads, settings.cache_bytes // 4)
    deletions = Deletions(database, settings.cache_bytes // 64)
    # One thread: folding holds the interpreter, and two would only take turns.
    folding = ThreadPoolExecutor(1, thread_name_prefix="folding")
    keeper = Keeper(database, folding)
    working_sets = WorkingSets(
        database, heads, folding, settings.cache_bytes - settings.cache_bytes // 4, grown=keeper.grown
    )
    metrics.watch_cache("tails", tails)
    metrics.watch_cache("working_set", working_sets)
    identity = uuid7()
    embedder = Embedder(database, identity=identity, key=settings.provider_key, writes=settings.embedder == "on")
    indexes = Indexes(database, settings.search_bytes)
    metrics.watch_cache("search", indexes)
    builder = Builder(address)
    reach = Reach(database)
    toucher = Toucher(database)
    shadow = Shadow(database, keep_text=settings.shadow_text == "on")
    searcher = Searcher(database, embedder, indexes, builder, shadow)
    rules = Rules(grace=timedelta(hours=settings.migration_grace_hours))
    migration = Migration(database, embedder, key=settings.provider_key, rules=rules)
    listeners = [tails.on_append, deletions.on_append, working_sets.on_append, embedder.on_append, reach.on_append]
    appender = Appender(database, lanes=settings.append_lanes, on_append=listeners)
    parts = Services(
        settings=settings,
        database=database,
        authenticator=Authenticator(database, processes=settings.workers),
        appender=appender,
        follower=Follower(database),
        heads=heads,
        tails=tails,
        deletions=deletions,
        working_sets=working_sets,
        control=Control(working_sets, appender),
        reach=reach,
        composer=Composer(database, working_sets, reach, searcher, toucher),
        recorder=Recorder(database),
        embedder=embedder,
        searcher=searcher,
        migration=migration,
        measuring=Measuring(database, embedder, migration, searcher, key=settings.provider_key),
    )

    @asynccontextmanager
    async def running(_app: Litestar) -> AsyncIterator[None]:
        await database.open()
        background = [
            asyncio.create_task(parts.follower.run(), name="follower"),
            asyncio.create_task(keeper.run(), name="keeper"),
            asyncio.create_task(embedder.run(), name="embedder"),
            asyncio.create_task(indexes.warm(), name="warm"),
        ]
        if settings.embedder == "on":
            kept = KeptBackfill(
                database,
                lambda: embedder.registered,
                key=settings.provider_key,
                log_level=settings.log_level,
                log_format=settings.log_format,
            )
            background.append(asyncio.create_task(kept.run(), name="backfill"))
        if settings.retention_interval:
            keeping = retention.run_forever(
                database, interval=settings.retention_interval, idempotency_hours=settings.idempotency_hours
            )
            background.append(asyncio.create_task(keeping, name="retention"))
        try:
            async with lease.lease(database, identity):
                yield
        finally:
            await parts.appender.drain()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await working_sets.drain()
            await toucher.drain()
            await parts.recorder.drain()
            folding.shutdown(wait=False)
            await builder.drain()
            await parts.measuring.drain()
            await shadow.drain()
            searcher.close()
            indexes.close()
            await database.close()

    handlers = [
        *conversations.HANDLERS,
        *events.HANDLERS,
        *items.HANDLERS,
        stream.stream_events,
        *working_set.HANDLERS,
        *constraints.HANDLERS,
        *context.HANDLERS,
        *policies.HANDLERS,
        *search.HANDLERS,
        *embeddings.HANDLERS,
        *migration_steps.HANDLERS,
        *golden.HANDLERS,
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
