"""Any model that sentence-transformers loads, by path or by name: ``pip install turnstone[sentence-transformers]``."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from server.embeddings.providers import Spec, Vectors, options_of
from server.errors import ModelRefused


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """``device``: cpu, cuda, mps; by default whichever is there. ``max_tokens``: of a text, by default the model's."""

    device: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


def open_model(spec: Spec) -> SentenceTransformers:
    """Load the model; raises ModelRefused when the library or the model is not there."""
    options = options_of(spec, Options)
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ModelRefused("sentence-transformers is not installed; pip install 'turnstone[sentence-transformers]'")
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(spec.model, revision=spec.revision or None, device=options.device)
    except (OSError, ValueError) as error:
        raise ModelRefused(f"sentence-transformers cannot load {spec.model!r}: {error}") from error
    if options.max_tokens is not None:
        model.max_seq_length = options.max_tokens
    return SentenceTransformers(model)


_AT_ONCE: Final = 32  # texts that the model sees at once, padded to the longest of them


class SentenceTransformers:
    """A loaded model; what a text has beyond its longest input is left out."""

    # The library sorts what it is given by length, so that the more it has the less it pads.
    batch = 8 * _AT_ONCE

    def __init__(self, model: Any) -> None:
        self._model = model

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts."""
        encoded = self._model.encode(
            list(texts), batch_size=_AT_ONCE, show_progress_bar=False, convert_to_numpy=True, prompt=""
        )
        return np.asarray(encoded, np.float32)

    def close(self) -> None:
        """Nothing to do: the memory goes with the object."""
