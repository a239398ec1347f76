"""The HTTP client of commands that talk to a running server; every failure ends as one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import httpx

from server.access import admin_key
from server.access.key_format import digest
from server.settings import Settings

SETTINGS = ("data_dir", "port", "url", "key")
TIMEOUT = 60.0  # seconds


class Refused(click.ClickException):
    """The server answered with an error; ``retry_after`` is in seconds, where it says so.

    ``details``: the whole error object, which some codes give members of their own.
    """

    def __init__(self, response: httpx.Response) -> None:
        try:
            error = response.json()["error"]
            message, code, param = error["message"], error.get("code"), error.get("param")
        except (ValueError, KeyError, TypeError):
            error = {}
            message, code, param = f"the server answered {response.status_code}, not in Turnstone's words", None, None
        super().__init__(f"{param}: {message}" if param else message)
        self.status = response.status_code
        self.code: str | None = code
        self.details: dict[str, Any] = error
        after = response.headers.get("retry-after", "")
        self.retry_after = int(after) if after.isdecimal() else None


class Client(httpx.Client):
    """An httpx client that raises click's exceptions: Refused for an error's answer, ClickException for no answer."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request and return its successful answer."""
        try:
            response = super().send(request, **options)
        except httpx.ConnectError as error:
            raise click.ClickException(f"no server at {self.base_url}; start it with `turnstone serve`") from error
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise click.ClickException(f"{self.base_url} does not answer: {reason}") from error
        if response.is_error:
            response.read()
            raise Refused(response)
        return response


def connect(settings: Settings) -> Client:
    """Return a client of the server that the settings name, with its key; to be used in a ``with``.

    Raises ClickException when there is no key, or what is given is not one.
    """
    url = settings.url or f"http://127.0.0.1:{settings.port}"
    try:
        return Client(
            base_url=url,
            headers={"authorization": f"Bearer {_key(settings)}"},
            timeout=TIMEOUT,
            # The server on this machine is never behind a proxy, whatever the environment says of the others.
            trust_env=settings.url is not None,
        )
    except httpx.InvalidURL as error:
        raise click.ClickException(f"{url!r} is not a URL: {error}") from error


def pages(client: Client, path: str, **query: str | int | None) -> Iterator[dict[str, Any]]:
    """Yield every member of a list that the server gives in pages, in the order of their creation."""
    parameters = {"limit": 100, "order": "asc", **{name: value for name, value in query.items() if value is not None}}
    while True:
        page = client.get(path, params=parameters).json()
        yield from page["data"]
        if not page["has_more"]:
            return
        parameters["after"] = page["last_id"]


def _key(settings: Settings) -> str:
    if settings.key is not None:
        if digest(settings.key) is None:
            raise click.ClickException("what --key or TURNSTONE_KEY gives is not a key: `ts_` and 43 characters")
        return settings.key
    file = admin_key.path(settings.data_dir)
    try:
        kept = admin_key.read(settings.data_dir)
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror}; give --key or TURNSTONE_KEY") from error
    if kept is None:
        raise click.ClickException(
            f"no key in {file}; start the server once on this machine, or give --key or TURNSTONE_KEY"
        )
    return kept
