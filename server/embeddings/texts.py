"""What is embedded of an event: the text of the text builder that search indexes too."""

from __future__ import annotations

from typing import Final

# The one thing that the layer above keeps for both: the text that is embedded and the one that is indexed are the same.
from server.retrieval.text import TEXT_BEARING, TEXT_BUILDER, build

TYPES: Final = tuple(sorted(TEXT_BEARING))

__all__ = ["TEXT_BUILDER", "TYPES", "build"]
