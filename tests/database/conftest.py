"""A served model that embeds by words, and the same model as a candidate's vectors are held against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.embeddings.model import Model, open_model
from tests.database.candidates import DIMENSIONS, spec_of
from tests.embedding_server import EmbeddingServer, embedding_server


@pytest.fixture
def served() -> Iterator[EmbeddingServer]:
    with embedding_server(DIMENSIONS) as server:
        yield server


@pytest.fixture
def words(served: EmbeddingServer) -> Iterator[Model]:
    model = open_model(spec_of(served))
    yield model
    model.close()
