"""Embedding providers: one file each, found by themselves.

A file here defines ``open_model(spec) -> Raw``, which loads or connects to the model that a spec names, and may import
its library only then. ``Raw.embed`` is blocking and is called from several threads at once; its vectors may have any
length, since server/embeddings/model.py checks and normalises them. It raises ProviderUnavailable when trying again
later may help, ModelRefused when it will not, and TextRefused when some text of the batch is the reason.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidInput

T = TypeVar("T")
Vectors = NDArray[np.float32]

NAMES: Final = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """Which model: ``options`` are the provider's own; ``key`` is its secret, which is never stored."""

    provider: str
    model: str
    revision: str = ""
    options: dict[str, Any] = {}
    query_prefix: str = ""
    document_prefix: str = ""
    key: str | None = None


class Raw(Protocol):
    """A model as its provider gives it."""

    batch: int
    """How many texts one call takes."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed at least one text; returns float32 of shape (len(texts), dimensions)."""

    def close(self) -> None:
        """Give back what it holds."""


def open_raw(spec: Spec) -> Raw:
    """Load or connect to the model of a spec; blocking.

    Raises InvalidInput for an unknown provider or option, ModelRefused for a model that is not there.
    """
    if spec.provider not in NAMES:
        raise InvalidInput(f"there is no embedding provider {spec.provider!r}; choose of {', '.join(NAMES)}")
    opened: Raw = import_module(f"{__name__}.{spec.provider}").open_model(spec)
    return opened


def options_of(spec: Spec, shape: type[T]) -> T:
    """Read a provider's options; raises InvalidInput, naming the first that is wrong."""
    try:
        return msgspec.convert(spec.options, shape)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"the options of the embedding provider {spec.provider}: {error}", param="options") from None
