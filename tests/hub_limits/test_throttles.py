"""Throttles and tiers on a running hub whose time stands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from methodhub.api.access import STANDARD_ONLY
from methodhub.core.access import Action
from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.hub.peers import Caller, Device


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with RunningHub(tmp_path / "hub", ManualClock(), throttle="S1") as hub:
        hub.create_device("d1")
        yield hub


def throttled(hub: RunningHub) -> dict[tuple[str, str], int]:
    return hub.on_loop(lambda: dict(hub.hub.metrics.throttled))


def use_up(hub: RunningHub, throttle: str, leave: float = 0) -> None:
    """As if others had just taken what there is."""

    def take() -> None:
        assert hub.hub.throttles is not None
        found = getattr(hub.hub.throttles, throttle)
        found._fill()
        found._level = leave

    hub.on_loop(take)


def test_a_call_above_the_rate_waits_for_its_turn(hub: RunningHub) -> None:
    """[HUB-throttle-methods] By blocks: one of 8 KiB takes the time of two."""
    with Device(hub, "d1") as device, Caller(hub) as caller:
        device.connect()
        device.subscribe()
        use_up(hub, "methods", 1)
        caller.send(caller.call("d1"))
        device.answer(device.request())
        assert caller.response().status == 200
        caller.send(caller.call("d1", payload="x" * 8_000))
        hub.until(lambda: len(hub.hub.throttles.methods._line) == 1)  # type: ignore[union-attr]
        assert throttled(hub) == {("method blocks", "delayed"): 1}
        hub.advance(0.03)
        hub.advance(0.05)
        device.answer(device.request())
        assert caller.response().status == 200


def test_a_call_whose_turn_would_come_too_late_is_429(hub: RunningHub) -> None:
    """[HUB-throttle]"""
    use_up(hub, "methods", -40 * 3)
    with Caller(hub) as caller:
        response = caller.invoke("d1")
        assert response.status == 429
        assert response.headers["iothub-errorcode"] == "ThrottlingBacklogTimeout"
        assert '\\"errorCode\\":429003' in response.body.decode()
    assert "retry-after" not in response.headers


def test_a_caller_that_hangs_up_gives_its_place_to_the_next(hub: RunningHub) -> None:
    """[HUB-throttle-hang-up]"""
    use_up(hub, "methods")
    line = hub.hub.throttles.methods._line  # type: ignore[union-attr]
    with Caller(hub) as caller:
        caller.send(caller.call("d1"))
        hub.until(lambda: len(line) == 1)
    hub.until(lambda: len(line) == 0)


@pytest.mark.parametrize(
    ("throttle", "verb", "path", "body"),
    [
        ("registry", "GET", "/devices/d1", None),
        ("registry", "GET", "/devices", None),
        ("registry", "DELETE", "/devices/d9", None),
        ("registry", "GET", "/statistics/devices", None),
        ("registry", "POST", "/devices", [{"id": "d2", "importMode": "create"}]),
        ("queries", "POST", "/devices/query", {"query": "SELECT * FROM devices"}),
        ("twin_reads", "GET", "/twins/d1", None),
        ("twin_reads", "HEAD", "/twins/d1", None),
        ("registry", "POST", "/devices/keys/regenerate", {"policyKey": "both", "devices": [{"id": "d1"}]}),
        ("twin_writes", "PATCH", "/twins/d1", {"tags": {"a": 1}}),
        ("jobs", "GET", "/jobs/v2/query", None),
        ("jobs", "PUT", "/jobs/v2/j1", {}),
        ("methods", "POST", "/digitaltwins/d1/commands/c", {}),
    ],
)
def test_each_route_has_its_throttle(hub: RunningHub, throttle: str, verb: str, path: str, body: Any) -> None:
    """[HUB-throttle-bulk] An administrator is not held back, nor is one without a right counted."""
    with Caller(hub) as caller:
        use_up(hub, throttle, -1_000_000)
        assert caller.ask(verb, path, body).status == 429
        with Caller(hub, "") as stranger:
            assert stranger.ask(verb, path, body).status == 401
        use_up(hub, throttle, 1)
        assert caller.ask(verb, path, body).status != 429
    with hub.admin() as client:
        use_up(hub, throttle, -1_000_000)
        assert client.request(verb, path, json=body).status_code != 429


def test_reading_one_job_is_free(hub: RunningHub) -> None:
    """[HUB-throttle-poll]"""
    use_up(hub, "jobs", -1_000_000)
    with Caller(hub) as caller:
        assert caller.ask("GET", "/jobs/v2/j1").status == 404


def test_a_bulk_request_counts_by_its_items(hub: RunningHub) -> None:
    """[HUB-throttle-bulk]"""
    use_up(hub, "registry", 7)
    with Caller(hub) as caller:
        items = [{"id": f"b{number}", "importMode": "create"} for number in range(7)]
        assert caller.ask("POST", "/devices", items).status == 200
        hub.advance(0.1)
        assert hub.hub.throttles is not None
        assert hub.hub.throttles.registry._level == 0


def test_a_device_waits_for_connack_and_is_refused_where_it_would_take_too_long(hub: RunningHub) -> None:
    """[HUB-throttle-connections]"""
    use_up(hub, "connections", -300)
    with Device(hub, "d1") as device:
        assert device.connect() == (0, 3)
    use_up(hub, "connections", -100)
    line = hub.hub.throttles.connections._line  # type: ignore[union-attr]
    with Device(hub, "d1") as device:
        device.send(device.hello())
        hub.until(lambda: len(line) == 1)
        hub.advance(1.05)
        assert device.connack() == (0, 0)


def test_off_by_default(timed_hub: RunningHub) -> None:
    assert timed_hub.hub.throttles is None
    timed_hub.create_device("d1")
    with Caller(timed_hub) as caller:
        statuses = {caller.ask("GET", "/devices/d1").status for _ in range(300)}
    assert statuses == {200}


def test_the_basic_tier_has_neither_methods_nor_jobs(tmp_path: Path) -> None:
    """[HUB-basic-tier] The right comes first; then, before the body and the target, the tier."""
    assert Action.TWINS_READ not in STANDARD_ONLY
    with RunningHub(tmp_path / "hub", ManualClock(), tier="basic") as hub:
        hub.create_device("d1")
        with Caller(hub) as caller, Caller(hub, "registryRead") as reader:
            for verb, path in (
                ("POST", "/twins/d1/methods"),
                ("POST", "/twins/nobody/methods"),
                ("POST", "/digitaltwins/d1/commands/c"),
                ("PUT", "/jobs/v2/j1"),
                ("GET", "/jobs/v2/query"),
            ):
                response = caller.ask(verb, path, {"no": "call"} if verb != "GET" else None)
                assert response.status == 403, path
                assert response.headers["iothub-errorcode"] == "OperationNotAvailableInCurrentTier"
                assert reader.ask(verb, path, {} if verb != "GET" else None).status == 401
            assert caller.ask("GET", "/devices/d1").status == 200
            assert caller.ask("GET", "/twins/d1").status == 200
