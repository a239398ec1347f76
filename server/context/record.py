"""What is kept of a context that was answered, and the answer that is made of it, as often as asked, byte for byte.

A record holds no text: which events were shown, how, and why, with the versions that it rests on. Its bulk is in
columns, about ten bytes a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.constraints import RECOGNISER
from server.context.assemble import Context
from server.context.formats.known import WRITERS
from server.context.formats.turns import Source
from server.context.render import RENDERER, Message, Shown, lost, write
from server.log.stored import StoredEvent
from server.search import answer as search
from server.working_set.choice import parameters_in_force
from server.working_set.explain import Explanation
from server.working_set.features import SCORER
from server.working_set.fold import Fold
from server.working_set.tokens import TOKENIZER


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """How the question was understood; none of its words are kept."""

    cues: Annotated[list[str], Meta(description="Names of the cues that showed its type.")]
    also: Annotated[list[str], Meta(description="Types that were seen too, and lost.")]
    forced: Annotated[bool, Meta(description="Whether you chose the type.")]
    budget: Annotated[str, Meta(description="What of this type's answer is always the same, and what is not.")]
    searched: Annotated[int, Meta(description="Events in the scope.")]
    ranked: Annotated[int, Meta(description="Candidates that were ranked in full.")]
    seconds: Annotated[dict[str, float], Meta(description="Time by step.")]


class Retrieved(msgspec.Struct, frozen=True, kw_only=True):
    """What a search brought a context, but for the events."""

    type: str
    share: str
    stamps: search.Stamps
    degraded: search.Degraded | None
    searched: Searched | None


Place = tuple[str, int]  # an event of another conversation: its id, and the seq there


class Stamps(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of all that an answer rests on."""

    policy: Annotated[str, Meta(description="The eviction policy that kept the working set.", examples=["importance"])]
    policy_version: Annotated[int, Meta(description="Its version.", examples=[1])]
    parameters: Annotated[dict[str, Any], Meta(description="Its parameters in force.")]
    scorer: Annotated[str, Meta(description="What read the features of texts.", examples=[SCORER])]
    recogniser: Annotated[str, Meta(description="What recognised constraints.", examples=[RECOGNISER])]
    tokenizer: Annotated[str, Meta(description="What counted tokens.", examples=[TOKENIZER])]
    renderer: Annotated[int, Meta(description="What wrote the messages.", examples=[RENDERER])]
    share: Annotated[str | None, Meta(description="How the budget was shared out; null without a query.")] = None
    search: Annotated[search.Stamps | None, Meta(description="What found events; null without a query.")] = None
    format: Annotated[  # absent where it is none, as it was before there were formats
        str | UnsetType, Meta(description="What turned events into a model's messages.", examples=["anthropic/1"])
    ] = UNSET

    @classmethod
    def of(cls, fold: Fold, retrieved: Retrieved | None = None, format: str | None = None) -> Stamps:  # noqa: A002
        """Return the stamps of a fold, of a search, and of the writer of a format."""
        policy = fold.kept.policy
        return cls(
            policy=policy.name,
            policy_version=policy.version,
            parameters=parameters_in_force(fold.choice),
            scorer=SCORER,
            recogniser=RECOGNISER,
            tokenizer=TOKENIZER,
            renderer=RENDERER,
            share=retrieved.share if retrieved else None,
            search=retrieved.stamps if retrieved else None,
            format=UNSET if format is None else format,
        )


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A resident event that is not shown."""

    seq: Annotated[int, Meta(description="Its place in the conversation.")]
    why: Annotated[str, Meta(description="Why it is not shown.", examples=["a tool call without a result"])]


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """Why what is here is here, and what is not is not."""

    left_out: Annotated[list[LeftOut], Meta(description="Residents that are not shown.")]
    near: Annotated[list[Explanation], Meta(description="What left last, and what would leave next.")]
    search: Annotated[Searched | None, Meta(description="With a query: how it was understood.")] = None


class ContextReply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a model should see."""

    snapshot_id: Annotated[str, Meta(description="Gives this answer back.", examples=["ctx_" + "0" * 48])]
    head: Annotated[int, Meta(description="The last seq that it takes into account.", examples=[41])]
    type: Annotated[str | None, Meta(description="With a query: its type.", examples=["fact"])] = None
    degraded: Annotated[
        search.Degraded | None, Meta(description="Set when a part of the search did not take part.")
    ] = None
    tokens: Annotated[int, Meta(description="What the messages take together.", examples=[1210])]
    budget_tokens: Annotated[int, Meta(description="What they may take.", examples=[8000])]
    messages: Annotated[list[Message], Meta(description="In order; the results of a tool call directly follow it.")]
    stamps: Annotated[Stamps, Meta(description="The versions that this rests on.")]
    as_of: Annotated[int | str | None, Meta(description="The moment that was asked for.", examples=[41])] = None
    explain: Annotated[Explained | None, Meta(description="With `explain`: why.")] = None
    erased: Annotated[
        list[int], Meta(description="Seqs whose content has been erased since it was answered; absent when none was.")
    ] = []


