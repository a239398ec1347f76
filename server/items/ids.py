"""Ids of items: the caller's own, else the event's id under the prefix that OpenAI gives to such items.

``evt_<conversation>_41`` is ``msg_<conversation>_41`` when it is a message: stable, and as easy to find.
"""

from __future__ import annotations

import re
from typing import Final

from server.items.kinds import prefix

_OWN: Final = re.compile(r"[a-z]+(_[0-9a-f]{32}_[1-9][0-9]{0,17})", re.ASCII)
# What the Agents SDK writes where a model gave no id; the same for every item.
_PLACEHOLDER: Final = "__fake_id__"


def item_id(event_id: str, kind: str) -> str:
    """Return the id of an item by that of its event, the caller's or the server's."""
    return prefix(kind) + event_id[3:] if event_id.startswith("evt_") else event_id


def event_id(item: str) -> str:
    """Return the event's id that an item's id stands for, the caller's or the server's."""
    match = _OWN.fullmatch(item)
    return f"evt{match[1]}" if match else item


def claimed(item: str) -> str | None:
    """Return the id that a new item may have of what it was sent with; None: the server gives it one.

    An id of the server's names the item that it was given to. Sent with a new item, that is a copy of the other.
    """
    own = item == _PLACEHOLDER or item.startswith("evt_") or _OWN.fullmatch(item)
    return None if own else item
