"""Token counts by the tokenizer that ships with the default embedder, without loading the embedder.

The count of a text is frozen into budgets, checkpoints and snapshots, so it carries ``TOKENIZER``; another version
means that checkpoints are folded anew.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

_PACKAGE: Final = "wordllama"
_FILE: Final = "l2_supercat_tokenizer_config.json"
_CHUNK: Final = 2000  # characters
TOKENIZER: Final = f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)} {_FILE.removesuffix('_config.json')}/1"


@cache
def tokenizer() -> Tokenizer:
    """Return the tokenizer, loaded once: the default embedder reads its texts through it too."""
    # Importing the package would load pydantic, requests and three compiled modules; its folder is all we need.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the package {_PACKAGE} is not installed: its tokenizer counts tokens; run `make install`")
    # Rust threads and a later fork do not mix, and one append is too small to gain from them.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = Tokenizer.from_file(str(Path(spec.submodule_search_locations[0], "tokenizers", _FILE)))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _pieces(text: str) -> Iterator[str]:
    """Cut a text at white space, since the tokenizer treats a whole text as one word and long ones cost n log n."""
    start = 0
    while len(text) - start > _CHUNK:
        end = max(text.rfind(" ", start, start + _CHUNK), text.rfind("\n", start, start + _CHUNK))
        end = end if end > start else start + _CHUNK
        yield text[start:end]
        start = end
    yield text[start:]


def count(texts: Sequence[str]) -> list[int]:
    """Count the tokens of each text; an empty one has none."""
    pieces = [list(_pieces(text)) for text in texts]
    encoded = iter(tokenizer().encode_batch_fast(list(chain.from_iterable(pieces)), add_special_tokens=False))
    return [sum(len(next(encoded)) for _ in piece) for piece in pieces]


def fitting(text: str, limit: int) -> int:
    """Return how many characters, from a text's start, take at most ``limit`` tokens; reads no more than it needs."""
    left, place = limit, 0
    for piece in _pieces(text):
        encoded = tokenizer().encode(piece, add_special_tokens=False)
        if len(encoded) > left:
            # The start of the first token that is too many: a character of several tokens is not cut in two.
            place += encoded.offsets[left][0]
            break
        left -= len(encoded)
        place += len(piece)
    while place and count([text[:place]])[0] > limit:  # cut elsewhere, the last word may take more tokens
        place -= 1
    return place
