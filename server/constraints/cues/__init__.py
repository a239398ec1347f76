"""Every cue, the first that a sentence shows counts: what is said of oneself, then orders, then looser words.

Patterns are over one sentence in lower case, from where its lead-in ("ok, one thing: ") ends; ``^`` is there.
"""

from __future__ import annotations

from typing import Final

from server.constraints.cues.cue import Cue
from server.constraints.cues.english_loose import LOOSE
from server.constraints.cues.english_orders import INSTRUCTIONS, ORDERS
from server.constraints.cues.english_self import SELF
from server.constraints.cues.french import FRENCH
from server.constraints.cues.german import GERMAN
from server.constraints.cues.spanish import SPANISH

__all__ = ["CUES", "ORDERS", "Cue"]

CUES: Final = SELF + INSTRUCTIONS + GERMAN + FRENCH + SPANISH + LOOSE
