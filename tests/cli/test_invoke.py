"""`invoke`: bytes untouched in both directions, and an exit code for each way it can end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from methodhub.cli.exit_codes import ExitCode, refused
from methodhub.core.errors import MEANINGS, ErrorCode

from .conftest import World, WorldMaker


@pytest.fixture
def world_with_device(fake_hub_world: World) -> World:
    fake_hub_world("device", "create", "d1")
    return fake_hub_world


def sent(world: World) -> bytes:
    assert world.fake is not None
    return world.fake.calls[-1]


def test_status_and_payload_are_printed(world_with_device: World) -> None:
    result = world_with_device("invoke", "d1", "echo", "--payload", '{"a": 1}')
    assert (result.code, result.out, result.err) == (0, 'status: 200\npayload: {"a": 1}\n', "")
    result = world_with_device("invoke", "d1", "echo", "--payload", '{"a": 1}', "--json")
    assert json.loads(result.out) == {"status": 200, "payload": {"a": 1}}


def test_whatever_the_device_answers_is_success_and_keeps_its_bytes(world_with_device: World) -> None:
    result = world_with_device("invoke", "d1", "teapot")
    assert result.code == 0
    assert result.out == 'status: 418\npayload: {"big": 1e400, "b":1.0, "a":"\\u00e4"}\n'


def test_an_answer_that_is_no_json_is_printed_as_it_came(world_with_device: World) -> None:
    result = world_with_device("invoke", "d1", "paste")
    assert (result.code, result.out) == (0, '{"status":200,"payload":not json}\n')


def test_only_what_was_given_is_sent(world_with_device: World) -> None:
    world_with_device("invoke", "d1", "echo")
    assert json.loads(sent(world_with_device)) == {"methodName": "echo"}
    world_with_device("invoke", "d1", "echo", "--payload", "null")
    assert json.loads(sent(world_with_device)) == {"methodName": "echo", "payload": None}
    world_with_device("invoke", "d1", "echo", "--response-timeout", "7", "--connect-timeout", "0")
    assert json.loads(sent(world_with_device)) == {
        "methodName": "echo",
        "responseTimeoutInSeconds": 7,
        "connectTimeoutInSeconds": 0,
    }


def test_payload_bytes_pass_unchanged_from_everywhere(
    world_with_device: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = b'{"z" : 1.50,\n "a":"\\u00e4 \xc3\xa4", "n":12345678901234567890123}'
    file = tmp_path / "payload.json"
    file.write_bytes(payload)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(payload)))
    for option in (("--payload", payload.decode()), ("--payload-file", str(file)), ("--payload", "-")):
        result = world_with_device("invoke", "d1", "echo", *option)
        assert result.code == 0
        assert b'"payload":' + payload + b"}" in sent(world_with_device)
        assert payload.decode() in result.out


def test_a_module_is_called_on_its_own_path(world_with_device: World) -> None:
    assert world_with_device("invoke", "d1", "echo", "--module", "m1").code == ExitCode.NOT_FOUND
    world_with_device("module", "create", "d1", "m1")
    assert world_with_device("invoke", "d1", "echo", "--module", "m1").code == 0


@pytest.mark.parametrize("payload", ["on", "{", "[1] 2", "NaN", "", "[" * 100_000 + "]" * 100_000])
def test_a_payload_that_is_no_json_is_a_problem_of_usage(world_with_device: World, payload: str) -> None:
    result = world_with_device("invoke", "d1", "echo", "--payload", payload)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert "--payload: it is " in result.err
    assert "quotes" in result.err
    assert world_with_device.fake is not None
    assert world_with_device.fake.calls == []


def test_one_source_of_payload_that_can_be_read(world_with_device: World, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert missing in world_with_device("invoke", "d1", "echo", "--payload-file", missing).err
    both = world_with_device("invoke", "d1", "echo", "--payload-file", missing, "--payload", "1")
    assert (both.code, "not both" in both.err) == (ExitCode.USAGE, True)
    bad = tmp_path / "bad"
    bad.write_bytes(b'"\xff"')
    assert "UTF-8" in world_with_device("invoke", "d1", "echo", "--payload-file", str(bad)).err


EXITS = {
    ErrorCode.DeviceNotFound: ExitCode.NOT_FOUND,
    ErrorCode.ArgumentInvalid: ExitCode.REFUSED,
    ErrorCode.ServiceUnavailable: ExitCode.NO_HUB,
    ErrorCode.DeviceNotOnline: ExitCode.NOT_REACHED,
    ErrorCode.DeviceConnectionClosedRemotely: ExitCode.NOT_REACHED,
    ErrorCode.ConnectionForcefullyClosedOnNewConnection: ExitCode.NOT_REACHED,
    ErrorCode.GatewayTimeout: ExitCode.NOT_REACHED,
    ErrorCode.InvalidDeviceResponse: ExitCode.NOT_REACHED,
    ErrorCode.ThrottlingException: ExitCode.REFUSED,
}


@pytest.mark.parametrize("code", EXITS)
def test_a_failure_says_number_name_message_and_meaning(world_with_device: World, code: ErrorCode) -> None:
    result = world_with_device("invoke", "d1", code.name)
    assert (result.code, result.out) == (EXITS[code], "")
    assert result.err == f"methodhub: {int(code)} {code.name}: It's off. {MEANINGS[code]}\n"
    result = world_with_device("invoke", "d1", code.name, "--json")
    assert (result.code, result.out) == (EXITS[code], "")
    assert json.loads(result.err) == {
        "error": {
            "exitCode": EXITS[code],
            "code": int(code),
            "name": code.name,
            "message": "It's off.",
            "meaning": MEANINGS[code],
        }
    }


@pytest.mark.parametrize("kind", ["fake running", "real running"])
def test_a_device_that_is_not_there_was_not_reached(make_world: WorldMaker, kind: str) -> None:
    with make_world(kind) as world:
        world("device", "create", "d1")
        result = world("invoke", "d1", "reboot")
        assert (result.code, result.out) == (ExitCode.NOT_REACHED, "")
        assert "404103 DeviceNotOnline" in result.err
        assert world("invoke", "nobody", "reboot").code == ExitCode.NOT_FOUND


@pytest.mark.parametrize("kind", ["fake data", "real data"])
def test_without_a_running_hub_there_is_nothing_to_call(make_world: WorldMaker, kind: str) -> None:
    with make_world(kind) as world:
        result = world("invoke", "d1", "reboot")
    assert (result.code, result.out) == (ExitCode.NO_HUB, "")
    assert "methodhub serve" in result.err


def test_an_address_at_the_end_of_a_message_stays_whole() -> None:
    text = refused(ErrorCode.DeviceNotOnline, "See https://aka.ms/iothub404103").as_text()
    assert text.startswith("404103 DeviceNotOnline: See https://aka.ms/iothub404103 - The device")


def test_every_error_code_has_an_exit_code_of_its_own_kind() -> None:
    for code in ErrorCode:
        assert refused(code, "x").exit_code not in (ExitCode.DONE, ExitCode.UNEXPECTED, ExitCode.USAGE)
