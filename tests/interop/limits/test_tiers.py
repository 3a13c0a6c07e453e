"""What the official SDKs make of a hub of the basic tier, and of one whose throttle is used up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import RunningHub
from tests.interop.peers import Failure, Language, Service


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_call_to_a_hub_of_the_basic_tier(tmp_path: Path, language: Language) -> None:
    """[HUB-basic-tier]"""
    with RunningHub(tmp_path / "hub", tier="basic") as hub, Service(hub, language) as service:
        hub.create_device("d1")
        failure = service.call("d1")
        assert isinstance(failure, Failure)
        assert (failure.status, failure.code, failure.header) == (403, 403010, "OperationNotAvailableInCurrentTier")


@pytest.mark.parametrize("language", ["python", "node"])
def test_a_call_above_what_the_throttle_lets_wait(tmp_path: Path, language: Language) -> None:
    """[HUB-throttle]"""
    with RunningHub(tmp_path / "hub", throttle="S1") as hub, Service(hub, language) as service:
        hub.create_device("d1")
        assert hub.hub.throttles is not None
        hub.on_loop(lambda: hub.hub.throttles.methods.__setattr__("_level", -1e6))  # type: ignore[union-attr]
        failure = service.call("d1")
        assert isinstance(failure, Failure)
        assert (failure.status, failure.code, failure.header) == (429, 429003, "ThrottlingBacklogTimeout")