class FormattedReply(ContextReply, kw_only=True, omit_defaults=True):
    """What a model should see, in the messages of its API."""

    messages: Annotated[
        list[Any],
        Meta(description="As the API takes them, in order; the results of tool calls directly follow these."),
    ]
    sources: Annotated[
        list[list[Source]],
        Meta(description="Of each message the events that it is made of; none of what only the API asks for."),
    ]
    system: Annotated[
        str | None, Meta(description="With `anthropic`: what system and developer messages say, for `system`.")
    ] = None
    system_sources: Annotated[list[Source], Meta(description="The events that `system` is made of.")] = []
    left_out: Annotated[
        list[Source], Meta(description="Events that the format has no place for: reasoning, and what is blank.")
    ] = []


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A context as it is stored. ``why``: places in ``reasons``; ``cut``, ``cleared`` and ``spans``: of Shown, by seq.

    ``elsewhere``: what is of other conversations of the user, which is shown first.
    """

    stamps: Stamps
    head: int
    tokens: int
    budget: int
    reasons: list[str]
    seqs: list[int]
    charges: list[int]
    why: list[int]
    cut: dict[int, tuple[int, int]] = {}
    cleared: dict[int, int] = {}
    spans: dict[int, tuple[tuple[int, int], ...]] = {}
    elsewhere: list[Shown] = []
    as_of: int | str | None = None
    explain: Explained | None = None
    type: str | None = None
    degraded: search.Degraded | None = None

    @classmethod
    def of(
        cls,
        context: Context,
        *,
        as_of: int | str | None = None,
        explain: Explained | None = None,
        retrieved: Retrieved | None = None,
        format: str | None = None,  # noqa: A002 - the API's word
    ) -> Record:
        """Return the record of a context."""
        own = [one for one in context.shown if one.conversation is None]
        reasons = list(dict.fromkeys(one.reason for one in own))
        places = {reason: place for place, reason in enumerate(reasons)}
        return cls(
            stamps=Stamps.of(context.fold, retrieved, format),
            head=context.fold.head,
            tokens=context.tokens,
            budget=context.budget,
            reasons=reasons,
            seqs=[one.seq for one in own],
            charges=[one.tokens for one in own],
            why=[places[one.reason] for one in own],
            cut={one.seq: (one.cut, one.mark) for one in own if one.cut is not None},
            cleared={one.seq: one.mark for one in own if one.cleared},
            spans={one.seq: one.spans for one in own if one.spans},
            elsewhere=[one for one in context.shown if one.conversation is not None],
            as_of=as_of,
            explain=explain,
            type=retrieved.type if retrieved else None,
            degraded=retrieved.degraded if retrieved else None,
        )

    def shown(self) -> list[Shown]:
        """Return how each message is shown, in order."""
        found = list(self.elsewhere)
        for seq, charge, place in zip(self.seqs, self.charges, self.why, strict=True):
            cut, mark = self.cut.get(seq, (None, self.cleared.get(seq, 0)))
            reason = self.reasons[place]
            found.append(
                Shown(
                    seq=seq,
                    tokens=charge,
                    reason=reason,
                    cut=cut,
                    cleared=seq in self.cleared,
                    mark=mark,
                    spans=self.spans.get(seq, ()),
                )
            )
        return found


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Record).decode


def dump(record: Record) -> str:
    """Return a record as JSON."""
    return _encode(record).decode()


def load(text: str) -> Record:
    """Return a stored record; raises msgspec.ValidationError for one that a newer release made."""
    record = _decode(text)
    if record.stamps.renderer != RENDERER:
        raise msgspec.ValidationError(f"renderer {record.stamps.renderer} is not known here")
    if not isinstance(record.stamps.format, UnsetType) and record.stamps.format not in WRITERS:
        raise msgspec.ValidationError(f"the format {record.stamps.format} is not known here")
    return record


def answer(record: Record, events: Mapping[int, StoredEvent], elsewhere: Mapping[Place, StoredEvent]) -> bytes:
    """Write a context's answer but for its beginning, which ``begin`` makes; events that are gone are not at hand."""
    messages = []
    for shown in record.shown():
        event = events.get(shown.seq) if shown.conversation is None else elsewhere.get((shown.conversation, shown.seq))
        messages.append(lost(shown) if event is None else write(event, shown))
    reply = ContextReply(
        snapshot_id="",
        head=record.head,
        tokens=record.tokens,
        budget_tokens=record.budget,
        messages=messages,
        stamps=record.stamps,
        type=record.type,
        degraded=record.degraded,
        as_of=record.as_of,
        explain=record.explain,
        erased=[message.seq for message in messages if message.erased and message.conversation_id is None],
    )
    if not isinstance(record.stamps.format, UnsetType):
        reply = _formatted(reply, record.stamps.format)
    return _encode(reply).removeprefix(_BEGIN)


def _formatted(reply: ContextReply, format_: str) -> FormattedReply:
    """Return an answer in a format; what that has no place for takes no tokens."""
    made = WRITERS[format_](reply.messages)
    given = {name: getattr(reply, name) for name in reply.__struct_fields__}
    given["tokens"] -= sum(source.tokens for source in made.left_out)
    given["messages"] = made.messages
    return FormattedReply(
        **given,
        sources=made.sources,
        system=made.system,
        system_sources=made.system_sources,
        left_out=made.left_out,
    )


_BEGIN: Final = b'{"snapshot_id":""'


def begin(snapshot_id: str) -> bytes:
    """Return how the answer with this id begins."""
    return b'{"snapshot_id":"%b"' % snapshot_id.encode()
