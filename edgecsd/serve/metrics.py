"""What the service counts, as Prometheus reads it (text format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
VECTORS = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts of observations at most as large as each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        total, found = 0, []
        for bound, count in zip([*self._bounds, "+Inf"], self._counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*found, f"{name}_sum {self._sum:.9g}", f"{name}_count {total}"]


class Metrics:
    """Filled by the guard (requests), the batcher (batches) and the search (seconds)."""

    def __init__(self, vectors: int) -> None:
        self._gallery = vectors
        self.requests: Counter[tuple[str, int]] = Counter()
        self.in_flight = 0
        self.search_seconds, self.batch_vectors = Histogram(SECONDS), Histogram(VECTORS)

    def text(self) -> str:
        """The whole page."""
        lines = ["# TYPE edgecsd_requests_total counter"]
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'edgecsd_requests_total{{route="{route}",status="{status}"}} {count}')
        gauges = {"in_flight_requests": self.in_flight, "gallery_vectors": self._gallery}
        for name, value in gauges.items():
            lines += [f"# TYPE edgecsd_{name} gauge", f"edgecsd_{name} {value}"]
        for name, histogram in (("search_seconds", self.search_seconds), ("batch_vectors", self.batch_vectors)):
            lines += [f"# TYPE edgecsd_{name} histogram", *histogram.lines(f"edgecsd_{name}")]
        return "\n".join(lines) + "\n"
