"""Changes of what governs a working set: its policy and budget, pins, and constraints. Each is an event of the log.

What is asked for is checked against the fold as it stands at a head, and appended only if that is still the head, so
that the check holds. Nothing is appended that would change nothing. Each change returns the head to read at, where the
caller sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw

from server.context.hot import Hot, WorkingSets
from server.database.ids import ConversationId
from server.database.tenant import Tenant
from server.errors import InvalidInput, StaleHead
from server.log.append import Appender
from server.log.events import NewEvent, raw
from server.working_set.choice import Choice, check
from server.working_set.standing import Decided, Decision, Reach

_TRIES: Final = 10  # of a conversation that others append to meanwhile
_choice: Final = msgspec.json.Decoder(Choice)
_decision: Final = msgspec.json.Decoder(Decision)
_object: Final = msgspec.json.Decoder(dict[str, Any])


class Control:
    """Changes working sets by appending to their logs."""

    def __init__(self, working_sets: WorkingSets, appender: Appender) -> None:
        self._working_sets = working_sets
        self._appender = appender

    async def choose(
        self,
        tenant: Tenant,
        conversation: ConversationId,
        *,
        policy: str | None = None,
        budget_tokens: int | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> int:
        """Set the policy, the budget and the parameters; what is None stays, and a new policy has its own defaults.

        Raises InvalidInput listing what there is, or saying what is needed.
        """

        def decide(hot: Hot) -> NewEvent | None:
            old = hot.fold.choice
            kept = old.parameters if policy in (None, old.policy) else {}
            new = Choice(
                policy=old.policy if policy is None else policy,
                budget_tokens=old.budget_tokens if budget_tokens is None else budget_tokens,
                parameters=kept if parameters is None else parameters,
            )
            hot.fold.check_choice(new)
            return None if new == old else _event("working_set", new)

        return await self._append(tenant, conversation, decide)

    async def pin(self, tenant: Tenant, conversation: ConversationId, seq: int) -> int:
        """Pin an event; raises InvalidInput, with the figures, when that would have no effect."""
        named = await self._working_sets.named(tenant, conversation, seq)

        def decide(hot: Hot) -> NewEvent | None:
            if seq in hot.fold.kept.pins:
                return None
            hot.fold.check_pin(seq, named)
            return _event("pin", {"seq": seq})

        return await self._append(tenant, conversation, decide)

    async def unpin(self, tenant: Tenant, conversation: ConversationId, seq: int) -> int:
        """Unpin an event, if it is pinned."""
        return await self._append(
            tenant,
            conversation,
            lambda hot: _event("unpin", {"seq": seq}) if seq in hot.fold.kept.pins else None,
        )

    async def decide(
        self, tenant: Tenant, conversation: ConversationId, seq: int, state: Decided, reach: Reach = "conversation"
    ) -> int:
        """Confirm or dismiss what an event sets, unless that is so already; raises InvalidInput, saying why not."""
        named = await self._working_sets.named(tenant, conversation, seq)
        decision = Decision(seq=seq, state=state, reach=reach)

        def decide(hot: Hot) -> NewEvent | None:
            setting = hot.fold.kept.standing.get(seq)
            known = setting is not None and (setting.state, setting.reach) == (state, reach)
            # What has been superseded is set anew by confirming it again.
            if known and (state == "dismissed" or not (setting and setting.superseded)):
                return None
            hot.fold.check_decision(decision, named)
            content = {"seq": seq, "state": state} | ({"reach": reach} if state == "confirmed" else {})
            return _event("constraint", content)

        return await self._append(tenant, conversation, decide)

    async def _append(
        self, tenant: Tenant, conversation: ConversationId, decide: Callable[[Hot], NewEvent | None]
    ) -> int:
        tries = 0
        while True:
            hot = await self._working_sets.get(tenant, conversation)
            event = decide(hot)
            if event is None:
                return hot.head
            try:
                appended = await self._appender.append(tenant, conversation, [event], expected_head=hot.head)
            except StaleHead:
                tries += 1
                if tries == _TRIES:
                    raise
            else:
                return appended.head


def check_choices(events: Sequence[NewEvent], param: str = "events") -> None:
    """Raise InvalidInput for a ``working_set`` event that chooses what there is not, or a decision that is none.

    Whether the pins fit into a budget, and whether an event sets a constraint, is known only where it is folded: there,
    what cannot be honoured has no effect, like a pin beyond the quota. ``Control`` refuses it.
    """
    for index, event in enumerate(events):
        if event.type == "constraint":
            _check_decision(event, f"{param}[{index}].content")
        if event.type == "working_set":
            at = f"{param}[{index}].content"
            try:
                check(_choice.decode(raw(event.content) or b"null"))
            except msgspec.DecodeError as error:
                raise InvalidInput(f"the content of a working_set: {error}", param=at) from None
            except InvalidInput as error:
                raise InvalidInput(error.message, param=f"{at}.{error.param}", details=error.details) from None


def _check_decision(event: NewEvent, at: str) -> None:
    content = raw(event.content)
    if content[:1] != b"{" or not {"seq", "state"} <= _object.decode(content).keys():
        return  # a constraint in words of its own
    try:
        _decision.decode(content)
    except msgspec.DecodeError as error:
        raise InvalidInput(f"the content of a constraint that names another event: {error}", param=at) from None


def _event(kind: Literal["pin", "unpin", "working_set", "constraint"], content: object) -> NewEvent:
    return NewEvent(type=kind, content=Raw(msgspec.json.encode(content)))
