"""What the migration of embeddings looks like on the wire: versions, routing, history, where it stands."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schema.vocabulary import VersionState
from server.embeddings.lifecycle.gates.gate import Outcome
from server.embeddings.lifecycle.records import Action

TAG = "Embeddings"
PATH = "/v1/embeddings/migration"

Epoch = Annotated[
    Annotated[int, Meta(ge=0, le=2**62)] | None,
    Meta(description="The epoch that you saw: refused when somebody has changed something since.", examples=[7]),
]
VersionName = Annotated[
    str,
    Meta(min_length=1, max_length=64, pattern="^[a-z0-9][a-z0-9._-]*$", description="The version's name.",
         examples=["minilm-384"]),
]  # fmt: skip
Text = Annotated[str, Meta(max_length=1000)]
Name = Annotated[str, Meta(description="A version's name.", examples=["minilm-384"])]


class VersionReply(msgspec.Struct, kw_only=True):
    """One embedding version; all of it but its state is fixed for ever."""

    name: Name
    state: Annotated[VersionState, Meta(description="Where it stands in its life.", examples=["shadowing"])]
    since: Annotated[datetime, Meta(description="Since when.", examples=["2026-05-04T09:00:00Z"])]
    provider: Annotated[str, Meta(description="What runs the model.", examples=["sentence-transformers"])]
    model: Annotated[str, Meta(description="The model, as its provider names it.", examples=["all-MiniLM-L6-v2"])]
    revision: Annotated[str, Meta(description="The model's revision, if one was named.", examples=["main"])]
    options: Annotated[dict[str, Any], Meta(description="The provider's own.", examples=[{"device": "cpu"}])]
    dimensions: Annotated[int, Meta(description="Of its vectors.", examples=[384])]
    query_prefix: Annotated[str, Meta(description="What stands before a question.", examples=["query: "])]
    document_prefix: Annotated[str, Meta(description="What stands before a text.", examples=["passage: "])]
    text_builder: Annotated[str, Meta(description="What made the texts.", examples=["turn/1"])]
    fingerprint: Annotated[str, Meta(description="Of what the model answers, not of its name.", examples=["0f9a"])]


class VersionList(msgspec.Struct, kw_only=True):
    """All embedding versions."""

    data: Annotated[list[VersionReply], Meta(description="The oldest first.")]


class RoutingReply(msgspec.Struct, kw_only=True):
    """Which version answers whom; changed as a whole."""

    epoch: Annotated[int, Meta(description="Rises with every change.", examples=[7])]
    active: Annotated[str, Meta(description="The version that answers.", examples=["wordllama-256"])]
    candidate: Annotated[str | None, Meta(description="The version that is tried.", examples=["minilm-384"])]
    ramp: Annotated[float, Meta(description="Percent of the users whom the candidate answers.", examples=[5.0])]
    shadow: Annotated[float, Meta(description="Percent of the searches that it answers unseen.", examples=[10.0])]
    paused: Annotated[bool, Meta(description="Whether background work waits.", examples=[False])]
    written: Annotated[list[str], Meta(description="The versions that every writer covers.", examples=[["a", "b"]])]


class GateReply(msgspec.Struct, kw_only=True):
    """One judgement."""

    name: Annotated[str, Meta(description="What is judged.", examples=["recall"])]
    segment: Annotated[str, Meta(description="Of which part of the questions.", examples=["all"])]
    outcome: Annotated[Outcome, Meta(description="One that warns stops nothing.", examples=["pass"])]
    value: Annotated[float | None, Meta(description="The figure.", examples=[0.012])]
    limit: Annotated[float | None, Meta(description="What it is held against.", examples=[-0.02])]
    why: Annotated[str, Meta(description="In words.", examples=["it is not worse by more than 0.020"])]


class RecordReply(msgspec.Struct, kw_only=True):
    """One line of the history."""

    action: Annotated[Action, Meta(description="The command.", examples=["cutover"])]
    version: Annotated[str, Meta(description="Whom it was about.", examples=["minilm-384"])]
    epoch: Annotated[int, Meta(description="The routing's, after it.", examples=[8])]
    at: Annotated[datetime, Meta(description="When.", examples=["2026-05-04T09:00:00Z"])]
    who: Annotated[str, Meta(description="Name and id of the key.", examples=["admin (key_0198)"])]
    note: Annotated[str, Meta(description="What it did.", examples=["everybody reads 'minilm-384'"])]
    done: Annotated[bool, Meta(description="False: gates failed, and nothing was changed.", examples=[True])]
    forced: Annotated[str | None, Meta(description="The reason for going on all the same.", examples=[None])]
    gates: Annotated[list[GateReply], Meta(description="What it rested on.")]
    figures: Annotated[dict[str, float], Meta(description="As they were shown.", examples=[{"texts": 12000}])]
    thresholds: Annotated[
        dict[str, float], Meta(description="On the candidate's scale, by name.", examples=[{"near": 0.31}])
    ]


class History(msgspec.Struct, kw_only=True):
    """What was done, by whom, and on what figures."""

    data: Annotated[list[RecordReply], Meta(description="The oldest first.")]


class StepReply(msgspec.Struct, kw_only=True):
    """Whether a command would be let through now."""

    command: Annotated[str, Meta(description="The command.", examples=["cutover"])]
    allowed: Annotated[bool, Meta(description="Whether it may come next.", examples=[False])]
    code: Annotated[str | None, Meta(description="The refusal's stable code.", examples=["not_compared"])]
    why: Annotated[str | None, Meta(description="Why not, and what to do.", examples=["run `compare`"])]


class ServerReply(msgspec.Struct, kw_only=True):
    """A server that is alive, and how busy it was in its last five seconds."""

    name: Annotated[str, Meta(description="Host and process.", examples=["db1:4711"])]
    release: Annotated[str, Meta(description="What it runs.", examples=["0.4.0"])]
    epoch: Annotated[int, Meta(description="What it follows.", examples=[8])]
    started_at: Annotated[datetime, Meta(description="When it began.", examples=["2026-05-04T09:00:00Z"])]
    p99_ms: Annotated[float | None, Meta(description="Of its answers; null without any.", examples=[12.5])]
    requests: Annotated[int, Meta(description="How many it answered.", examples=[180])]
    waiting: Annotated[int, Meta(description="Fresh events whose vectors are late.", examples=[0])]
    reading: Annotated[int, Meta(description="Requests that began before its epoch.", examples=[0])]


class WorkerReply(msgspec.Struct, kw_only=True):
    """A process that backfills."""

    hostname: Annotated[str, Meta(description="Where it runs.", examples=["db1"])]
    pid: Annotated[int, Meta(description="The process there.", examples=[4712])]
    started_at: Annotated[datetime, Meta(description="When it began.", examples=["2026-05-04T09:00:00Z"])]
    embedded: Annotated[int, Meta(description="Events since then.", examples=[4200])]
    rate: Annotated[float, Meta(description="Events a second.", examples=[95.5])]
    duty: Annotated[float, Meta(description="Share of its time that it works, 0 to 1.", examples=[1.0])]
    why: Annotated[str, Meta(description="Why at this pace.", examples=["no live requests: at full speed"])]


class BackfillReply(msgspec.Struct, kw_only=True):
    """How much the version that is migrated to still lacks."""

    events: Annotated[int, Meta(description="Of the whole log.", examples=[12000])]
    waiting: Annotated[int, Meta(description="Of these, not looked at yet.", examples=[800])]
    conversations: Annotated[int, Meta(description="In so many conversations.", examples=[12])]
    dead: Annotated[int, Meta(description="Texts that the model refused.", examples=[0])]
    rate: Annotated[float, Meta(description="Events a second, of all workers.", examples=[95.5])]
    seconds: Annotated[float | None, Meta(description="Left at this rate; null: nothing moves.", examples=[8.4])]
    workers: Annotated[list[WorkerReply], Meta(description="Who works on it.")]


class MigrationReply(msgspec.Struct, kw_only=True):
    """Where the migration stands, and what may come next."""

    routing: Annotated[RoutingReply, Meta(description="Which version answers whom.")]
    active: Annotated[VersionReply, Meta(description="The version that answers.")]
    running: Annotated[VersionReply | None, Meta(description="The version that is migrated to.")]
    hint: Annotated[str, Meta(description="What would come next.", examples=["`shadow` comes next"])]
    backfill: Annotated[BackfillReply | None, Meta(description="What it lacks, and who works on that.")]
    verified: Annotated[RecordReply | None, Meta(description="Its newest verification in this migration.")]
    compared: Annotated[RecordReply | None, Meta(description="Its newest comparison in this migration.")]
    steps: Annotated[list[StepReply], Meta(description="Every command, and what stands in its way.")]
    servers: Annotated[list[ServerReply], Meta(description="All that are alive.")]


class DoneReply(msgspec.Struct, kw_only=True):
    """What a command has done."""

    record: Annotated[RecordReply, Meta(description="As the history has it.")]
    routing: Annotated[RoutingReply, Meta(description="As it is now.")]
    behind: Annotated[list[str], Meta(description="Live servers that do not follow yet.", examples=[[]])]
    dropped: Annotated[
        bool, Meta(description="After `contract`: the vectors are off the disk; else soon.", examples=[False])
    ]


class ComparedReply(msgspec.Struct, kw_only=True):
    """What a comparison has found."""

    object: Annotated[Literal["embeddings.comparison"], Meta(description="What this is.")] = "embeddings.comparison"
    passed: Annotated[bool, Meta(description="Whether no gate fails.", examples=[True])]
    record: Annotated[RecordReply, Meta(description="As the history has it.")]
    routing: Annotated[RoutingReply, Meta(description="As it is now.")]
    report: Annotated[dict[str, Any], Meta(description="All figures, by segment, with examples.", examples=[{}])]
