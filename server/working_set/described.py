"""What the eviction policies are and what can be set, for those who choose one."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from server.working_set.choice import Choice
from server.working_set.eviction import policies


class Parameter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A parameter of a policy."""

    name: Annotated[str, Meta(description="Its name in `parameters`.", examples=["half_life"])]
    type: Annotated[Literal["number", "integer"], Meta(description="What it is.")]
    default: Annotated[float | int, Meta(description="Its value when it is left out.", examples=[2000.0])]
    minimum: Annotated[float | int | None, Meta(description="The least that it may be.")] = None
    above: Annotated[float | int | None, Meta(description="What it has to be greater than.")] = None
    maximum: Annotated[float | int | None, Meta(description="The most that it may be.")] = None
    below: Annotated[float | int | None, Meta(description="What it has to be less than.")] = None
    description: Annotated[str, Meta(description="What it does.")]

    @property
    def bounds(self) -> str:
        """Its bounds as a reader says them."""
        if self.minimum is not None and self.maximum is not None:
            return f"{_plain(self.minimum)} to {_plain(self.maximum)}"
        named = {"at least": self.minimum, "above": self.above, "up to": self.maximum, "below": self.below}
        return ", ".join(f"{word} {_plain(bound)}" for word, bound in named.items() if bound is not None)


class PolicyDescription(msgspec.Struct, frozen=True, kw_only=True):
    """An eviction policy."""

    name: Annotated[str, Meta(description="Its name in `policy`.", examples=["importance"])]
    version: Annotated[int, Meta(description="Goes up with any change of what it keeps.", examples=[1])]
    default: Annotated[bool, Meta(description="Whether conversations have it that choose none.", examples=[True])]
    summary: Annotated[str, Meta(description="When it wins, and when it loses.")]
    parameters: Annotated[list[Parameter], Meta(description="What can be set.")]


def described() -> list[PolicyDescription]:
    """Return every policy, by name."""
    return [
        PolicyDescription(
            name=policy.name,
            version=policy.version,
            default=policy.name == Choice().policy,
            summary=policy.summary,
            parameters=[_parameter(field) for field in _fields(policy.parameters_type)],
        )
        for policy in policies().values()
    ]


def _fields(shape: type[msgspec.Struct]) -> tuple[msgspec.inspect.Field, ...]:
    return cast("msgspec.inspect.StructType", msgspec.inspect.type_info(shape)).fields


def _parameter(field: msgspec.inspect.Field) -> Parameter:
    """Describe a field, which is a number with bounds and a description."""
    noted = field.type
    assert isinstance(noted, msgspec.inspect.Metadata), f"{field.name} is not described"
    kind = noted.type
    assert isinstance(kind, msgspec.inspect.FloatType | msgspec.inspect.IntType), f"{field.name} is no number"
    return Parameter(
        name=field.name,
        type="integer" if isinstance(kind, msgspec.inspect.IntType) else "number",
        default=field.default,
        minimum=kind.ge,
        above=kind.gt,
        maximum=kind.le,
        below=kind.lt,
        description=(noted.extra_json_schema or {})["description"],
    )


def _plain(number: float | int) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:g}"
