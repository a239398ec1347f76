"""A search: who may see what, the question's type and vector, the ranking, and the events read from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt
from msgspec import structs

from server.database.connections import Database
from server.database.ids import ConversationId, parse_conversation_id
from server.database.tenant import Tenant
from server.embeddings.embedder import Embedder
from server.embeddings.model import Model
from server.embeddings.versions import Version
from server.errors import Conflict, EmbeddingError, NotFound, ProviderUnavailable
from server.log.stored import StoredEvent
from server.retrieval import analysis, planner
from server.retrieval.classify import Classified, classify
from server.retrieval.plan import DEFAULT, Plan, plan_for
from server.retrieval.planner import Planned, Replanned
from server.retrieval.query_types.wish import Wish
from server.retrieval.text import TEXT_BUILDER, build
from server.retrieval.turns import Key, Mask, View
from server.search import explain, reading
from server.search.answer import Degraded, Explanation, Missed, PlanShown, Result, SearchReply, Stamps
from server.search.asked import Asked, Place
from server.search.family import Family
from server.search.indexes import Indexes, TooLarge
from server.search.labels import member_label, session_label
from server.search.near import Builder
from server.search.preferred import Preferred, preferred
from server.search.resident import ON_THE_LOOP, Resident
from server.search.wide import candidates

Vector = npt.NDArray[np.float32]

ENSURE: Final = 3.0  # seconds that a search with min_seq waits for the vectors of what was just appended
_LONGEST_EMBEDDED: Final = 8_000  # characters of a question; models read less
_INLINE: Final = 0.0005  # seconds: what embeds a question faster needs no thread
_SHORT: Final = 500  # characters
_TEXTS_LOOKED_AT: Final = 300


class _Prepared(NamedTuple):
    classified: Classified
    planned: Planned


class Found(NamedTuple):
    """An answer; ``also``: what is worth showing, best first; ``named``: where an event is shown."""

    reply: SearchReply
    also: list[Preferred]
    named: explain.Named
    wish: Wish


class Searcher:
    """Answers searches of one process."""

    def __init__(self, database: Database, embedder: Embedder, indexes: Indexes, builder: Builder) -> None:
        self._database = database
        self._embedder = embedder
        self._indexes = indexes
        self._builder = builder
        self._embedding_takes = 1.0  # seconds, a moving average

    async def search(self, tenant: Tenant, asked: Asked) -> SearchReply:
        """Answer a search; raises NotFound, Conflict, InvalidInput, Rebuilding and DatabaseUnavailable."""
        return (await self.find(tenant, asked)).reply

    async def find(self, tenant: Tenant, asked: Asked) -> Found:
        """Answer a search, with what is worth showing beside the answers; raises as ``search`` does."""
        steps = _Steps()
        version = self._embedder.registered.active
        degraded: Degraded | None = None
        if asked.user is None and asked.conversation is None:
            return await self._wide(tenant, asked, version, None, steps)
        resident = await self._resident(tenant, asked, version)
        if isinstance(resident, TooLarge):
            return await self._wide(tenant, asked, version, resident.family, steps)
        steps.lap("catch_up")
        if asked.min_seq is not None and asked.conversation is not None:
            resident, degraded = await self._ensure(tenant, asked, asked.conversation, asked.min_seq, resident, version)
            steps.lap("ensure")
        thread = len(resident.index) > ON_THE_LOOP
        prepared = await resident.run(lambda: _prepare(resident, asked, version), thread=thread)
        steps.lap("classify")
        vectors: list[Vector] | None = None
        if degraded is None:
            anchors = [anchor.phrase for anchor in prepared.planned.wish.anchors]
            vectors, degraded = await self._embed([asked.query, *anchors])
            steps.lap("embed")

        texts: dict[Key, str] = {}
        if planner.needs_text(prepared.planned):
            keys = await resident.run(lambda: _likely(resident, asked, prepared, vectors), thread=thread)
            found = await self._read(tenant, resident, keys)
            texts = {key: _text(event) for key, event in zip(keys, found, strict=True) if event is not None}
            steps.lap("texts")

        named = _Names(resident, asked.conversation)

        def rank() -> tuple[Replanned, list[Preferred], Explanation | None]:
            replanned = _rank(resident, asked, prepared, vectors, texts)
            also = preferred(prepared.planned.wish, replanned, asked.also_tokens)
            if not (asked.explain or asked.why_not):
                return replanned, also, None
            why_not = _missed(resident, asked, prepared, replanned)
            return replanned, also, explain.explanation(prepared.classified, replanned, named, why_not)

        replanned, also, explanation = await resident.run(rank, thread=thread)
        steps.lap("rank")
        events = await self._read(tenant, resident, [one.key for one in replanned.found])
        steps.lap("read")
        data = []
        for one, event in zip(replanned.found, events, strict=True):
            if event is not None:
                data.append(_result(one, event, named))
        reply = SearchReply(
            data=data,
            type=prepared.classified.type,
            plan=_shown(prepared.planned),
            stamps=_stamps(prepared.planned.plan, version if replanned.ranking.dense else None),
            degraded=degraded,
            explain=explanation,
        )
        if explanation is not None:
            explanation.seconds = steps.rounded() | explanation.seconds
        return Found(reply, also, named, prepared.planned.wish)

    async def _wide(
        self, tenant: Tenant, asked: Asked, version: Version | None, family: Family | None, steps: _Steps
    ) -> Found:
        """Answer where memory has no room: vectors choose the candidates, so that there is no answer without."""
        if asked.conversation is not None and asked.min_seq is not None:
            await self._embedder.ensure(tenant, {asked.conversation: asked.min_seq}, timeout=ENSURE)
        vectors, degraded = await self._embed([asked.query])
        if version is None or vectors is None:
            reason = degraded.reason if degraded else "no embedding version is known yet"
            raise ProviderUnavailable(f"so much is searched by vectors only, and {reason}", retry_after=5)
        steps.lap("embed")
        found = await candidates(self._database, self._indexes.executor, tenant, version, vectors[0], asked, family)
        if not found.approximate:
            self._builder.want(version)
        steps.lap("candidates")

        def rank() -> tuple[Classified, Planned, Replanned]:
            turns = found.index.turns
            classified, planned = _classify(turns["at"], turns.speakers, asked, version)
            planned = structs.replace(planned, wish=structs.replace(planned.wish, tail=None, anchors=()))
            texts = {key: _text(event) for key, event in found.events.items()} if planner.needs_text(planned) else {}
            ranking = found.index.search(asked.query, vectors[0], planned.plan, asked.k, only=found.only)
            return classified, planned, planner.replan(ranking, planned, asked.k, texts=texts)

        loop = asyncio.get_running_loop()
        classified, planned, replanned = await loop.run_in_executor(self._indexes.executor, rank)
        steps.lap("rank")

        def named(key: Key) -> tuple[str, int]:
            return str(found.places.get(key, key.conversation)), key.seq

        reply = SearchReply(
            data=[_result(one, found.events[one.key], named) for one in replanned.found],
            type=classified.type,
            plan=_shown(planned),
            stamps=_stamps(planned.plan, version, approximate=found.approximate),
        )
        if asked.explain or asked.why_not:
            why_not = [
                explain.missed(place, key, planned, replanned)
                if (key := Key(place.conversation_id, place.seq)) in found.places
                else explain.no_candidate(place, len(found.places))
                for place in asked.why_not
            ]
            reply.explain = explain.explanation(classified, replanned, named, why_not)
            reply.explain.seconds = steps.rounded() | reply.explain.seconds
        return Found(reply, preferred(planned.wish, replanned, asked.also_tokens), named, planned.wish)

    async def _resident(self, tenant: Tenant, asked: Asked, version: Version | None) -> Resident | TooLarge:
        if asked.conversation is not None:
            return await self._indexes.of_conversation(tenant, asked.conversation, version)
        assert asked.user is not None
        return await self._indexes.of_user(tenant, asked.user, version)

    async def _ensure(
        self,
        tenant: Tenant,
        asked: Asked,
        at: ConversationId,
        min_seq: int,
        resident: Resident,
        version: Version | None,
    ) -> tuple[Resident, Degraded | None]:
        """See to it that both legs know everything up to ``min_seq``."""
        member = resident.members[at.uuid]
        if min_seq > member.head:
            raise Conflict(
                f"min_seq is {min_seq}, but the head is {member.head}: read the head that an append answered",
                param="min_seq",
                details={"head": member.head},
            )
        wanted = {owner: min(high, min_seq) for owner, low, high in member.segments() if low <= min_seq}
        if resident.is_embedded(wanted):
            return resident, None
        try:
            conversations = {ConversationId(at.user_key, owner): seq for owner, seq in wanted.items()}
            await self._embedder.ensure(tenant, conversations, timeout=ENSURE)
        except EmbeddingError as error:
            return resident, Degraded("vectors", error.message)
        again = await self._resident(tenant, asked, version)
        return (resident if isinstance(again, TooLarge) else again), None

    async def _embed(self, texts: Sequence[str]) -> tuple[list[Vector] | None, Degraded | None]:
        try:
            _, model = self._embedder.active()
            short = [text[:_LONGEST_EMBEDDED] for text in texts]
            began = perf_counter()
            if self._embedding_takes < _INLINE and sum(map(len, short)) < _SHORT:
                vectors = _embed(model, short)
            else:
                vectors = await asyncio.get_running_loop().run_in_executor(self._indexes.executor, _embed, model, short)
            if len(texts) == 1 and len(texts[0]) < _SHORT:
                self._embedding_takes += 0.3 * (perf_counter() - began - self._embedding_takes)
        except EmbeddingError as error:
            return None, Degraded("vectors", error.message)
        return vectors, None

    async def _read(self, tenant: Tenant, resident: Resident, keys: Sequence[Key]) -> list[StoredEvent | None]:
        user_key = resident.family.user_key
        places = [(ConversationId(user_key, UUID(hex=key.conversation)), key.seq) for key in keys]
        return await reading.answers(self._database, tenant, places)


class _Steps:
    """Time by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = perf_counter()

    def lap(self, step: str) -> None:
        now = perf_counter()
        self.seconds[step], self._since = now - self._since, now

    def rounded(self) -> dict[str, float]:
        return {step: round(taken, 6) for step, taken in self.seconds.items()}


