"""What one of several server processes runs: ``python -m server.serve.worker``, started by server/serve/workers.py.

Its standard input carries the orders and then stays open: when it ends, so has the supervisor, and so does the worker.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from server.database.address import HandedAddress
from server.operations import logs
from server.serve import http
from server.serve.signals import StopSignals
from server.settings import Settings

READY = b"ready\n"


class Orders(msgspec.Struct, frozen=True):
    """What a worker is told: connection strings by role, and the descriptor of the listening socket."""

    settings: Settings
    conninfo: dict[str, str]
    listener: int


def encode(orders: Orders) -> bytes:
    """Return the orders as one line."""
    return msgspec.json.encode(orders, enc_hook=_path_to_text) + b"\n"


def _path_to_text(value: Any) -> str:
    return str(value)


def _text_to_path(kind: type, value: Any) -> Any:
    return kind(value) if kind is Path or issubclass(kind, Path) else value


def main() -> None:
    """Run one HTTP server until the supervisor stops it or ends."""
    signals = StopSignals()
    signals.install()
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders, dec_hook=_text_to_path)
    threading.Thread(target=_end_with_supervisor, name="lifeline", daemon=True).start()
    logs.configure(orders.settings.log_level, orders.settings.log_format)
    listener = socket.socket(fileno=orders.listener)
    http.run(orders.settings, HandedAddress(orders.conninfo), listener, signals, _say_ready)


def _say_ready() -> None:
    os.write(sys.stdout.fileno(), READY)


def _end_with_supervisor() -> None:
    # A raw read: it must not hold the lock of the buffer that the interpreter takes at its end.
    os.read(sys.stdin.fileno(), 1)
    # At once: the listening socket is shared, and the next supervisor needs the port.
    os._exit(1)


if __name__ == "__main__":
    main()
