"""``POST /v1/embeddings/migration/…``: one path for each command of a migration; for an operator's admin key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Response, post
from litestar.handlers.http_handlers import HTTPRouteHandler
from msgspec import Meta

from server.api.documentation import document
from server.api.edge import Call, admit_operator, decode_bytes, read_body, reply, services
from server.api.embeddings import who
from server.api.migration_presented import PERCENT, names_of, present_done, present_record, present_routing
from server.api.migration_shapes import PATH, TAG, ComparedReply, DoneReply, Epoch, Text, VersionName
from server.embeddings.lifecycle import commands
from server.embeddings.lifecycle.commands import Command
from server.embeddings.migration.control import Done
from server.errors import MigrationRefused, ModelRefused, ProviderUnavailable, TurnstoneError

T = TypeVar("T", bound="Step")

Percent = Annotated[float, Meta(ge=0, le=100, description="From 0 to 100, to a hundredth.", examples=[5.0])]
Reason = Annotated[str, Meta(min_length=1, max_length=500)]
Force = Annotated[
    Reason | None,
    Meta(description="Why, although a comparison is missing or fails; kept in the history.", examples=["a reason"]),
]


class Step(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A command that needs no more."""

    epoch: Epoch = None


class Named(Step, forbid_unknown_fields=True, kw_only=True):
    """A command about a version."""

    name: VersionName


class VerifyStep(Step, forbid_unknown_fields=True, kw_only=True):
    """How thoroughly to look."""

    sample: Annotated[
        int, Meta(ge=1, le=5000, description="Vectors to make anew and compare, of each tenant.", examples=[200])
    ] = 200


class ShadowStep(Step, forbid_unknown_fields=True, kw_only=True):
    """How many searches the candidate answers too, unseen."""

    percent: Percent


class RampStep(Step, forbid_unknown_fields=True, kw_only=True):
    """How many users the candidate answers."""

    percent: Percent
    force: Force = None


class CutoverStep(Step, forbid_unknown_fields=True, kw_only=True):
    """That the candidate answers everybody."""

    force: Force = None


class RollbackStep(Step, forbid_unknown_fields=True, kw_only=True):
    """That all is as it was before the migration."""

    reason: Annotated[
        Annotated[str, Meta(max_length=500)], Meta(description="Kept in the history.", examples=["users complain"])
    ] = ""


class PauseStep(RollbackStep, forbid_unknown_fields=True, kw_only=True):
    """That the background work waits."""


class ContractStep(Named, forbid_unknown_fields=True, kw_only=True):
    """That a version's vectors are dropped for good."""

    confirm: Annotated[Text, Meta(description="The name once more.", examples=["wordllama-256"])]


def _step(
    action: str,
    shape: type[T],
    run: Callable[[Call, T, str], Any],
    *,
    summary: str,
    description: str,
    examples: dict[str, object],
    answer: type = DoneReply,
    errors: tuple[type[TurnstoneError], ...] = (),
) -> HTTPRouteHandler:
    decoder = msgspec.json.Decoder(shape)

    async def handler(request: Call) -> Response[bytes]:
        caller = await admit_operator(request)
        given = decode_bytes(await read_body(request) or b"{}", decoder)
        return reply(await run(request, given, await who(request, caller)))

    handler.__name__ = f"{action}_migration"
    described = document(
        summary=summary,
        tag=TAG,
        description=f"{description} For an operator's admin key; refused with 409 and the reason's own code.",
        request=shape,
        request_required=any(field.required for field in msgspec.structs.fields(shape)),
        examples=examples,
        responses={200: answer},
        errors=[MigrationRefused, *errors],
    )
    return post(f"{PATH}/{action}", **described)(handler)


def _simple(command_of: Callable[[T], Command]) -> Callable[[Call, T, str], Any]:
    async def run(request: Call, step: T, by: str) -> DoneReply:
        return await _present(request, await services(request).migration.run(command_of(step), by, epoch=step.epoch))

    return run


async def _present(request: Call, done: Done) -> DoneReply:
    return present_done(done, names_of(await services(request).migration.stored()))


async def _plan(request: Call, step: Named, by: str) -> DoneReply:
    return await _present(request, await services(request).measuring.plan(step.name, by, epoch=step.epoch))


