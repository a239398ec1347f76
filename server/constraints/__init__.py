"""Standing instructions and preferences: recognised when written, superseded by later ones, brought when they govern.

"Always show code with highlighting", "I'm vegetarian", "never call me before nine" share no word with the questions
that they govern, so no similarity brings them; they are recognised by plain cues that can be shown to their writer.
Cues are in English, German, French and Spanish.
"""

from __future__ import annotations

from server.constraints.constraint import Constraint, Kind, Polarity, Strength, Topic
from server.constraints.recognise import RECOGNISER, SETTERS, recognise, stated
from server.constraints.relations import governs, supersedes
from server.constraints.rule import Rule, rule_of

__all__ = [
    "RECOGNISER",
    "SETTERS",
    "Constraint",
    "Kind",
    "Polarity",
    "Rule",
    "Strength",
    "Topic",
    "governs",
    "recognise",
    "rule_of",
    "stated",
    "supersedes",
]
