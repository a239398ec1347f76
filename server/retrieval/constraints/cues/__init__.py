"""Every cue, the first that a sentence shows counts: what is said of oneself, then orders, then looser words.

Patterns are over one sentence in lower case, from where its lead-in ("ok, one thing: ") ends; ``^`` is there.
"""

from __future__ import annotations

from typing import Final

from server.retrieval.constraints.cues.cue import Cue
from server.retrieval.constraints.cues.english_loose import LOOSE
from server.retrieval.constraints.cues.english_orders import INSTRUCTIONS, ORDERS
from server.retrieval.constraints.cues.english_self import SELF
from server.retrieval.constraints.cues.french import FRENCH
from server.retrieval.constraints.cues.german import GERMAN
from server.retrieval.constraints.cues.spanish import SPANISH

__all__ = ["CUES", "ORDERS", "Cue"]

CUES: Final = SELF + INSTRUCTIONS + GERMAN + FRENCH + SPANISH + LOOSE
