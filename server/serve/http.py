"""One HTTP server in this process: uvicorn with httptools and uvloop, stopped by our signals."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from server.app import create_app
from server.database.address import Address
from server.serve.signals import StopSignals
from server.serve.sockets import BACKLOG, listen
from server.serve.transport import Protocol
from server.settings import Settings

_TRIM_AFTER = 2.0  # seconds: by then the embedding model is open
_KEEP_ALIVE = 75  # seconds; longer than the idle time after which common clients and proxies drop a connection


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is loaded now stays: the collector need not walk it again and again between two requests.
        gc.collect()
        gc.freeze()
        asyncio.get_running_loop().call_later(_TRIM_AFTER, _trim)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # ours also stop the database, and must tell open streams first


def _trim() -> None:
    """Give the system back what starting took and left: some 8 MB, and a few milliseconds once."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the GNU C library's own
    if trim is not None:
        trim(0)


def run(
    settings: Settings, address: Address, listener: socket.socket, signals: StopSignals, ready: Callable[[], None]
) -> None:
    """Serve until told to stop; call ``ready`` once requests are answered.

    The first stop closes the listener and open streams and waits up to ``shutdown_seconds`` for the requests that are
    being answered; the second ends at once.
    """
    if sys.platform == "win32":
        factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    else:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner, contextlib.suppress(asyncio.CancelledError):
        runner.run(_serve(settings, address, listener, signals, ready))


async def _serve(
    settings: Settings, address: Address, listener: socket.socket, signals: StopSignals, ready: Callable[[], None]
) -> None:
    # Folding and embedding work in threads; a request that arrives meanwhile need not wait the usual 5 ms for its turn.
    sys.setswitchinterval(0.001)
    app = create_app(settings, address)
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    server = _Server(config, ready)
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        if server.should_exit:
            task.cancel()
        app.state.stopping.set()
        server.should_exit = True

    loop = asyncio.get_running_loop()

    def stop_soon() -> None:
        loop.call_soon_threadsafe(stop)

    with signals.handled_by(stop_soon):
        listen(listener)
        await server.serve([listener])
