"""A server with OpenAI's ``/v1/embeddings``, whose model is a hash of words and which fails as it is told to."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np


class EmbeddingServer:
    """What it does is changed while it runs: ``seed`` makes another model, ``statuses`` are answered first.

    It answers while ``open`` is set, each request after ``seconds``.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.seed = 0
        self.statuses: list[int] = []
        self.headers: dict[str, str] = {}
        self.open = threading.Event()
        self.open.set()
        self.seconds = 0.0
        self.down = False
        self.poison: str | None = None
        self.spoil: Callable[[list[list[float]]], Any] | None = None
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.url = ""

    def vector(self, text: str) -> list[float]:
        total = np.zeros(self.dimensions)
        for word in text.lower().split():
            digest = hashlib.sha256(f"{self.seed} {word}".encode()).digest()
            total += np.random.default_rng(int.from_bytes(digest[:8])).standard_normal(self.dimensions)
        return [float(number) for number in total]

    def answer(self, body: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        self.requests.append(body)
        self.keys.add(key)
        if self.down:
            return 503, {}
        if self.statuses:
            return self.statuses.pop(0), {}
        texts = body["input"]
        if self.poison is not None and any(self.poison in text for text in texts):
            return 400, {"error": {"message": f"refused: {texts}"}}
        vectors = [self.vector(text) for text in texts]
        rows: Any = self.spoil(vectors) if self.spoil else vectors
        # Not in order: the index says which is which.
        return 200, {"data": [{"index": n, "embedding": row} for n, row in reversed(list(enumerate(rows)))]}


@contextmanager
def embedding_server(dimensions: int = 8) -> Iterator[EmbeddingServer]:
    """Serve on a free port of this machine."""
    server = EmbeddingServer(dimensions)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = server.answer(body, self.headers.get("authorization"))
            if server.seconds:
                time.sleep(server.seconds)
            server.open.wait()
            data = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in server.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked has given up, or was killed
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # who asked was killed

    http = Server(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        server.open.set()
        http.shutdown()
        http.server_close()
        thread.join()
