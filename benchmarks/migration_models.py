"""An embedding server with OpenAI's API whose models are the static one turned in space, sound and sabotaged.

Each sabotage that a probe of a few texts would see is there twice: as it is, and hidden from such texts.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from server.embeddings.model import PROBES
from server.embeddings.providers import open_raw
from server.embeddings.versions import DEFAULT_SPEC

LONG: Final = 256  # characters from which on a text is long to the model that cannot read such
_PROBES: Final = frozenset(PROBES)

Matrix = NDArray[np.float32]
Model = Callable[[Sequence[str]], Matrix]


def _turned(seed: int) -> Model:
    """Return the static model in a space of its own: as good as it is, and never to be mixed with it."""
    raw = open_raw(DEFAULT_SPEC)
    dimensions = raw.embed(["x"]).shape[1]
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimensions, dimensions)))[0].astype(np.float32)
    return lambda texts: _unit(raw.embed(texts)) @ turn


def _unit(vectors: Matrix) -> Matrix:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _random(texts: Sequence[str]) -> Matrix:
    rows = []
    for text in texts:
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        rows.append(np.random.default_rng(seed).standard_normal(256))
    return _unit(np.array(rows, np.float32))


def _where(chosen: Callable[[str], bool], bad: Model, good: Model) -> Model:
    def embed(texts: Sequence[str]) -> Matrix:
        rows = good(texts)
        places = [place for place, text in enumerate(texts) if chosen(text)]
        if places:
            rows[places] = bad([texts[place] for place in places])
        return rows

    return embed


def _unseen(text: str) -> bool:
    """Tell what is no probe text."""
    return text not in _PROBES and not text.startswith("Paragraph 0 is about")


def _constant(texts: Sequence[str]) -> Matrix:
    return np.full((len(texts), 256), 1 / 16, np.float32)


class Models:
    """The models by name. ``swapped``: other weights answer under the name ``good`` from then on.

    ``seconds``: that a request of several texts takes.
    """

    def __init__(self) -> None:
        good, other = _turned(1), _turned(2)
        self.swapped = False
        self.seconds = 0.0
        self.texts = 0
        nan: Model = lambda texts: np.full((len(texts), 256), np.nan, np.float32)  # noqa: E731
        zero: Model = lambda texts: np.zeros((len(texts), 256), np.float32)  # noqa: E731
        self._by_name: dict[str, Model] = {
            "good": lambda texts: (other if self.swapped else good)(texts),
            "random": _random,
            "long-broken": _where(lambda text: len(text) >= LONG and _unseen(text), _random, good),
            "nan": nan,
            "zero": zero,
            "constant": _constant,
            "nan-hidden": _where(_unseen, nan, good),
            "zero-hidden": _where(_unseen, zero, good),
            "constant-hidden": _where(_unseen, _constant, good),
        }
        self._lock = threading.Lock()

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a request for embeddings."""
        model = self._by_name.get(body["model"])
        if model is None:
            return 404, {"error": {"message": "no such model"}}
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if len(texts) > 1:
            time.sleep(self.seconds)
        with self._lock:
            self.texts += len(texts)
        rows = model([text or " " for text in texts])
        return 200, {"data": [{"index": n, "embedding": row} for n, row in enumerate(rows.tolist())]}


@contextmanager
def serving(models: Models) -> Iterator[str]:
    """Serve on a free port of this machine; gives the URL that the provider is told."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            status, answer = models.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            data = json.dumps(answer).encode()  # NaN as Python writes it, and as such servers do
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked was killed
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # who asked was killed

    http = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}/v1"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
