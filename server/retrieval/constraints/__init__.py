"""Standing instructions and preferences: recognised when written, superseded by later ones, brought when they govern.

"Always show code with highlighting", "I'm vegetarian", "never call me before nine" share no word with the questions
that they govern, so no similarity brings them; they are recognised by plain cues that can be shown to their writer.
Cues are in English, German, French and Spanish.
"""

from __future__ import annotations

from server.retrieval.constraints.constraint import Constraint, Kind, Polarity, Strength, Topic
from server.retrieval.constraints.recognise import SETTERS, recognise
from server.retrieval.constraints.relations import governs, supersedes

__all__ = ["SETTERS", "Constraint", "Kind", "Polarity", "Strength", "Topic", "governs", "recognise", "supersedes"]
