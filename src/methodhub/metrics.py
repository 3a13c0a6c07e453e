"""What the hub counts. Plain integers on the hot path; rendered for Prometheus only when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the latency histogram, in seconds."""


def _registry(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


class OfWorkers:
    """The expositions of several processes as one: each sample says of which it is. None: it does not answer."""

    def __init__(self, texts: Mapping[int, str | None]) -> None:
        self._texts = texts

    def exposition(self) -> bytes:
        return generate_latest(_registry(self))

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for worker, text in self._texts.items():
            for family in text_string_to_metric_families(text or ""):
                of_all = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                of_all.samples += [
                    sample._replace(labels={**sample.labels, "worker": str(worker)}) for sample in family.samples
                ]
        yield from families.values()
        up = GaugeMetricFamily("methodhub_worker_up", "Whether the worker answers", labels=["worker"])
        for worker, text in self._texts.items():
            up.add_metric([str(worker)], text is not None)
        yield up


class Metrics:
    """Counters of one hub. Written directly by whoever counts."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        """Ended calls by outcome: `ok`, `cancelled` or the name of an error code."""
        self.latency_buckets = [0] * (len(LATENCY_BOUNDS) + 1)
        self.latency_sum = 0.0
        self.late_answers = 0
        self.invalid_answers = 0
        self.telemetry_messages = 0
        self.twin_requests = 0
        self.connects_refused: dict[int, int] = {}
        """Refused CONNECTs by return code."""
        self.protocol_errors = 0
        self.throttled: dict[tuple[str, str], int] = {}
        """Requests that a throttle held up, by its name and `delayed` or the name of an error code."""
        self.job_devices: dict[str, int] = {}
        """Devices that ended in jobs, by outcome: `ok`, or the name of an error code."""
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        """Name -> (help, reader) of values that others own."""

    def call_ended(self, outcome: str, seconds: float) -> None:
        self.calls[outcome] = self.calls.get(outcome, 0) + 1
        self.latency_sum += seconds
        self.latency_buckets[bisect_left(LATENCY_BOUNDS, seconds)] += 1

    def throttled_once(self, throttle: str, outcome: str) -> None:
        self.throttled[throttle, outcome] = self.throttled.get((throttle, outcome), 0) + 1

    def job_device_ended(self, outcome: str) -> None:
        self.job_devices[outcome] = self.job_devices.get(outcome, 0) + 1

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(_registry(self))

    def collect(self) -> Iterable[Metric]:
        calls = CounterMetricFamily("methodhub_calls", "Ended method calls by outcome", labels=["outcome"])
        for outcome, count in self.calls.items():
            calls.add_metric([outcome], count)
        yield calls
        yield self._latency()
        refused = CounterMetricFamily("methodhub_connects_refused", "Refused CONNECTs by code", labels=["code"])
        for code, count in self.connects_refused.items():
            refused.add_metric([str(code)], count)
        yield refused
        throttled = CounterMetricFamily(
            "methodhub_throttled", "Requests that a throttle delayed or refused", labels=["throttle", "outcome"]
        )
        for (throttle, outcome), count in self.throttled.items():
            throttled.add_metric([throttle, outcome], count)
        yield throttled
        devices = CounterMetricFamily(
            "methodhub_job_devices", "Devices that ended in jobs by outcome", labels=["outcome"]
        )
        for outcome, count in self.job_devices.items():
            devices.add_metric([outcome], count)
        yield devices
        for name, text, value in (
            ("late_answers", "Answers that no call waited for", self.late_answers),
            ("invalid_answers", "Answers that were no valid result", self.invalid_answers),
            ("telemetry_messages", "Telemetry messages, acknowledged and dropped", self.telemetry_messages),
            ("twin_requests", "Twin requests of devices", self.twin_requests),
            ("protocol_errors", "Device connections closed for breaking the protocol", self.protocol_errors),
        ):
            yield CounterMetricFamily(f"methodhub_{name}", text, value=value)
        for name, (text, read) in self.gauges.items():
            yield GaugeMetricFamily(f"methodhub_{name}", text, value=read())

    def _latency(self) -> Metric:
        total, buckets = 0, []
        for bound, count in zip((*map(str, LATENCY_BOUNDS), "+Inf"), self.latency_buckets, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return HistogramMetricFamily(
            "methodhub_call_seconds", "Duration of ended method calls", buckets=buckets, sum_value=self.latency_sum
        )
