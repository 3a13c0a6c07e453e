"""Metrics of several processes as one exposition."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from methodhub.metrics import Metrics, OfWorkers


def counted(outcome: str, *seconds: float) -> str:
    metrics = Metrics()
    for each in seconds:
        metrics.call_ended(outcome, each)
    return metrics.exposition().decode()


def test_each_sample_says_whose_it_is_and_who_is_away_is_told() -> None:
    """[HUB-workers]"""
    text = OfWorkers({0: counted("ok", 0.1, 0.2), 1: counted('a"b\\', 3.0), 2: None}).exposition().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    calls = [(sample.labels, sample.value) for sample in families["methodhub_calls"].samples]
    assert calls == [({"outcome": "ok", "worker": "0"}, 2.0), ({"outcome": 'a"b\\', "worker": "1"}, 1.0)]
    durations = families["methodhub_call_seconds"]
    assert durations.type == "histogram"
    counts = {s.labels["worker"]: s.value for s in durations.samples if s.name.endswith("_count")}
    assert counts == {"0": 2.0, "1": 1.0}
    assert [sample.value for sample in families["methodhub_worker_up"].samples] == [1.0, 1.0, 0.0]


def test_one_family_has_one_head() -> None:
    text = OfWorkers({0: counted("ok"), 1: counted("ok")}).exposition().decode()
    assert text.count("# TYPE methodhub_calls_total counter") == 1
