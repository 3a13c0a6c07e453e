"""The verbs of `ca-certificate`, and identities that are created with certificates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from methodhub.cli.exit_codes import ExitCode
from tests.certificates import Issued, authority, self_signed

from .conftest import World

FACTORY = authority("Factory")
FIRST, SECOND = self_signed("d"), self_signed("d")


def written(directory: Path, issued: Issued) -> str:
    return issued.files(directory)[0]


def authentication(world: World, *path: str) -> dict[str, object]:
    shown = world("module" if len(path) == 2 else "device", "show", *path, "--json")
    found: dict[str, object] = json.loads(shown.out)["authentication"]
    return found


def test_from_registration_over_the_proof_to_removal(world: World, tmp_path: Path) -> None:
    """[HUB-proof-of-possession]"""
    added = world("ca-certificate", "add", "factory", written(tmp_path, FACTORY))
    assert added.code == ExitCode.DONE
    first, second = added.out.splitlines()
    assert first == "added factory"
    code = second.removeprefix("verification code: ")
    assert "methodhub ca-certificate verify factory FILE" in added.err
    assert f"verificationCode: {code}" in world("ca-certificate", "show", "factory").out
    assert world("ca-certificate", "list").out.startswith("factory\tunverified\tCN=Factory\t")
    refused = world("ca-certificate", "verify", "factory", written(tmp_path, FACTORY.issue("x")))
    assert (refused.code, "not the verification code" in refused.err) == (ExitCode.REFUSED, True)
    assert world("ca-certificate", "verify", "factory", written(tmp_path, FACTORY.issue(code))).out == (
        "verified factory\n"
    )
    (listed,) = json.loads(world("ca-certificate", "list", "--json").out)
    assert (listed["verified"], listed["verificationCode"], listed["certificate"]) == (True, None, FACTORY.pem)
    assert world("ca-certificate", "remove", "factory").out == "removed factory\n"
    assert world("ca-certificate", "list", "--json").out == "[]\n"
    assert world("ca-certificate", "show", "factory").code == ExitCode.NOT_FOUND


def test_a_ca_may_be_taken_at_the_operators_word(world: World, tmp_path: Path) -> None:
    path = written(tmp_path, FACTORY)
    assert world("ca-certificate", "add", "factory", path, "--verified").out == "added factory\n"
    assert json.loads(world("ca-certificate", "show", "factory", "--json").out)["verified"] is True
    assert world("ca-certificate", "add", "factory", path).code == ExitCode.CONFLICT
    assert world("ca-certificate", "remove", "other").code == ExitCode.NOT_FOUND


def test_devices_and_modules_are_created_with_thumbprints(world: World, tmp_path: Path) -> None:
    files = [option for each in (FIRST, SECOND) for option in ("--certificate", written(tmp_path, each))]
    with_colons = ":".join(FIRST.sha1[index : index + 2] for index in range(0, 40, 2))
    cases = {
        ("a",): (files, (FIRST.sha256, SECOND.sha256)),
        ("b",): (["--primary-thumbprint", with_colons], (FIRST.sha1, None)),
        ("c",): (["--secondary-thumbprint", SECOND.sha256, *files[:2]], (FIRST.sha256, SECOND.sha256)),
        ("a", "m"): (files[2:], (SECOND.sha256, None)),
    }
    for path, (options, (primary, secondary)) in cases.items():
        made = world("module" if len(path) == 2 else "device", "create", *path, "--auth", "x509-thumbprint", *options)
        assert made.code == ExitCode.DONE, made.err
        assert authentication(world, *path) == {
            "type": "selfSigned",
            "x509Thumbprint": {
                "primaryThumbprint": primary and primary.upper(),
                "secondaryThumbprint": secondary and secondary.upper(),
            },
        }
    text = world("connection-string", "--device", "a").out
    assert text.endswith(";DeviceId=a;x509=true\n")


def test_devices_are_created_for_a_ca(world: World) -> None:
    assert world("device", "create", "a", "--auth", "x509-ca").code == ExitCode.DONE
    assert authentication(world, "a")["type"] == "certificateAuthority"
    assert world("sas-token", "--device", "a").code == ExitCode.REFUSED
    assert world("device", "regenerate-keys", "a").code == ExitCode.REFUSED


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--auth", "x509-thumbprint"], "needs --certificate FILE or --primary-thumbprint HEX"),
        (["--auth", "x509-ca", "--primary-thumbprint", FIRST.sha1], "belong to --auth x509-thumbprint"),
        (["--primary-thumbprint", FIRST.sha1], "belong to --auth x509-thumbprint"),
        (["--auth", "x509-thumbprint", "--certificate", "missing.pem"], "cannot read missing.pem"),
        (["--auth", "x509-thumbprint", "--certificate", __file__], "holds no certificate in PEM"),
        (["--auth", "x509"], "is not one of 'sas', 'x509-thumbprint', 'x509-ca'"),
    ],
)
def test_options_that_do_not_go_together(fake_hub_world: World, options: list[str], reason: str) -> None:
    refused = fake_hub_world("device", "create", "d", *options)
    assert (refused.code, reason in refused.err) == (ExitCode.USAGE, True), refused.err


def test_three_thumbprints_are_one_too_many(fake_hub_world: World, tmp_path: Path) -> None:
    options = ["--certificate", written(tmp_path, FIRST)] * 3
    refused = fake_hub_world("device", "create", "d", "--auth", "x509-thumbprint", *options)
    assert (refused.code, "two thumbprints at most" in refused.err) == (ExitCode.USAGE, True)


def test_a_thumbprint_that_is_none_is_refused_by_the_hub(world: World) -> None:
    refused = world("device", "create", "d", "--auth", "x509-thumbprint", "--primary-thumbprint", "abc")
    assert (refused.code, "400004" in refused.err) == (ExitCode.REFUSED, True)