class _Names:
    """Where an event is shown: in the conversation that was searched, else in its owner or a fork that shows it."""

    def __init__(self, resident: Resident, conversation: ConversationId | None) -> None:
        self._resident = resident
        self._conversation = conversation

    def __call__(self, key: Key) -> tuple[str, int]:
        if self._conversation is not None:
            return str(self._conversation), key.seq
        owner = UUID(hex=key.conversation)
        shown = self._resident.shown_in(owner, key.seq) or owner
        return str(ConversationId(self._resident.family.user_key, shown)), key.seq


def _embed(model: Model, texts: Sequence[str]) -> list[Vector]:
    return [model.embed_query(text) for text in texts]


def _prepare(resident: Resident, asked: Asked, version: Version | None) -> _Prepared:
    return _Prepared(*_classify(_within(resident, asked).column("at"), resident.index.turns.speakers, asked, version))


def _within(resident: Resident, asked: Asked) -> View:
    """Return what the search may see, as of now: valid until the index changes, which is until the next ``await``."""
    turns = resident.index.turns
    conversation = None if asked.conversation is None else asked.conversation.uuid
    if conversation is not None and conversation not in resident.members:
        raise NotFound("no such conversation")
    if asked.until is None:
        return resident.view(conversation)
    return View(turns, resident.mask(conversation) & (turns["seq"] <= asked.until))


