"""Events as a list of items reads them: the item of each that is one, made once while the event is in memory."""

from __future__ import annotations

from typing import Final

from server.items.kinds import SHOWN
from server.items.writing import Encoded, encode
from server.log.stored import StoredEvent
from server.log.tails import Seen
from server.log.undeleted import View, deleted_by

_HELD: Final = 300  # bytes that a view takes beside its text


def view(event: Seen | StoredEvent) -> View[Encoded]:
    """Return the item that an event is, and what it deletes."""
    if event.type in SHOWN and event.erased_at is None:
        item = encode(event.id, event)
        return View(event.seq, item, _HELD + len(item.json))
    deletes = deleted_by(event.content) if event.type == "deletion" and event.erased_at is None else None
    return View(event.seq, None, _HELD, deletes)
