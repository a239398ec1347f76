"""A search: who may see what, the question's type and vector, the ranking, and the events read from the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import perf_counter
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt
from msgspec import structs

from server.database.connections import Database
from server.database.ids import ConversationId, parse_conversation_id, user_key
from server.database.tenant import Tenant
from server.embeddings import serving
from server.embeddings.embedder import Embedder
from server.embeddings.migration.legs import Legs
from server.embeddings.model import Model
from server.embeddings.serving import Serving
from server.embeddings.versions import Registered, Version
from server.errors import Conflict, EmbeddingError, NotFound, ProviderUnavailable
from server.log.stored import StoredEvent
from server.retrieval import analysis, planner
from server.retrieval.classify import Classified, classify
from server.retrieval.plan import Plan
from server.retrieval.planner import Planned, Replanned
from server.retrieval.query_types.wish import Wish
from server.retrieval.text import TEXT_BUILDER, build
from server.retrieval.turns import Key, Mask, View
from server.search import explain
from server.search.answer import Degraded, Explanation, Missed, PlanShown, Result, SearchReply, Stamps
from server.search.asked import Asked, Place
from server.search.family import Family, Member
from server.search.indexes import Indexes, TooLarge
from server.search.labels import member_label, session_label
from server.search.legs import legs_of
from server.search.near import Builder
from server.search.preferred import Preferred, preferred
from server.search.resident import ON_THE_LOOP, Resident
from server.search.shadow import INSTEAD, Shadow
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
    """An answer; ``also``: what is worth showing, best first; ``named``: where an event is shown.

    ``legs``: to be compared with another version's, if that was asked for. ``seen``: the conversations as they were.
    """

    reply: SearchReply
    also: list[Preferred]
    named: explain.Named
    wish: Wish
    legs: Legs | None = None
    seen: Mapping[UUID, Member] | None = None


class Searcher:
    """Answers searches of one process."""

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        indexes: Indexes,
        builder: Builder,
        shadow: Shadow | None = None,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._indexes = indexes
        self._builder = builder
        self._shadow = shadow
        self._embedding_takes: dict[int, float] = {}  # seconds by version, a moving average
        # The shadow's model must not keep the threads of those who wait.
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="shadow")

    async def search(self, tenant: Tenant, asked: Asked) -> SearchReply:
        """Answer a search; raises NotFound, Conflict, InvalidInput, Rebuilding and DatabaseUnavailable."""
        return (await self.find(tenant, asked)).reply

    async def find(self, tenant: Tenant, asked: Asked) -> Found:
        """Answer a search, with what is worth showing beside the answers; raises as ``search`` does.

        The version is chosen once. Only where a candidate's model fails does the active version answer instead, from
        the start, as if it had been chosen.
        """
        registered = self._embedder.registered
        key = _user_key(tenant, asked)
        chosen = serving.serving(registered, key)
        shadow = self._shadow
        # A search of all users is the operator's, of no one's user_key; it is not shadowed.
        sampled = shadow is not None and key is not None and shadow.samples(registered.routing)
        with self._embedder.reading(chosen.epoch):
            found = await self._find(tenant, asked, chosen, registered, sampled)
        if shadow is not None and key is not None and found.legs is not None:
            shadow.offer(self, registered, tenant, key, asked, chosen, found)
        return found

    def follows(self, version: Version) -> bool:
        """Whether this process keeps a version now."""
        return any(one.id == version.id for one in self._embedder.registered.written)

    def close(self) -> None:
        """Let the thread end."""
        self._aside.shutdown(wait=False, cancel_futures=True)

    async def _find(
        self, tenant: Tenant, asked: Asked, chosen: Serving, registered: Registered, sampled: bool
    ) -> Found:
        try:
            found = await self.answer(tenant, asked, chosen, legs=sampled)
            if found.reply.degraded is None or not chosen.candidate:
                return found
        except EmbeddingError:
            if not chosen.candidate:
                raise
        INSTEAD.inc()
        return await self.answer(tenant, asked, serving.active(registered))

    async def answer(
        self, tenant: Tenant, asked: Asked, chosen: Serving, *, legs: bool = False, hurry: bool = True
    ) -> Found:
        """Answer by one version, whoever it serves; raises as ``search`` does.

        ``hurry`` False: nobody waits for it, so that it stays off the loop.
        """
        steps = _Steps()
        degraded: Degraded | None = None
        if asked.user is None and asked.conversation is None:
            return await self._wide(tenant, asked, chosen, None, steps, legs=legs)
        resident = await self._resident(tenant, asked, chosen.version)
        if isinstance(resident, TooLarge):
            return await self._wide(tenant, asked, chosen, resident.family, steps, legs=legs)
        steps.lap("catch_up")
        if asked.min_seq is not None and asked.conversation is not None:
            resident, degraded = await self._ensure(tenant, asked, asked.conversation, asked.min_seq, resident, chosen)
            steps.lap("ensure")
        thread = not hurry or len(resident.index) > ON_THE_LOOP
        prepared = await resident.run(lambda: _prepare(resident, asked, chosen.plan), thread=thread)
        steps.lap("classify")
        vectors: list[Vector] | None = None
        if degraded is None:
            anchors = [anchor.phrase for anchor in prepared.planned.wish.anchors]
            vectors, degraded = await self._embed(chosen, [asked.query, *anchors], hurry=hurry)
            steps.lap("embed")

        texts: dict[Key, str] = {}
        if planner.needs_text(prepared.planned):
            keys = await resident.run(lambda: _likely(resident, asked, prepared, vectors), thread=thread)
            found = await self._read(tenant, resident, keys)
            texts = {key: _text(event) for key, event in zip(keys, found, strict=True) if event is not None}
            steps.lap("texts")

        named = _Names(resident, asked.conversation)
        seen = resident.members

        def rank() -> tuple[Replanned, list[Preferred], Explanation | None, Legs | None]:
            nonlocal seen
            seen = resident.members
            replanned = _rank(resident, asked, prepared, vectors, texts)
            also = preferred(prepared.planned.wish, replanned, asked.also_tokens)
            kept = None
            if legs and vectors:
                key = resident.family.user_key
                kept = legs_of(resident.index, vectors[0], prepared.classified.type, replanned, key)
            if not (asked.explain or asked.why_not):
                return replanned, also, None, kept
            why_not = _missed(resident, asked, prepared, replanned)
            return replanned, also, explain.explanation(prepared.classified, replanned, named, why_not), kept

        replanned, also, explanation, kept = await resident.run(rank, thread=thread)
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
            stamps=_stamps(prepared.planned.plan, chosen.version if replanned.ranking.dense else None),
            degraded=degraded,
            explain=explanation,
        )
        if explanation is not None:
            explanation.seconds = steps.rounded() | explanation.seconds
        if kept is not None:
            kept = kept._replace(milliseconds=steps.milliseconds())
        return Found(reply, also, named, prepared.planned.wish, kept, seen)

    async def ask(self, tenant: Tenant, at: ConversationId, question: str, chosen: Serving, k: int) -> Legs:
        """Ask one version, to compare; raises as ``search`` does, and EmbeddingError without vectors."""
        found = await self.answer(tenant, Asked(query=question, k=k, conversation=at), chosen, legs=True, hurry=False)
        if found.legs is None:
            reason = found.reply.degraded.reason if found.reply.degraded else "the question has no vector"
            raise ProviderUnavailable(f"no vectors took part: {reason}", retry_after=5)
        return found.legs

    @asynccontextmanager
    async def rebuilt(self) -> AsyncIterator[Searcher]:
        """Give a searcher whose indexes are loaded anew, and forgotten at the end."""
        indexes = Indexes(self._database, self._indexes.limit_bytes)
        searcher = Searcher(self._database, self._embedder, indexes, self._builder)
        try:
            yield searcher
        finally:
            searcher.close()
            indexes.close()

    async def _wide(
        self, tenant: Tenant, asked: Asked, chosen: Serving, family: Family | None, steps: _Steps, *, legs: bool
    ) -> Found:
        """Answer where memory has no room: vectors choose the candidates, so that there is no answer without."""
        version = chosen.version
        if asked.conversation is not None and asked.min_seq is not None and version is not None:
            wanted = {asked.conversation: asked.min_seq}
            await self._embedder.ensure(tenant, wanted, version=version.id, timeout=ENSURE)
        vectors, degraded = await self._embed(chosen, [asked.query])
        if version is None or vectors is None:
            reason = degraded.reason if degraded else "no embedding version is known yet"
            raise ProviderUnavailable(f"so much is searched by vectors only, and {reason}", retry_after=5)
        steps.lap("embed")
        found = await candidates(self._database, self._indexes.executor, tenant, version, vectors[0], asked, family)
        if not found.approximate:
            self._builder.want(version)
        steps.lap("candidates")

        def rank() -> tuple[Classified, Planned, Replanned, Legs | None]:
            turns = found.index.turns
            classified, planned = _classify(turns["at"], turns.speakers, asked, chosen.plan)
            planned = structs.replace(planned, wish=structs.replace(planned.wish, tail=None, anchors=()))
            texts = {key: _text(event) for key, event in found.events.items()} if planner.needs_text(planned) else {}
            ranking = found.index.search(asked.query, vectors[0], planned.plan, asked.k, only=found.only)
            replanned = planner.replan(ranking, planned, asked.k, texts=texts)
            kept = legs_of(found.index, vectors[0], classified.type, replanned, None) if legs else None
            return classified, planned, replanned, kept

        loop = asyncio.get_running_loop()
        classified, planned, replanned, kept = await loop.run_in_executor(self._indexes.executor, rank)
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
        if kept is not None:
            kept = kept._replace(milliseconds=steps.milliseconds())
        also = preferred(planned.wish, replanned, asked.also_tokens, whole=False)
        return Found(reply, also, named, planned.wish, kept)

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
        chosen: Serving,
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
            number = None if chosen.version is None else chosen.version.id
            await self._embedder.ensure(tenant, conversations, version=number, timeout=ENSURE)
        except EmbeddingError as error:
            return resident, Degraded("vectors", error.message)
        again = await self._resident(tenant, asked, chosen.version)
        return (resident if isinstance(again, TooLarge) else again), None

    async def _embed(
        self, chosen: Serving, texts: Sequence[str], *, hurry: bool = True
    ) -> tuple[list[Vector] | None, Degraded | None]:
        if chosen.version is None:
            return None, Degraded("vectors", "no embedding version is known yet")
        number = chosen.version.id
        try:
            model = self._embedder.model(number)
            short = [text[:_LONGEST_EMBEDDED] for text in texts]
            takes = self._embedding_takes.get(number, 1.0)
            began = perf_counter()
            if hurry and takes < _INLINE and sum(map(len, short)) < _SHORT:
                vectors = _embed(model, short)
            else:
                executor = self._indexes.executor if hurry else self._aside
                vectors = await asyncio.get_running_loop().run_in_executor(executor, _embed, model, short)
            if hurry and len(texts) == 1 and len(texts[0]) < _SHORT:
                self._embedding_takes[number] = takes + 0.3 * (perf_counter() - began - takes)
        except EmbeddingError as error:
            return None, Degraded("vectors", error.message)
        return vectors, None

    async def _read(self, tenant: Tenant, resident: Resident, keys: Sequence[Key]) -> list[StoredEvent | None]:
        return await resident.read(self._database, tenant, keys)


class _Steps:
    """Time by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = perf_counter()

    def lap(self, step: str) -> None:
        now = perf_counter()
        self.seconds[step], self._since = now - self._since, now

    def milliseconds(self) -> float:
        """Return what the search itself took: not what memory lacked, or what was to be embedded first."""
        return 1000 * sum(taken for step, taken in self.seconds.items() if step not in ("catch_up", "ensure"))

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


