"""`device` and `module`, the same whether the hub runs or not."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.cli.exit_codes import ExitCode
from methodhub.cli.hub import escape
from methodhub.core.identity import ID_PATTERN

from .conftest import World

TRICKY_ID = "a%2F#?;=+'$:@b"


def show(world: World, *path: str) -> Any:
    result = world(path[0], "show", *path[1:], "--keys", "--json")
    assert result.code == ExitCode.DONE, result.err
    return json.loads(result.out)


def test_a_device_from_create_to_delete(world: World) -> None:
    created = world("device", "create", "d1")
    assert (created.code, created.out) == (0, "created d1\n")
    assert "connection-string --device d1" in created.err
    assert show(world, "device", "d1")["status"] == "enabled"
    assert world("device", "disable", "d1").out == "disabled d1\n"
    assert show(world, "device", "d1")["status"] == "disabled"
    assert world("device", "enable", "d1").out == "enabled d1\n"
    assert show(world, "device", "d1")["status"] == "enabled"
    assert world("device", "delete", "d1").out == "deleted d1\n"
    assert world("device", "show", "d1").code == ExitCode.NOT_FOUND


def test_a_device_may_begin_disabled(world: World) -> None:
    assert json.loads(world("device", "create", "d1", "--disabled", "--json").out)["status"] == "disabled"
    assert show(world, "device", "d1")["status"] == "disabled"


def test_every_legal_id_reaches_the_hub_as_it_is(world: World) -> None:
    for name in (TRICKY_ID, ".", "..", "%2e"):
        assert world("device", "create", name).code == 0
        assert show(world, "device", name)["deviceId"] == name


@given(st.from_regex(ID_PATTERN, fullmatch=True))
def test_no_id_leaves_its_path_segment(name: str) -> None:
    raw = httpx.URL(f"http://h/devices/{escape(name)}").raw_path
    assert raw.startswith(b"/devices/")
    assert b"/" not in raw[9:] and b"?" not in raw
    assert httpx.URL(f"http://h/devices/{escape(name)}").path == f"/devices/{name}"


def test_what_exists_is_not_created_again(world: World) -> None:
    world("device", "create", "d1")
    world("module", "create", "d1", "m1")
    keys = show(world, "device", "d1")["authentication"]
    for again in (("device", "create", "d1"), ("module", "create", "d1", "m1")):
        result = world(*again)
        assert result.code == ExitCode.CONFLICT
        assert "AlreadyExists" in result.err
        assert result.out == ""
    assert show(world, "device", "d1")["authentication"] == keys


def test_what_is_missing_is_named(world: World) -> None:
    world("device", "create", "d1")
    for verb in ("show", "delete", "enable", "disable", "regenerate-keys"):
        result = world("device", verb, "nobody")
        assert (result.code, result.out) == (ExitCode.NOT_FOUND, "")
        assert result.err.startswith("methodhub: 404001 DeviceNotFound: ")
        assert len(result.err.splitlines()) == 1
    for verb in ("show", "delete", "regenerate-keys"):
        assert world("module", verb, "d1", "nobody").err.startswith("methodhub: 404010 ModuleNotFound: ")
    result = world("module", "create", "nobody", "m1")
    assert (result.code, result.err[:29]) == (ExitCode.NOT_FOUND, "methodhub: 404001 DeviceNotFo")


@pytest.mark.parametrize("kind", ["device", "module"])
@pytest.mark.parametrize(
    ("choice", "changed"),
    [("both", {"primaryKey", "secondaryKey"}), ("primary", {"primaryKey"}), ("secondary", {"secondaryKey"})],
)
def test_regenerated_keys_are_new_and_the_others_stay(world: World, kind: str, choice: str, changed: set[str]) -> None:
    world("device", "create", "d1")
    world("module", "create", "d1", "m1")
    path = ("d1",) if kind == "device" else ("d1", "m1")
    before = show(world, kind, *path)["authentication"]["symmetricKey"]
    result = world(kind, "regenerate-keys", *path, "--key", choice)
    assert result.code == 0
    after = show(world, kind, *path)["authentication"]["symmetricKey"]
    assert {name for name in after if after[name] != before[name]} == changed
    assert all(len(base64.b64decode(key)) >= 16 for key in after.values())
    assert not any(key in result.out + result.err for key in (*before.values(), *after.values()))


def test_keys_are_printed_only_where_asked_for(world: World) -> None:
    outputs = [world("device", "create", "d1", "--json"), world("module", "create", "d1", "m1", "--json")]
    keys = [
        key
        for path in (("device", "d1"), ("module", "d1", "m1"))
        for key in show(world, *path)["authentication"]["symmetricKey"].values()
    ]
    for arguments in (
        ("device", "list"),
        ("device", "show", "d1"),
        ("module", "list", "d1"),
        ("module", "show", "d1", "m1"),
    ):
        outputs += [world(*arguments), world(*arguments, "--json")]
    for arguments in (("device", "disable", "d1"), ("device", "enable", "d1")):
        outputs.append(world(*arguments, "--json"))
    assert all(output.code == 0 and output.out for output in outputs)
    assert not any(key in output.out + output.err for key in keys for output in outputs)
    assert keys[0] in world("device", "show", "d1", "--keys").out


def test_lists_hold_every_device_in_order(world: World) -> None:
    check_lists(world)


def test_lists_go_on_until_a_page_is_empty(fake_hub_world: World) -> None:
    """The fake gives pages of two, whatever size was asked for."""
    check_lists(fake_hub_world)


def check_lists(world: World) -> None:
    assert (world("device", "list").out, world("device", "list", "--json").out) == ("", "[]\n")
    names = [f"d{number}" for number in range(5)]
    for name in names:
        assert world("device", "create", name).code == 0
    assert [device["deviceId"] for device in json.loads(world("device", "list", "--json").out)] == names
    lines = world("device", "list").out.splitlines()
    assert lines[0] == "d0\tenabled\tDisconnected\tsas"
    assert [line.split("\t")[0] for line in lines] == names


def test_modules_belong_to_their_device(world: World) -> None:
    for name in ("d1", "d2"):
        world("device", "create", name)
    assert world("module", "create", "d1", "m1").out == "created d1/m1\n"
    assert world("module", "list", "d1").out == "m1\tDisconnected\tsas\n"
    assert json.loads(world("module", "list", "d2", "--json").out) == []
    assert json.loads(world("module", "delete", "d1", "m1", "--json").out) == {"deleted": True}
    assert world("module", "list", "d1").out == ""


def test_a_change_by_someone_else_is_not_overwritten(fake_hub_world: World) -> None:
    world = fake_hub_world
    fake = world.fake
    assert fake is not None
    world("device", "create", "d1")
    put = fake.identity

    def meanwhile(method: str, key: tuple[str, str], etag: str | None, body: bytes) -> Any:
        if method == "PUT":
            fake.identities[key]["etag"] = "of somebody else"
        return put(method, key, etag, body)

    fake.identity = meanwhile  # type: ignore[method-assign]
    result = world("device", "disable", "d1")
    assert result.code == ExitCode.CONFLICT
    assert "412001 PreconditionFailed" in result.err
    assert fake.identities["d1", ""]["status"] == "enabled"


def test_an_identity_with_a_certificate_has_no_keys_to_regenerate(fake_hub_world: World) -> None:
    world = fake_hub_world
    assert world.fake is not None
    world("device", "create", "d1")
    world.fake.identities["d1", ""]["authentication"]["type"] = "selfSigned"
    result = world("device", "regenerate-keys", "d1")
    assert result.code == ExitCode.REFUSED
    assert "selfSigned" in result.err
