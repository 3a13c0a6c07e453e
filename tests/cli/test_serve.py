"""`serve`: what it hands to the hub, what it prints, and how it ends."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from methodhub.cli.app import main
from methodhub.cli.exit_codes import ExitCode

from .conftest import StartError


@dataclass
class Facts:
    hostname: str = "hub.example"
    https_port: int = 8443
    mqtt_port: int = 8883
    amqp_port: int | None = 5671
    data_dir: Path = Path("/data")
    in_memory: bool = False
    ca_file: Path = Path("/data/ca.pem")
    notes: tuple[str, ...] = ("HTTPS is on 8443",)


class FakeServer:
    def __init__(self) -> None:
        self.settings: Any = None
        self.outcome: int | Exception = 0
        self.facts = Facts()

    def serve(self, settings: Any, on_ready: Callable[[Any], None]) -> int:
        self.settings = settings
        if isinstance(self.outcome, Exception):
            raise self.outcome
        on_ready(self.facts)
        return self.outcome


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    fake = FakeServer()
    module = types.ModuleType("methodhub.server")
    module.StartError = StartError  # type: ignore[attr-defined]
    module.serve = fake.serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "methodhub.server", module)
    monkeypatch.setattr("methodhub.log.configure", lambda *_: None)
    return fake


def test_flags_win_over_everything(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hub.toml"
    file.write_text("mqtt_port = 1\nhttps_port = 1\nstop_grace = 3\npayload_limit = 1000\n")
    monkeypatch.setenv("METHODHUB_MQTT_PORT", "2")
    monkeypatch.setenv("METHODHUB_HTTPS_PORT", "2")
    monkeypatch.setenv("METHODHUB_STOP_GRACE", "4")
    flags = ["--mqtt-port", "3", "--hostname", "a.example", "--hostname", "10.0.0.1", "--in-memory"]
    flags += ["--set", "payload-limit=2000", "--set", "stop_grace=5", "--data-dir", str(tmp_path)]
    assert main(["serve", "--config", str(file), *flags]) == 0
    settings = server.settings
    assert (settings.mqtt_port, settings.https_port, settings.stop_grace, settings.payload_limit) == (3, 2, 5, 2000)
    assert (settings.hostname, settings.in_memory) == (("a.example", "10.0.0.1"), True)
    assert settings.data_dir == tmp_path


def test_what_no_flag_says_is_left_to_the_other_sources(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METHODHUB_IN_MEMORY", "true")
    monkeypatch.setenv("METHODHUB_HOSTNAME", "b.example")
    assert main(["serve"]) == 0
    assert (server.settings.in_memory, server.settings.hostname) == (True, ("b.example",))
    assert main(["serve", "--no-in-memory"]) == 0
    assert server.settings.in_memory is False


def test_one_ready_line_after_the_notes(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    main(["serve"])
    assert capsys.readouterr().out.splitlines() == [
        "HTTPS is on 8443",
        "MethodHub is ready: https://hub.example:8443 mqtts://hub.example:8883 amqps://hub.example:5671, "
        "data in /data, CA certificate /data/ca.pem",
    ]
    server.facts = Facts(hostname="::1", amqp_port=None, in_memory=True, notes=())
    main(["serve", "--set", "plaintext=true"])
    assert capsys.readouterr().out == (
        "MethodHub is ready: http://[::1]:8443 mqtt://[::1]:8883, identities in memory only, "
        "CA certificate /data/ca.pem\n"
    )


def test_ready_as_json(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    main(["serve", "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "ready": True,
        "hostname": "hub.example",
        "httpsPort": 8443,
        "mqttPort": 8883,
        "amqpPort": 5671,
        "dataDir": "/data",
        "inMemory": False,
        "caFile": "/data/ca.pem",
        "notes": ["HTTPS is on 8443"],
    }


def test_the_hub_chooses_the_exit_code(server: FakeServer) -> None:
    server.outcome = 6
    assert main(["serve"]) == 6


def test_a_hub_that_cannot_start_says_why(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.outcome = StartError("port 8883 is in use by another program; choose another with --mqtt-port")
    assert main(["serve"]) == ExitCode.NO_HUB
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "methodhub: port 8883 is in use by another program; choose another with --mqtt-port\n"


def test_every_wrong_setting_has_its_line(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--https-port", "70000", "--set", "nope=1", "--bind", "example.com"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("methodhub: ") for line in lines)
    assert server.settings is None
