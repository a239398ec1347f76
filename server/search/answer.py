"""What a search answers, as it is shown."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from server.log.stored import StoredEvent
from server.search.asked import Place


class Result(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One event that was found."""

    conversation_id: Annotated[str, Meta(description="The conversation that shows it.", examples=["conv_" + "0" * 48])]
    seq: Annotated[int, Meta(description="Its place there.", examples=[41])]
    id: Annotated[str, Meta(description="Your id for it, else the server's.")]
    score: Annotated[
        float | None,
        Meta(description="In log-odds up to a constant of this search; null for what its place in the log brought."),
    ]
    why: Annotated[
        dict[str, float],
        Meta(description="What each signal adds to the score, the most telling first.", examples=[{"lexical": 1.2}]),
    ]
    superseded_by: Annotated[
        Place | None, Meta(description="A newer answer about the same thing, which stands before this one.")
    ] = None
    event: Annotated[StoredEvent, Meta(description="The event, as the log holds it.")]


class PlanShown(msgspec.Struct):
    """How the answer was ranked."""

    version: Annotated[str, Meta(description="Of the default plan.", examples=["hybrid/1"])]
    model: Annotated[str, Meta(description="The embedding model that its weights were fitted with.")]
    weights: Annotated[dict[str, float], Meta(description="What one unit of each signal adds.")]
    changes: Annotated[list[str], Meta(description="What the question's type changed, in words.")]


class Stamps(msgspec.Struct):
    """What decided: the same stamps and the same log give the same answer."""

    classifier: Annotated[str, Meta(description="What told the type.")]
    planner: Annotated[str, Meta(description="What made the plan of the type.")]
    plan: Annotated[str, Meta(description="The default plan's version.")]
    text_builder: Annotated[str, Meta(description="What made the indexed texts.")]
    analysis: Annotated[str, Meta(description="What made terms of them.")]
    embedding: Annotated[str | None, Meta(description="The embedding version; null: no vectors took part.")]
    search: Annotated[
        Literal["exact", "approximate"],
        Meta(description="`approximate`: the candidates come from an index of vectors, which may miss some."),
    ]


class Degraded(msgspec.Struct):
    """A part that did not take part."""

    without: Annotated[Literal["vectors"], Meta(description="What is missing.")]
    reason: Annotated[str, Meta(description="Why.")]


class CueShown(msgspec.Struct):
    """A cue of the question's type."""

    cue: Annotated[str, Meta(description="Its name.")]
    text: Annotated[str, Meta(description="The words that showed it.")]


class WordShown(msgspec.Struct):
    """A word that was looked for."""

    word: Annotated[str, Meta(description="As the question has it, folded.")]
    events: Annotated[int, Meta(description="How many events of the scope hold a form of it.")]


class ValueShown(msgspec.Struct):
    """An event and what a signal says of it."""

    conversation_id: Annotated[str, Meta(description="The conversation that shows it.")]
    seq: Annotated[int, Meta(description="Its place there.")]
    value: Annotated[float, Meta(description="The signal's value.")]


class StageShown(msgspec.Struct):
    """One signal over all candidates."""

    name: Annotated[str, Meta(description="The signal.")]
    weight: Annotated[float, Meta(description="What one unit of it adds to a score.")]
    best: Annotated[list[ValueShown], Meta(description="The candidates of which it says most.")]


class SignalShown(msgspec.Struct, omit_defaults=True):
    """What one signal says of an event that is not among the answers."""

    name: Annotated[str, Meta(description="The signal.")]
    value: Annotated[float, Meta(description="Its value here.")]
    adds: Annotated[float, Meta(description="What it adds to the score.")]
    rank: Annotated[int, Meta(description="Among the candidates; equal values share the best.")]
    last: Annotated[float | None, Meta(description="What it adds to the last answer's score.")] = None
    needed: Annotated[float | None, Meta(description="The value that would make it an answer, all else equal.")] = None


class Missed(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Why an event is, or is not, in the answer."""

    conversation_id: Annotated[str, Meta(description="As it was named.")]
    seq: Annotated[int, Meta(description="As it was named.")]
    reason: Annotated[str, Meta(description="In one word.", examples=["ranked"])]
    because: Annotated[str, Meta(description="In a sentence, with what would have brought it in.")]
    k_needed: Annotated[int | None, Meta(description="With how many answers it would be one.")] = None
    score: Annotated[float | None, Meta(description="Its score.")] = None
    cutoff: Annotated[float | None, Meta(description="The last answer's score.")] = None
    signals: Annotated[list[SignalShown], Meta(description="What cost it most comes first.")] = []


class Explanation(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How the answer came about."""

    cues: Annotated[list[CueShown], Meta(description="What showed the type; none for `default` or a forced type.")]
    also: Annotated[list[str], Meta(description="Types that were seen too, and lost.")]
    forced: Annotated[bool, Meta(description="Whether the caller chose the type.")]
    budget: Annotated[str, Meta(description="What of this type's answer is always the same, and what is not.")]
    words: Annotated[list[WordShown], Meta(description="What the lexical leg looked for.")]
    searched: Annotated[int, Meta(description="Events in the scope.")]
    ranked: Annotated[int, Meta(description="Candidates that were ranked in full.")]
    seconds: Annotated[dict[str, float], Meta(description="Time by step.")]
    stages: Annotated[list[StageShown], Meta(description="Each signal with its best candidates.")]
    why_not: Annotated[list[Missed], Meta(description="Of the events that were asked about.")] = []


class SearchReply(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Events that may hold the answer, best first."""

    data: Annotated[list[Result], Meta(description="Best first.")]
    type: Annotated[str, Meta(description="The question's type.", examples=["default"])]
    plan: Annotated[PlanShown, Meta(description="How it was ranked.")]
    stamps: Annotated[Stamps, Meta(description="What decided.")]
    degraded: Annotated[Degraded | None, Meta(description="Set when a part did not take part.")] = None
    explain: Annotated[Explanation | None, Meta(description="How it came about, if asked for.")] = None
