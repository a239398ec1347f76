"""The values that are compared with a model's own similarities: another model's mean other things.

Each has a name here, with its value for the model of the default plan. It is read from what serves the request
(``Serving.thresholds``), never as a constant: so it is flipped with its model, and `compare` finds its value on the
next model's scale from the scores of both.

There is none. Every search standardises the similarities of its scope before they count (`fusion.standardise`), so that
only their order and their relative distances do; what a context shows is cut by tokens, the HNSW index by a count, and
whether a constraint bears on a question is told by its words (`constraints.governs`).
"""

from __future__ import annotations

from typing import Final

THRESHOLDS: Final[dict[str, float]] = {}
