"""What an installation without AMQP's engine has: MQTT, and a hub that says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.harness import RunningHub


def test_without_the_engine_amqp_is_off_and_the_hub_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("methodhub.wire.amqp", "methodhub.device.amqp"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cproton", None)  # as where it cannot be imported
    with RunningHub(tmp_path / "hub") as hub:
        assert hub.facts.amqp_port is None
        assert any("AMQP is off" in note and "methodhub[amqp]" in note for note in hub.facts.notes)
        with hub.admin() as client:
            assert client.get("/admin/hub").json()["amqpPort"] is None


def test_with_the_engine_amqp_is_on(hub: RunningHub) -> None:
    assert hub.facts.amqp_port == 5671
    assert not hub.facts.notes