def _classify(
    at: npt.NDArray[np.float64], speakers: Sequence[str], asked: Asked, version: Version | None
) -> tuple[Classified, Planned]:
    """Tell the type by the clock of what is searched: its newest event."""
    now = datetime.fromtimestamp(float(at.max()), UTC) if len(at) else datetime.now(UTC)
    classified = classify(asked.query, now=now, speakers=speakers, forced=asked.type)
    default = plan_for(version.spec.model) if version else DEFAULT
    return classified, planner.plan(classified, default)


def _only(resident: Resident, asked: Asked) -> Mask | None:
    """Return which rows the filters allow; None for all."""
    filters = asked.filters
    if not any(getattr(filters, name) is not None for name in filters.__struct_fields__):
        return None
    turns = resident.index.turns
    only = turns.select(
        roles=filters.roles,
        types=filters.types,
        since=None if filters.occurred_after is None else filters.occurred_after.timestamp(),
        until=None if filters.occurred_before is None else filters.occurred_before.timestamp(),
    )
    if filters.sessions is not None:
        only &= resident.labels.carrying([session_label(one) for one in filters.sessions], len(turns))
    for name, value in (filters.metadata or {}).items():
        only &= resident.labels.carrying([member_label(name, value)], len(turns))
    if asked.within is not None:
        shown = np.zeros(len(turns), np.bool_)
        for at in asked.within:
            member = resident.members.get(at.uuid)
            if member is not None and member.live and at.user_key == resident.family.user_key:
                shown |= resident.mask(at.uuid)
        only &= shown
    return only


