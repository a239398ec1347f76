"""What one worker's process runs: ``python -m server.embeddings.backfill``, started by a server.

Its standard input carries the orders and then stays open: when it ends, so has the server, and so does the worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from typing import Final

import msgspec

from server.database.address import HandedAddress
from server.database.connections import Database
from server.embeddings.backfill.orders import Orders
from server.embeddings.backfill.worker import Worker
from server.operations import logs

NICE: Final = 10  # the servers' own processes come first


def main() -> None:
    """Backfill until nothing is left."""
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    threading.Thread(target=_end_with_server, name="lifeline", daemon=True).start()
    logs.configure(orders.log_level, orders.log_format)
    if hasattr(os, "nice"):
        os.nice(NICE)
    try:
        asyncio.run(_work(orders))
    except Exception:
        logging.getLogger(__name__).exception("the backfill failed")
        sys.exit(1)


async def _work(orders: Orders) -> None:
    database = Database(HandedAddress(orders.conninfo), pool_size=2)
    try:
        await Worker(database, key=orders.key).run()
    finally:
        await database.close()


def _end_with_server() -> None:
    # A raw read: it must not hold the lock of the buffer that the interpreter takes at its end.
    os.read(sys.stdin.fileno(), 1)
    # At once: a batch that is not written is embedded again.
    os._exit(1)


if __name__ == "__main__":
    main()
