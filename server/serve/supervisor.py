"""The life of ``turnstone serve``, in order: port, database, schema, admin key, HTTP; and back."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.database.address import Address, EmbeddedAddress, ExternalAddress
from server.database.embedded import EmbeddedPostgres
from server.database.upgrade import upgrade
from server.embeddings.relations import ensure_first
from server.serve import http
from server.serve.postgres import KeptPostgres
from server.serve.signals import StopSignals
from server.serve.sockets import bind, url
from server.serve.workers import Workers
from server.settings import Settings


def serve(settings: Settings, prepare: Callable[[Address], None], announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. ``prepare`` runs once the schema is current, ``announce`` gets the URL when ready.

    Raises InvalidInput when the port is taken, before the database is touched, and DatabaseError.
    """
    signals = StopSignals()
    signals.install()
    with _listener(settings) as listener, _database(settings, signals) as address:
        upgrade(address)
        ensure_first(address)
        prepare(address)
        where = url(listener)
        if settings.workers == 1:
            http.run(settings, address, listener, signals, lambda: announce(where))
        else:
            Workers(settings, address, listener).run(signals, lambda: announce(where))


@contextmanager
def _listener(settings: Settings) -> Iterator[socket.socket]:
    listener = bind(settings.host, settings.port)
    try:
        yield listener
    finally:
        listener.close()


@contextmanager
def _database(settings: Settings, signals: StopSignals) -> Iterator[Address]:
    if settings.database_url is not None:
        yield ExternalAddress(settings.database_url)
        return
    postgres = EmbeddedPostgres(settings.data_dir)
    kept = KeptPostgres(postgres)
    try:
        kept.start()
        yield EmbeddedAddress(postgres.conninfo)
    finally:
        with signals.handled_by(kept.hurry):
            kept.stop()
