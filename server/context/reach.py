"""Constraints that were confirmed for all of a user, in whichever of the user's conversations that was.

They are found by the events that confirm them. A later one supersedes an earlier one; what the conversation that is
asked about has set itself supersedes them all. What another server did may show TRUST seconds late, as what is hot may.
"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from server.constraints import Constraint, recognise, rule_of, stated, supersedes
from server.context.hot import TRUST
from server.database.connections import Database, hot_connection
from server.database.ids import ConversationId
from server.database.round_trip import SETTING_TENANT, Statement, round_trip
from server.database.tenant import Tenant
from server.log.append import Committed
from server.log.lineage import Lineage
from server.log.read import read_deleted, read_events
from server.log.stored import StoredEvent
from server.working_set.items import text_and_media
from server.working_set.standing import Decision, Standing, may_set

MOST: Final = 64  # the newest
_HELD: Final = 1024  # users whose answers are held
_HELD_OF_USER: Final = 16  # conversations of each

# From the few events of their type to the conversations, of which a user may have thousands.
_CONFIRMED: Final = Statement("""
WITH n AS MATERIALIZED (
    SELECT c.user_id, c.lineage, c.lineage_end FROM conversation c
    WHERE c.user_key = %(user_key)s AND c.id = %(id)s AND c.tenant_id = %(tenant)s AND c.deleted_at IS NULL
      AND c.user_id IS NOT NULL
), e AS MATERIALIZED (
    SELECT e.conversation, e.seq, e.content, e.recorded_at FROM event e
    WHERE e.user_key = %(user_key)s AND e.tenant_id = %(tenant)s AND e.type = 'constraint' AND e.erased_at IS NULL
      AND e.conversation <> %(id)s AND EXISTS (SELECT FROM n)
)
SELECT c.id, c.lineage, c.lineage_end, n.lineage, n.lineage_end, e.content
FROM e CROSS JOIN n
JOIN conversation c ON c.user_key = %(user_key)s AND c.id = e.conversation AND c.tenant_id = %(tenant)s
    AND c.user_id = n.user_id AND c.deleted_at IS NULL AND c.floor < e.seq
ORDER BY e.recorded_at, e.conversation, e.seq
""")

_decision: Final = msgspec.json.Decoder(Decision)


class Reaching(NamedTuple):
    """A constraint of another conversation; ``event`` is the one that sets it, as that shows it."""

    conversation: ConversationId
    event: StoredEvent
    constraint: Constraint


class Reach:
    """Finds what reaches a conversation from the others of its user; one for each process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._held: OrderedDict[tuple[int, int], dict[UUID, tuple[float, list[Reaching]]]] = OrderedDict()

    async def read(self, tenant: Tenant, conversation: ConversationId) -> list[Reaching]:
        """Return what reaches a conversation, the latest confirmed last; raises DatabaseUnavailable."""
        key = (tenant.id, conversation.user_key)
        asked = monotonic()
        held = self._held.get(key, {}).get(conversation.uuid)
        if held is not None and asked - held[0] < TRUST:
            return held[1]
        found = await self._read(tenant, conversation)
        of_user = self._held.setdefault(key, {})
        if len(of_user) >= _HELD_OF_USER:
            of_user.clear()
        of_user[conversation.uuid] = (asked, found)
        self._held.move_to_end(key)
        while len(self._held) > _HELD:
            self._held.popitem(last=False)
        return found

    def on_append(self, committed: Committed) -> None:
        """Look again after a decision or a deletion of this process."""
        if any(event.type in ("constraint", "deletion") for event in committed.events):
            self._held.pop((committed.tenant.id, committed.conversation.user_key), None)

    async def _read(self, tenant: Tenant, conversation: ConversationId) -> list[Reaching]:
        values = {"tenant": tenant.id, "user_key": conversation.user_key, "id": conversation.uuid}
        async with hot_connection(self._database) as connection:
            rows = await round_trip(connection, [SETTING_TENANT(values), _CONFIRMED(values)])
        confirmed: dict[tuple[ConversationId, int], None] = {}
        for other, owners, ends, our_owners, our_ends, content in rows:
            try:
                decision = _decision.decode(content)
            except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
                continue  # one with words of its own
            place = (ConversationId(conversation.user_key, other), decision.seq)
            confirmed.pop(place, None)
            owner = Lineage(owners or [], ends or []).owner(other, decision.seq)
            ours = Lineage(our_owners or [], our_ends or [])
            shown_here = decision.seq <= ours.end and ours.owner(conversation.uuid, decision.seq) == owner
            if decision.state == "confirmed" and decision.reach == "user" and not shown_here:
                confirmed[place] = None
        found: list[Reaching] = []
        for at, seq in list(confirmed)[-MOST:]:
            deleted = await read_deleted(self._database, tenant, at)
            event = (await read_events(self._database, tenant, at, [seq])).get(seq)
            if event is not None and event.erased_at is None and seq not in deleted:
                found += [Reaching(at, event, constraint) for constraint in _set_by(event)]
        rules = [rule_of(one.constraint) for one in found]
        return [
            one
            for number, one in enumerate(found, 1)
            if not any(supersedes(new, rules[number - 1]) for new in rules[number:])
        ]


def _set_by(event: StoredEvent) -> list[Constraint]:
    if not may_set(event.type, event.role):
        return []
    text, _ = text_and_media(event.content)
    if event.type == "constraint":
        return stated(text)
    found = recognise(text, event.role)
    return [one for one in found if one.strength == "firm"] or found


def in_force(reaching: list[Reaching], standing: Standing) -> list[Reaching]:
    """Return what a conversation has not superseded by what it sets itself."""
    own = [rule for setting in standing if setting.holds for rule in setting.rules]
    return [one for one in reaching if not any(supersedes(rule, one.constraint) for rule in own)]
