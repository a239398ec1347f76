"""The default model: static word vectors, torch-free, in the wheel of ``wordllama``.

Only the files of the wheel are used. Importing the package would set up logging, load an HTTP client, and on a wrong
path try the network; and its own pooling pads a whole batch to its longest text, which for one long text among short
ones takes gigabytes. The vectors are the same: tests/unit/test_providers.py compares them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from server.embeddings.providers import Spec, Vectors, options_of
from server.errors import ModelRefused, TextRefused
from server.working_set import tokens

MODEL: Final = "l2_supercat_256"
_MAX_CHARACTERS: Final = 32_000  # of a text: the rest changes a mean of thousands of words no more
_PIECE: Final = 2_000  # characters that the tokenizer gets at once: its cost grows faster than a long text does


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, int]
    data_offsets: tuple[int, int]


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """The static model has no options."""


def open_model(spec: Spec) -> WordLlama:
    """Load the model from the installed wheel."""
    options_of(spec, Options)
    return _load(spec.model)


@cache
def _load(model: str) -> WordLlama:
    found = importlib.util.find_spec("wordllama")
    folder = Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None
    weights = folder / "weights" / f"{model}.safetensors" if folder else None
    if folder is None or weights is None or not weights.exists():
        raise ModelRefused(f"the wheel wordllama with the model {model!r} is not installed; run `make install`")
    return WordLlama(_mapped(weights), tokens.tokenizer())


def _mapped(weights: Path) -> NDArray[np.float16]:
    """Map the table of a safetensors file: a length of 8 bytes, a header in JSON, the tensors.

    Mapped, it is shared by all processes, and no half of a process's memory.
    """
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        tensor = msgspec.json.decode(file.read(length), type=dict[str, _Tensor])["embedding.weight"]
    if tensor.dtype != "F16":
        raise ModelRefused(f"{weights.name} holds {tensor.dtype}, not F16: another release of wordllama is installed")
    start = 8 + length + tensor.data_offsets[0]
    # As a plain array: indexing the subclass costs more than what is indexed.
    return np.asarray(np.memmap(weights, dtype="<f2", mode="r", offset=start, shape=tensor.shape))


class WordLlama:
    """The mean of the vectors of a text's tokens; a text's vector depends on no other text."""

    batch = 256

    def __init__(self, table: NDArray[np.float16], tokenizer: Tokenizer) -> None:
        self._table = table
        self._tokenizer = tokenizer

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, of which the first 32,000 characters count. Raises TextRefused for one without any token."""
        pieces = [_pieces(text[:_MAX_CHARACTERS]) for text in texts]
        encoded = iter(
            self._tokenizer.encode_batch_fast([piece for own in pieces for piece in own], add_special_tokens=False)
        )
        vectors = np.empty((len(texts), self._table.shape[1]), np.float32)
        for row, own in enumerate(pieces):
            ids = [number for _ in own for number in next(encoded).ids]
            if not ids:
                raise TextRefused("the text has no token", details={"reason": "no_token"})
            rows = self._table.take(ids, axis=0).astype(np.float32)
            # A product with ones sums a short text's rows in a third of the time of a mean over them.
            vectors[row] = np.ones(len(ids), np.float32) @ rows
            vectors[row] /= len(ids)
        return vectors

    def close(self) -> None:
        """Nothing to do: the table is shared, and stays."""


def _pieces(text: str) -> list[str]:
    """Cut a text at white space into pieces that tokenize as the whole would, or nearly."""
    pieces, start = [], 0
    while len(text) - start > _PIECE:
        end = max(text.rfind(" ", start, start + _PIECE), text.rfind("\n", start, start + _PIECE))
        end = end if end > start else start + _PIECE
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]
