"""Items as requests bring them, and what OpenAI's SDKs say of a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Final

from msgspec import Meta, Raw

from server.api.edge import Call, header
from server.errors import BadRequest, IdempotencyMismatch, InvalidInput
from server.items.reading import event_of
from server.log.events import NewEvent, validate

MAX_ITEMS: Final = 20  # in one request

NewItem = Annotated[
    dict[str, Raw],
    Meta(
        description="A message (`role`, `content`), a `function_call`, its output, or any other item, kept verbatim.",
        extra_json_schema={
            "type": "object",
            "properties": {
                "type": {"type": ["string", "null"], "description": "What it is; a message may leave it out."},
                "id": {
                    "type": ["string", "null"],
                    "minLength": 1,
                    "maxLength": 256,
                    "description": "Your own id, unique in the conversation; else the server gives it one.",
                },
            },
        },
    ),
]


def events_of(items: Sequence[dict[str, Raw]], *, max_bytes: int) -> list[NewEvent]:
    """Return items as valid events; raises InvalidInput and TooLarge naming the field, as ``items[0].role``."""
    events = [event_of(item, f"items[{index}]") for index, item in enumerate(items)]
    validate(events, max_bytes=max_bytes, param="items")
    return events


def attempt_number(request: Call) -> int | None:
    """Return how often one of OpenAI's SDKs has tried this request before; None: it comes from none of them."""
    text = header(request, b"x-stainless-retry-count")
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None


@contextmanager
def openai_statuses(*, wanted: bool = True) -> Iterator[None]:
    """Answer what is wrong with a request as OpenAI does, with 400, where that is wanted."""
    try:
        yield
    except IdempotencyMismatch:
        raise
    except InvalidInput as error:
        if not wanted:
            raise
        raise BadRequest(error.message, param=error.param, details=error.details) from None
