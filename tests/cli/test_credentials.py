"""Policies, connection strings and tokens."""

from __future__ import annotations

import json
import time

import pytest

from methodhub.cli.exit_codes import ExitCode
from methodhub.core.access import check_token
from methodhub.iothub.sas import parse_token

from .conftest import World

HUB_NAMES = frozenset({"127.0.0.1", "localhost"})


def policy_keys(world: World, name: str) -> tuple[str, str]:
    policy = json.loads(world("policy", "show", name, "--keys", "--json").out)
    return policy["primaryKey"], policy["secondaryKey"]


def device_keys(world: World, *path: str) -> tuple[str, str]:
    kind = "module" if len(path) == 2 else "device"
    keys = json.loads(world(kind, "show", *path, "--keys", "--json").out)["authentication"]["symmetricKey"]
    return keys["primaryKey"], keys["secondaryKey"]


def test_policies_are_listed_without_their_keys(world: World) -> None:
    listed = json.loads(world("policy", "list", "--json").out)
    assert {policy["name"] for policy in listed} == {
        "iothubowner",
        "service",
        "device",
        "registryRead",
        "registryReadWrite",
    }
    assert all(set(policy) == {"name", "rights"} for policy in listed)
    assert "service\tServiceConnect\n" in world("policy", "list").out


def test_a_policy_shows_its_keys_when_asked(world: World) -> None:
    primary, secondary = policy_keys(world, "service")
    quiet = world("policy", "show", "service")
    assert quiet.out == "name: service\nrights: ServiceConnect\n"
    assert json.loads(world("policy", "show", "service", "--json").out) == {
        "name": "service",
        "rights": ["ServiceConnect"],
    }
    loud = world("policy", "show", "service", "--keys").out
    assert primary in loud
    assert secondary in loud
    assert len({primary, secondary}) == 2


def test_an_unknown_policy_is_answered_with_those_there_are(world: World) -> None:
    for verb in (
        ("policy", "show", "nope"),
        ("connection-string", "--policy", "nope"),
        ("sas-token", "--policy", "nope"),
    ):
        result = world(*verb)
        assert (result.code, result.out) == (ExitCode.NOT_FOUND, "")
        assert "iothubowner" in result.err


def test_a_policy_string_is_all_that_stdout_holds(world: World) -> None:
    primary, secondary = policy_keys(world, "service")
    result = world("connection-string", "--policy", "service", "--hostname", "hub.example")
    assert result.out == f"HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey={primary}\n"
    assert result.err == ""
    result = world("connection-string", "--policy", "service", "--secondary", "--json")
    assert json.loads(result.out)["connectionString"].endswith(f"SharedAccessKey={secondary}")


def test_device_and_module_strings(world: World) -> None:
    world("device", "create", "d1")
    world("module", "create", "d1", "m1")
    result = world("connection-string", "--device", "d1")
    assert result.out == f"HostName=127.0.0.1;DeviceId=d1;SharedAccessKey={device_keys(world, 'd1')[0]}\n"
    # Devices dial 8883, so a port of HTTPS concerns them not.
    assert result.err == ""
    result = world("connection-string", "--device", "d1", "--module", "m1", "--secondary")
    secondary = device_keys(world, "d1", "m1")[1]
    assert result.out == f"HostName=127.0.0.1;DeviceId=d1;ModuleId=m1;SharedAccessKey={secondary}\n"


def test_another_port_than_443_is_named_for_those_who_understand_it(fake_hub_world: World) -> None:
    result = fake_hub_world("connection-string", "--policy", "service")
    assert result.out.startswith("HostName=127.0.0.1:8443;")
    assert "8443" in result.err
    assert "Node" in result.err
    assert fake_hub_world.fake is not None
    fake_hub_world.fake.facts["httpsPort"] = 443
    result = fake_hub_world("connection-string", "--policy", "service")
    assert result.out.startswith("HostName=127.0.0.1;")
    assert result.err == ""


def test_without_a_hub_the_port_is_unknown_and_said_to_be(make_world: object) -> None:
    with make_world("fake data") as world:  # type: ignore[operator]
        result = world("connection-string", "--policy", "service")
    assert result.out.startswith("HostName=127.0.0.1;")
    assert "no hub is running" in result.err


def test_an_identity_with_a_certificate_has_a_string_but_no_token(fake_hub_world: World) -> None:
    world = fake_hub_world
    assert world.fake is not None
    world("device", "create", "d1")
    world.fake.identities["d1", ""]["authentication"]["type"] = "certificateAuthority"
    assert world("connection-string", "--device", "d1").out == "HostName=127.0.0.1;DeviceId=d1;x509=true\n"
    result = world("sas-token", "--device", "d1")
    assert (result.code, result.out) == (ExitCode.REFUSED, "")


def test_an_id_that_no_string_can_hold_is_pointed_out(world: World) -> None:
    world("device", "create", "a;b")
    assert "split" in world("connection-string", "--device", "a;b").err


def test_tokens_hold_where_they_should(world: World) -> None:
    now = time.time()
    world("device", "create", "d%1")
    world("module", "create", "d%1", "m1")
    cases = [
        (("--policy", "service"), policy_keys(world, "service")[0]),
        (("--policy", "service", "--secondary"), policy_keys(world, "service")[1]),
        (("--device", "d%1"), device_keys(world, "d%1")[0]),
        (("--device", "d%1", "--module", "m1"), device_keys(world, "d%1", "m1")[0]),
    ]
    for arguments, key in cases:
        text = json.loads(world("sas-token", *arguments, "--duration", "60", "--json").out)["sas"]
        token = parse_token(text)
        check_token(token, [key], HUB_NAMES, now)
        assert now + 59 <= token.expiry <= time.time() + 61
        assert token.policy_name == ("service" if "--policy" in arguments else None)
    assert world("sas-token", "--device", "d%1").out.startswith(
        "SharedAccessSignature sr=127.0.0.1%2Fdevices%2Fd%251&sig="
    )
    assert world("sas-token", "--device", "d%1").out.count("\n") == 1
    scoped = world("sas-token", "--policy", "device", "--resource", "127.0.0.1/devices/d").out
    assert "sr=127.0.0.1%2Fdevices%2Fd&" in scoped
    assert scoped.rstrip().endswith("&skn=device")


@pytest.mark.parametrize("verb", ["connection-string", "sas-token"])
@pytest.mark.parametrize(
    "arguments", [(), ("--policy", "p", "--device", "d"), ("--module", "m"), ("--policy", "p", "--module", "m")]
)
def test_whose_credential_must_be_clear(fake_hub_world: World, verb: str, arguments: tuple[str, ...]) -> None:
    result = fake_hub_world(verb, *arguments)
    assert (result.code, result.out) == (ExitCode.USAGE, "")
    assert "--device" in result.err
