"""What the service counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
VECTORS = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Filled by the guard (requests), the batcher (batches) and the search (seconds); one registry a service."""

    def __init__(self, vectors: int) -> None:
        """vectors: how many the gallery holds."""
        self.registry = CollectorRegistry()
        self.requests = Counter("edgecsd_requests", "Answers.", ["route", "status"], registry=self.registry)
        self.in_flight = Gauge("edgecsd_in_flight_requests", "Requests under way.", registry=self.registry)
        self.search_seconds = Histogram(
            "edgecsd_search_seconds", "Time of a search request.", buckets=SECONDS, registry=self.registry
        )
        self.batch_vectors = Histogram(
            "edgecsd_batch_vectors", "Vectors searched together.", buckets=VECTORS, registry=self.registry
        )
        Gauge("edgecsd_gallery_vectors", "Vectors in the gallery.", registry=self.registry).set(vectors)

    def text(self) -> bytes:
        """The whole page."""
        return generate_latest(self.registry)