async def _start(request: Call, step: Named, by: str) -> DoneReply:
    return await _present(request, await services(request).migration.start(step.name, by, epoch=step.epoch))


async def _verify(request: Call, step: VerifyStep, by: str) -> DoneReply:
    done = await services(request).measuring.verify(by, sample=step.sample, epoch=step.epoch)
    return await _present(request, done)


async def _compare(request: Call, step: Step, by: str) -> ComparedReply:
    done, measured = await services(request).measuring.compare(by, epoch=step.epoch)
    names = names_of(await services(request).migration.stored())
    return ComparedReply(
        passed=measured.passed,
        record=present_record(done.record, names),
        routing=present_routing(done.routing, names),
        report=measured.report(),
    )


def _points(percent: float) -> int:
    return round(percent * PERCENT)


_MODEL = (ModelRefused, ProviderUnavailable)
HANDLERS = [
    _step(
        "plan",
        Named,
        _plan,
        summary="Plan a migration",
        description="Counts the texts, measures the rate, and says how long it would take and how much disk.",
        examples={"a version": {"name": "minilm-384"}},
        errors=_MODEL,
    ),
    _step(
        "start",
        Named,
        _start,
        summary="Start a migration",
        description="Makes the version's relation; from here on every writer covers it beside the old one.",
        examples={"a version": {"name": "minilm-384"}},
    ),
    _step(
        "backfill",
        Step,
        _simple(lambda _: commands.Backfill()),
        summary="Backfill",
        description="Embeds what was written before, newest conversations first, giving way to live requests.",
        examples={"begin, or go on": {}},
    ),
    _step(
        "verify",
        VerifyStep,
        _verify,
        summary="Verify the candidate's vectors",
        description="Holds vectors and index against the log and the model; what fails is named in `gates`.",
        examples={"more thoroughly": {"sample": 1000}},
        errors=_MODEL,
    ),
    _step(
        "shadow",
        ShadowStep,
        _simple(lambda step: commands.Shadow(sample=_points(step.percent))),
        summary="Shadow",
        description="The candidate answers a share of the searches too, unseen, and both answers are compared.",
        examples={"a tenth": {"percent": 10}},
    ),
    _step(
        "compare",
        Step,
        _compare,
        summary="Compare the answers of both versions",
        description="Golden sets decide, overlap only hints. Gates that fail are part of the answer.",
        examples={"all that there is": {}},
        answer=ComparedReply,
        errors=_MODEL,
    ),
    _step(
        "ramp",
        RampStep,
        _simple(lambda step: commands.Ramp(share=_points(step.percent), force=step.force)),
        summary="Ramp",
        description="Lets the candidate answer a share of the users, always the same ones.",
        examples={"a twentieth": {"percent": 5}},
    ),
    _step(
        "cutover",
        CutoverStep,
        _simple(lambda step: commands.Cutover(force=step.force)),
        summary="Cut over",
        description="The candidate answers everybody; the old version is still written.",
        examples={"as the gates hold": {}},
    ),
    _step(
        "rollback",
        RollbackStep,
        _simple(lambda step: commands.Rollback(reason=step.reason)),
        summary="Roll back",
        description="At any time before `contract`: the old version answers everybody, as before the migration.",
        examples={"with a reason": {"reason": "users complain"}},
    ),
    _step(
        "contract",
        ContractStep,
        _simple(lambda step: commands.Contract(name=step.name, typed=step.confirm)),
        summary="Contract",
        description="Drops the vectors of the version that was replaced, or of a draft that was given up.",
        examples={"the old version": {"name": "wordllama-256", "confirm": "wordllama-256"}},
    ),
    _step(
        "pause",
        PauseStep,
        _simple(lambda step: commands.Pause(reason=step.reason)),
        summary="Pause",
        description="The background work of the migration waits; reads and writes are as ever.",
        examples={"with a reason": {"reason": "the sale begins"}},
    ),
    _step(
        "resume",
        Step,
        _simple(lambda _: commands.Resume()),
        summary="Resume",
        description="The background work of the migration goes on.",
        examples={"go on": {}},
    ),
]
