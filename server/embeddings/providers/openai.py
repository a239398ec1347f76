"""Any server with OpenAI's ``POST /v1/embeddings``: OpenAI, Ollama, vLLM, TEI, LiteLLM.

The key comes from the server's settings and is never stored. What is worth another attempt (429, 5xx, a broken
connection) is tried again a few times, later and later and not in step with others; then ProviderUnavailable leaves it
to the embedder, which waits longer.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Final

import httpx
import msgspec
import numpy as np
from msgspec import Meta

from server.embeddings.providers import Spec, Vectors, options_of
from server.errors import InvalidInput, ModelRefused, ProviderUnavailable, TextRefused

_ATTEMPTS: Final = 4
_FIRST_PAUSE: Final = 0.25  # seconds
_LONGEST_PAUSE: Final = 8.0
_REFUSED_TEXT: Final = (400, 413, 422)
_REFUSED_US: Final = (401, 403)


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """``url``: up to and without ``/embeddings``. ``dimensions``: asked for, of models that can shorten theirs."""

    url: str = "https://api.openai.com/v1"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    timeout: Annotated[float, Meta(gt=0)] = 30.0  # seconds, of one attempt
    batch: Annotated[int, Meta(ge=1, le=2048)] = 64  # texts
    max_characters: Annotated[int, Meta(ge=1)] = 24_000  # of a text; about 8,000 tokens of English
    requests_per_minute: Annotated[float, Meta(gt=0)] | None = None


class _Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_Embedding]


_answer = msgspec.json.Decoder(_Answer)


def open_model(spec: Spec) -> OpenAI:
    """Return the way to a model; nothing is sent yet. Raises InvalidInput for a URL that holds a secret, or is none."""
    options = options_of(spec, Options)
    try:
        url = httpx.URL(options.url)
    except httpx.InvalidURL as error:
        raise InvalidInput(f"{options.url!r} is not a URL: {error}", param="options") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidInput(f"{options.url!r} is not a URL: it must begin with https:// or http://", param="options")
    if url.userinfo:
        # The options are stored and shown.
        raise InvalidInput("a key in the URL would be stored; give it as TURNSTONE_PROVIDER_KEY", param="options")
    return OpenAI(spec, options)


class OpenAI:
    """A model behind HTTP."""

    def __init__(self, spec: Spec, options: Options, transport: httpx.BaseTransport | None = None) -> None:
        self.batch = options.batch
        self._spec = spec
        self._options = options
        self._url = f"{options.url.rstrip('/')}/embeddings"
        self._client = httpx.Client(
            headers={"authorization": f"Bearer {spec.key}"} if spec.key else {},
            timeout=options.timeout,
            transport=transport,
        )
        self._lock = threading.Lock()
        self._next = 0.0  # when the rate limit lets the next request go
        self._sent = 0  # requests on their way
        self._closed = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, each cut to ``max_characters``.

        Raises ProviderUnavailable, ModelRefused (no such model), TextRefused (the server refuses the batch).
        """
        body: dict[str, object] = {
            "model": self._spec.model,
            "input": [text[: self._options.max_characters] for text in texts],
            "encoding_format": "float",
        }
        if self._options.dimensions is not None:
            body["dimensions"] = self._options.dimensions
        return _vectors(self._send(msgspec.json.encode(body)), len(texts))

    def close(self) -> None:
        """Close the connections, once nothing is on its way: a client that is closed before leaks what comes back."""
        with self._lock:
            self._closed = True
            idle = not self._sent
        if idle:
            self._client.close()

    def _post(self, body: bytes) -> httpx.Response:
        with self._lock:
            if self._closed:
                raise ProviderUnavailable(f"{self._url} is not used any more")
            self._sent += 1
        try:
            return self._client.post(self._url, content=body, headers={"content-type": "application/json"})
        finally:
            with self._lock:
                self._sent -= 1
                last = self._closed and not self._sent
            if last:
                self._client.close()

    def _send(self, body: bytes) -> bytes:
        problem = ""
        for attempt in range(_ATTEMPTS):
            wait = 0.0
            self._keep_to_rate()
            try:
                answer = self._post(body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code == httpx.codes.OK:
                    return answer.content
                problem = f"status {answer.status_code}"
                if answer.status_code in _REFUSED_TEXT:
                    raise TextRefused(f"{self._url} refuses a text: {problem}", details={"reason": problem})
                if answer.status_code == httpx.codes.NOT_FOUND:
                    raise ModelRefused(f"{self._url} knows no model {self._spec.model!r}: {problem}")
                if answer.status_code in _REFUSED_US:
                    raise ProviderUnavailable(f"{self._url} refuses the key: {problem}; see TURNSTONE_PROVIDER_KEY")
                if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and answer.status_code < 500:
                    raise ProviderUnavailable(f"{self._url} answers with {problem}")
                wait = _retry_after(answer)
            if attempt + 1 < _ATTEMPTS:
                pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1.5)  # noqa: S311
                time.sleep(max(pause, min(wait, _LONGEST_PAUSE)))
        raise ProviderUnavailable(f"{self._url} cannot be used: {problem}")

    def _keep_to_rate(self) -> None:
        if self._options.requests_per_minute is None:
            return
        with self._lock:
            mine = max(self._next, time.monotonic())
            self._next = mine + 60 / self._options.requests_per_minute
        time.sleep(max(0.0, mine - time.monotonic()))


def _retry_after(answer: httpx.Response) -> float:
    try:
        return float(answer.headers.get("retry-after", "0"))
    except ValueError:  # a date: our own pause will do
        return 0.0


def _vectors(body: bytes, count: int) -> Vectors:
    try:
        answer = _answer.decode(body)
    except msgspec.DecodeError as error:  # such as NaN, which one text may be the reason for
        reason = {"reason": "unreadable_answer"}
        raise TextRefused(f"the embedding server's answer cannot be read: {error}", details=reason) from error
    rows = sorted(answer.data, key=lambda row: row.index)
    if [row.index for row in rows] != list(range(count)) or len({len(row.embedding) for row in rows}) != 1:
        raise ProviderUnavailable(f"the embedding server answered with {len(rows)} vectors for {count} texts")
    return np.array([row.embedding for row in rows], np.float32)
