"""From what was read to what is written: texts, their hashes, their vectors; blocking, and no part of a transaction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.database.ids import keyed_hash
from server.database.tenant import Tenant
from server.embeddings.model import PROBES, Model
from server.embeddings.pending import Stretch, Written
from server.embeddings.providers import Vectors
from server.embeddings.texts import build
from server.errors import ProviderUnavailable, TextRefused


def text_hash(tenant: Tenant, text: str) -> bytes:
    """Return the keyed hash that stands beside a vector, to tell which text it was made of."""
    return keyed_hash(tenant.salt, "embedded text", text)


def make(tenant: Tenant, model: Model, stretches: Sequence[Stretch]) -> list[Written]:
    """Embed what was read; a text that the model refuses becomes an error, and stops no other.

    Raises ProviderUnavailable and ModelRefused: then nothing was made.
    """
    texts: list[str] = []
    places: list[tuple[int, int]] = []
    errors: list[dict[int, str]] = [{} for _ in stretches]
    for number, stretch in enumerate(stretches):
        for event in stretch.events:
            try:
                built = build(event)
            except Exception as error:  # what one event holds must not stop the rest of the log
                errors[number][event.seq] = type(error).__name__
                continue
            if built is not None:
                texts.append(built.text)
                places.append((number, event.seq))
    vectors, refused = _embed(model, texts)
    if refused:
        _make_sure_it_is_the_text(model)
    seqs: list[list[int]] = [[] for _ in stretches]
    rows: list[list[int]] = [[] for _ in stretches]
    for row, (number, seq) in enumerate(places):
        if row in refused:
            errors[number][seq] = refused[row]
        else:
            seqs[number].append(seq)
            rows[number].append(row)
    return [
        Written(stretch, own, [text_hash(tenant, texts[row]) for row in row_numbers], vectors[row_numbers], failed)
        for stretch, own, row_numbers, failed in zip(stretches, seqs, rows, errors, strict=True)
    ]


def _embed(model: Model, texts: Sequence[str]) -> tuple[Vectors, dict[int, str]]:
    """Return a row for each text, and why for those that were refused; halves a batch until it knows which they are."""
    if not texts:
        return np.empty((0, model.dimensions), np.float32), {}
    try:
        return model.embed_documents(texts), {}
    except TextRefused as error:
        if len(texts) == 1:
            return np.zeros((1, model.dimensions), np.float32), {0: str(error.details.get("reason", error.code))}
    half = len(texts) // 2
    first, refused = _embed(model, texts[:half])
    second, more = _embed(model, texts[half:])
    return np.concatenate([first, second]), refused | {half + row: why for row, why in more.items()}


def _make_sure_it_is_the_text(model: Model) -> None:
    """Raise ProviderUnavailable when the provider refuses everything: that is no fault of the texts."""
    try:
        model.embed_documents(PROBES[:1])
    except TextRefused as error:
        raise ProviderUnavailable(f"{model.spec.provider} refuses even a probe text: {error.message}") from error
