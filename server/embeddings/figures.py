"""What is counted of embedding, for Prometheus; ``version`` is the operator's name of one, a handful in all."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from server.operations.metrics import REGISTRY

EMBEDDED: Final = Counter("turnstone_embedded_total", "Events that got a vector.", ("version",), registry=REGISTRY)
REFUSED: Final = Counter(
    "turnstone_embedding_refused_total", "Events whose text the model refused.", ("version",), registry=REGISTRY
)
PENDING: Final = Gauge(
    "turnstone_embedding_pending",
    "Events that this process knows to wait for their vector.",
    ("version",),
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
LAG: Final = Gauge(
    "turnstone_embedding_lag_seconds",
    "How long the first of the fresh events has been waiting for its vector.",
    ("version",),
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
BATCH: Final = Histogram(
    "turnstone_embedding_batch_seconds",
    "Time of the model for one batch of events.",
    ("version",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
UP: Final = Gauge(
    "turnstone_embedding_provider_up",
    "Whether the provider of a version answers, and with the model that was registered.",
    ("version",),
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
