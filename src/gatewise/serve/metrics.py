"""What the server measures of itself, for Prometheus: in a registry of its own."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gatewise.serve.runs import Runs

_BUCKETS = (
    *(0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.125),
    *(0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
)
_COUNTS = {
    "requests": "Requests to the model.",
    "cancelled": "Requests whose client went before the answer.",
    "refused": "Requests that found the queue full.",
    "read": "Tokens of prefixes that were read.",
    "known": "Tokens of prefixes whose state was in the cache.",
    "written": "Tokens of all continuations.",
    "steps": "Steps of the writing.",
    "columns": "Samples in all steps: divided by the steps, the mean size of a batch.",
}
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The server's figures.

    Args:
        runs: what is served.
    """

    def __init__(self, runs: Runs) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "gatewise_request_seconds",
            "From a request's head to the end of its answer.",
            ["kind"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._answers = Counter(
            "gatewise_answers",
            "Answers by kind and status.",
            ["kind", "status"],
            registry=self.registry,
        )
        self.registry.register(_OfRuns(runs))

    def note(self, kind: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._seconds.labels(kind).observe(seconds)
        self._answers.labels(kind, str(status)).inc()

    def page(self) -> bytes:
        """All of it as text."""
        return generate_latest(self.registry)


class _OfRuns(Collector):
    """What the batchers count, read when it is asked for."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        for name, text in _COUNTS.items():
            family = CounterMetricFamily(f"gatewise_model_{name}", text, labels=["run"])
            for served in self._runs:
                family.add_metric([served.source.name], served.counts().get(name, 0))
            yield family
        takeovers = CounterMetricFamily(
            "gatewise_takeovers", "Checkpoints that were taken over.", labels=["run"]
        )
        queue = GaugeMetricFamily("gatewise_queue", "Requests on their way.", labels=["run"])
        cache = GaugeMetricFamily(
            "gatewise_cache_bytes", "Texts and states that are kept.", labels=["run"]
        )
        for served in self._runs:
            batchers = [one for loaded in served.all for one in loaded.batchers]
            takeovers.add_metric([served.source.name], served.taken_over)
            queue.add_metric([served.source.name], sum(one.load for one in batchers))
            cache.add_metric([served.source.name], sum(one.cache.nbytes for one in batchers))
        yield from (takeovers, queue, cache)