def _user_key(tenant: Tenant, asked: Asked) -> int | None:
    """Return whom a search is of; None for one of all users."""
    if asked.conversation is not None:
        return asked.conversation.user_key
    return None if asked.user is None else user_key(tenant.salt, "user", asked.user)


def _prepare(resident: Resident, asked: Asked, plan: Plan) -> _Prepared:
    return _Prepared(*_classify(_within(resident, asked).column("at"), resident.index.turns.speakers, asked, plan))


def _within(resident: Resident, asked: Asked) -> View:
    """Return what the search may see, as of now: valid until the index changes, which is until the next ``await``."""
    turns = resident.index.turns
    conversation = None if asked.conversation is None else asked.conversation.uuid
    if conversation is not None and conversation not in resident.members:
        raise NotFound("no such conversation")
    if asked.heads is not None:
        heads = np.array([asked.heads.get(UUID(hex=name), 0) for name in turns.conversations], np.int64)
        known = turns["seq"] <= heads[turns["conversation"]] if len(heads) else np.zeros(0, np.bool_)
        if not known.all():
            return View(turns, resident.mask(conversation) & known)
    if asked.until is None:
        return resident.view(conversation)
    return View(turns, resident.mask(conversation) & (turns["seq"] <= asked.until))


def _classify(
    at: npt.NDArray[np.float64], speakers: Sequence[str], asked: Asked, plan: Plan
) -> tuple[Classified, Planned]:
    """Tell the type by the clock of what is searched: its newest event."""
    now = datetime.fromtimestamp(float(at.max()), UTC) if len(at) else datetime.now(UTC)
    classified = classify(asked.query, now=now, speakers=speakers, forced=asked.type)
    return classified, planner.plan(classified, plan)


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