def _rank(
    resident: Resident, asked: Asked, prepared: _Prepared, vectors: list[Vector] | None, texts: Mapping[Key, str]
) -> Replanned:
    index, planned = resident.index, prepared.planned
    within, only = _within(resident, asked), _only(resident, asked)
    ranking = index.search(
        asked.query, vectors[0] if vectors else None, planned.plan, asked.k, within=within, only=only
    )
    anchors = []
    for number, anchor in enumerate(planned.wish.anchors, 1):
        vector = vectors[number] if vectors else None
        first = index.search(anchor.phrase, vector, planned.plan, 1, within=within)
        if first.hits:
            row = index.turns.rows_of[first.hits[0].key]
            anchors.append((anchor, float(index.turns["at"][row])))
    return planner.replan(ranking, planned, asked.k, anchors=anchors, texts=texts)


def _likely(resident: Resident, asked: Asked, prepared: _Prepared, vectors: list[Vector] | None) -> list[Key]:
    """Return the candidates whose texts are looked at for the literal phrase: the best, and the best by its words."""
    keys: dict[Key, None] = {}
    within, only = _within(resident, asked), _only(resident, asked)
    for question, vector in (
        (asked.query, vectors[0] if vectors else None),
        (" ".join(prepared.planned.wish.phrases), None),
    ):
        plan = prepared.planned.plan
        ranking = resident.index.search(question, vector, plan, _TEXTS_LOOKED_AT, within=within, only=only)
        keys.update((hit.key, None) for hit in ranking.hits)
    return list(keys)


def _missed(resident: Resident, asked: Asked, prepared: _Prepared, replanned: Replanned) -> list[Missed]:
    found = []
    for place in asked.why_not:
        at = parse_conversation_id(place.conversation_id)
        member = None if at is None else resident.members.get(at.uuid)
        shown = member is not None and member.live and member.floor < place.seq <= member.head
        if at is None or member is None or not shown or at.user_key != resident.family.user_key:
            found.append(explain.outside(place))
        else:
            key = Key(member.lineage.owner(member.id, place.seq).hex, place.seq)
            found.append(explain.missed(place, key, prepared.planned, replanned))
    return found


def _result(one: planner.Found, event: StoredEvent, named: explain.Named) -> Result:
    conversation, seq = named(one.key)
    newer = None if one.superseded_by is None else Place(*named(one.superseded_by))
    return Result(
        conversation_id=conversation,
        seq=seq,
        id=event.id,
        score=one.score,
        why=one.adds,
        superseded_by=newer,
        event=event,
    )


def _shown(planned: Planned) -> PlanShown:
    weights = {name: value for name, value in structs.asdict(planned.plan.weights).items() if value}
    return PlanShown(planned.plan.version, planned.plan.model, weights, list(planned.changes))


def _stamps(plan: Plan, version: Version | None, *, approximate: bool = False) -> Stamps:
    return Stamps(
        classifier=planner.CLASSIFIER,
        planner=planner.VERSION,
        plan=plan.version,
        text_builder=TEXT_BUILDER,
        analysis=analysis.VERSION,
        embedding=None if version is None else f"{version.name} {version.fingerprint}",
        search="approximate" if approximate else "exact",
    )


def _text(event: StoredEvent) -> str:
    text = build(event)
    return "" if text is None else text.text
