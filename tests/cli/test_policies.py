"""Policies from the command line: created, rotated and deleted; keys are shown only when asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from methodhub.cli.exit_codes import ExitCode

from .conftest import World


def show(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world("policy", "show", name, "--keys", "--json").out)
    return found


def test_the_life_of_a_policy(world: World) -> None:
    made = world("policy", "create", "extra", "--right", "RegistryWrite", "--right", "ServiceConnect")
    assert (made.code, made.out) == (0, "name: extra\nrights: RegistryRead, RegistryWrite, ServiceConnect\n")
    policy = show(world, "extra")
    rotated = json.loads(world("policy", "rotate", "extra", "--keys", "--json").out)
    assert rotated["secondaryKey"] == policy["secondaryKey"]
    assert rotated["primaryKey"] != policy["primaryKey"]
    world("policy", "rotate", "extra", "--key", "swap")
    assert show(world, "extra")["primaryKey"] == policy["secondaryKey"]
    quiet = world("policy", "rotate", "extra", "--key", "secondary")
    assert quiet.code == 0
    assert not any(key in quiet.out for key in (show(world, "extra")["primaryKey"], policy["primaryKey"]))
    assert world("policy", "delete", "extra").out == "deleted extra\n"
    assert world("policy", "show", "extra").code == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create", "service", "--right", "ServiceConnect"), ExitCode.CONFLICT),
        (("create", "a b", "--right", "ServiceConnect"), ExitCode.REFUSED),
        (("create", "extra"), ExitCode.USAGE),
        (("create", "extra", "--right", "Everything"), ExitCode.USAGE),
        (("rotate", "nope"), ExitCode.NOT_FOUND),
        (("rotate", "service", "--key", "both"), ExitCode.USAGE),
        (("delete", "nope"), ExitCode.NOT_FOUND),
    ],
)
def test_failures(world: World, arguments: tuple[str, ...], code: ExitCode) -> None:
    result = world("policy", *arguments)
    assert (result.code, result.out) == (code, "")
    assert len(show(world, "service")) == 4


def test_the_last_policy_stays(world: World) -> None:
    *others, last = [policy["name"] for policy in json.loads(world("policy", "list", "--json").out)]
    for name in others:
        assert json.loads(world("policy", "delete", name, "--json").out) == {"deleted": True}
    assert world("policy", "delete", last).code == ExitCode.REFUSED
