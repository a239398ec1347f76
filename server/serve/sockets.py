"""The listening socket, bound before anything else is started."""

from __future__ import annotations

import errno
import socket

from server.errors import InvalidInput

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address, not listening yet: until the server is ready, clients are refused.

    Raises InvalidInput when the port is taken or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise InvalidInput(f"the host {host!r} cannot be resolved: {error.strerror}", param="TURNSTONE_HOST") from None
    listener = socket.socket(family, kind, protocol)
    try:
        # A restart must not wait for the old server's closed connections; a live listener still refuses this bind.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise port_taken(host, port) from None
        raise InvalidInput(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another --host or --port",
            param="TURNSTONE_HOST",
        ) from None
    listener.setblocking(False)
    return listener


def listen(listener: socket.socket) -> None:
    """Let clients in. Raises InvalidInput when another process began to listen on the port since `bind`."""
    host, port = listener.getsockname()[:2]
    try:
        listener.listen(BACKLOG)
    except OSError:
        raise port_taken(host, port) from None


def port_taken(host: str, port: int) -> InvalidInput:
    return InvalidInput(
        f"port {port} on {host} is taken by another program, perhaps another Turnstone: stop it, or choose another "
        "port with --port or TURNSTONE_PORT (0 takes a free one)",
        param="TURNSTONE_PORT",
    )


def url(listener: socket.socket) -> str:
    """Return the URL under which this machine reaches the socket."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
