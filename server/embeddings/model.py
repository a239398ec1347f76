"""A model as the rest of the server uses it: checked, normalised, with its prefixes, and known by what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from server.embeddings.providers import Raw, Spec, Vectors, open_raw
from server.errors import ModelRefused, TextRefused

# What every model is asked for its fingerprint. Changing a text makes every fingerprint a new one.
PROBES: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "What did we decide about the budget for the trip to Lisbon in May?",
    "Ich habe meine Meinung über den Umzug geändert, wir bleiben in Köln.",
    "我们下周二在上海见面。",
    "def total(prices): return sum(price for price in prices if price > 0)",
    "no",
    "I'm allergic to peanuts, please never suggest recipes that contain them.",
    "ORD-4471-B 2026-05-04 $1,299.00",
)
# Two texts that differ only in their ends: a model that answers alike has left the ends out.
_LONG: Final = " ".join(
    f"Paragraph {number} is about the garden, the weather and the neighbours." for number in range(600)
)
_TAILS: Final = (" The password is swordfish.", " Photosynthesis turns light into sugar.")
# The same weights on another machine, or batched otherwise, differ in the last bits; other weights differ far more.
SAME: Final = 0.9995  # cosine
_CONSTANT: Final = 0.99999
_UNIT: Final = 1e-2
_ROUNDED: Final = 2  # digits


class Fingerprint(NamedTuple):
    """What a model is, by what it answers: ``probe`` are its vectors of the probe texts, of length 1."""

    digest: str
    dimensions: int
    normalised: bool
    truncates: bool
    probe: Vectors


class Model:
    """An open model; every method is blocking, and may be called from several threads at once."""

    def __init__(self, spec: Spec, raw: Raw) -> None:
        self.spec = spec
        self._raw = raw
        self._fingerprint: Fingerprint | None = None

    @property
    def batch(self) -> int:
        """How many texts one call to the provider takes."""
        return self._raw.batch

    @property
    def dimensions(self) -> int:
        """Of its vectors."""
        return self.fingerprint().dimensions

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Embed what is stored; returns float32 unit vectors of shape (len(texts), dimensions).

        Raises ProviderUnavailable, ModelRefused, and TextRefused when the provider refuses a text or answers with NaN
        or a zero vector: embed fewer texts at once to find out which.
        """
        return self._embed(texts, self.spec.document_prefix)

    def embed_query(self, text: str) -> Vectors:
        """Embed what is asked; returns one float32 unit vector. Raises as ``embed_documents`` does."""
        return np.asarray(self._embed([text], self.spec.query_prefix)[0], np.float32)

    def close(self) -> None:
        """Give back what the provider holds."""
        self._raw.close()

    def fingerprint(self) -> Fingerprint:
        """Return what it answered when it was first probed; raises as ``probe`` does."""
        if self._fingerprint is None:
            self._fingerprint = self.probe()
        return self._fingerprint

    def probe(self) -> Fingerprint:
        """Probe the model as it is now; raises ModelRefused when it cannot tell texts apart or answers no numbers."""
        try:
            raw = self._raw.embed(PROBES)
            long = self._raw.embed([_LONG + tail for tail in _TAILS])
            vectors, ends = unit(raw), unit(long)
        except TextRefused as error:
            raise ModelRefused(f"the model {self.spec.model!r} refuses a probe text: {error.message}") from error
        alike = vectors @ vectors.T
        if np.all(alike > _CONSTANT):
            raise ModelRefused(f"the model {self.spec.model!r} answers every text with the same vector")
        normalised = bool(np.all(np.abs(np.linalg.norm(raw, axis=1) - 1) < _UNIT))
        truncates = bool(np.max(np.abs(ends[0] - ends[1])) < 1e-6)
        # The digest is a name for people. It is rounded, so that it is the same on most machines; `check` compares.
        coarse = np.round(vectors.astype(np.float64), _ROUNDED) + 0.0
        digest = hashlib.sha256(f"{vectors.shape} {normalised} {truncates}".encode() + coarse.tobytes()).hexdigest()[
            :16
        ]
        return Fingerprint(digest, vectors.shape[1], normalised, truncates, vectors)

    def _embed(self, texts: Sequence[str], prefix: str) -> Vectors:
        prefixed = [prefix + text for text in texts] if prefix else list(texts)
        parts = [self._raw.embed(prefixed[start : start + self.batch]) for start in range(0, len(prefixed), self.batch)]
        if any(part.ndim != 2 for part in parts) or sum(map(len, parts)) != len(texts):
            raise ModelRefused(f"the model {self.spec.model!r} answered with another number of vectors than of texts")
        return unit(np.concatenate(parts))


def open_model(spec: Spec) -> Model:
    """Load or connect to a model; blocking. Raises InvalidInput and ModelRefused."""
    return Model(spec, open_raw(spec))


def unit(vectors: Vectors) -> Vectors:
    """Return the vectors at length 1; raises TextRefused when one is no number or has no length."""
    norms = np.linalg.norm(vectors.astype(np.float32), axis=1, keepdims=True)
    if not np.all(np.isfinite(norms)):
        raise TextRefused("a vector has components that are no finite numbers", details={"reason": "not_finite"})
    if np.any(norms < 1e-12):
        raise TextRefused("a vector has no length", details={"reason": "zero_vector"})
    return np.asarray(vectors / norms, np.float32)


def check(model: Model, dimensions: int, probe: Vectors) -> None:
    """Raise ModelRefused when a model is not the one that answered ``probe`` when it was registered."""
    now = model.fingerprint()
    name = f"the model {model.spec.model!r} of {model.spec.provider}"
    if now.dimensions != dimensions:
        raise ModelRefused(f"{name} has {now.dimensions} dimensions; {dimensions} are registered: add it as a version")
    if probe.shape != now.probe.shape:
        raise ModelRefused(f"{name} was registered by another release, with other probe texts")
    worst = float(np.min(np.sum(now.probe * probe, axis=1)))
    if worst < SAME:
        raise ModelRefused(
            f"{name} has changed under its name (it answers a probe with cosine {worst:.4f} to what is registered); "
            "put the old one back, or add this one as a version and migrate"
        )
