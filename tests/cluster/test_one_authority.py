"""Nodes of one database have one authority: who trusts one of them trusts them all."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from methodhub.net.certificates import CertificateError, authority_text, ensure_authority, install_authority
from methodhub.server import offline_api
from tests.harness import RunningHub

NOW = 1_800_000_000.0


def test_a_client_that_trusts_the_first_node_trusts_the_second(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    """[HUB-one-authority]"""
    url = postgresql()
    with RunningHub(tmp_path / "one", in_memory=False, database_url=url) as hub:
        trusted = hub.ca_file.read_bytes()
    with RunningHub(tmp_path / "two", in_memory=False, database_url=url) as hub:
        assert not hub.facts.notes
        shutil.rmtree(tmp_path / "one")
        (tmp_path / "trusted.pem").write_bytes(trusted)
        assert hub.ca_file.read_bytes() == trusted
        with hub.service("iothubowner") as client:
            assert client.get("/devices").status_code == 200
        key = tmp_path / "two" / "ca-key.pem"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_node_that_had_another_one_says_so_once_and_keeps_the_former(
    tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    url = postgresql()
    with RunningHub(tmp_path / "two", in_memory=False) as hub:
        former = hub.ca_file.read_bytes()
    with RunningHub(tmp_path / "one", in_memory=False, database_url=url) as hub:
        shared = hub.ca_file.read_bytes()
    with RunningHub(tmp_path / "two", in_memory=False, database_url=url) as hub:
        [note] = hub.facts.notes
        assert "ca.pem was replaced by the authority that all nodes on this database share" in note
        assert hub.ca_file.read_bytes() == shared
        assert (tmp_path / "two" / "ca.pem.former").read_bytes() == former
        with hub.service() as client:
            assert client.get("/health/ready").status_code == 200
    with RunningHub(tmp_path / "two", in_memory=False, database_url=url) as hub:
        assert not hub.facts.notes


def test_the_command_without_a_hub_has_it_too(
    tmp_path: Path, postgresql: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql()
    with RunningHub(tmp_path / "one", in_memory=False, database_url=url) as hub:
        shared = hub.ca_file.read_bytes()
    monkeypatch.setenv("METHODHUB_DATABASE_URL", url)

    async def open_and_close() -> None:
        async with offline_api(tmp_path / "desk"):
            pass

    asyncio.run(open_and_close())
    assert (tmp_path / "desk" / "ca.pem").read_bytes() == shared


def test_an_operators_certificate_is_left_alone(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    with RunningHub(tmp_path / "donor", in_memory=False) as hub:
        own: dict[str, Any] = {
            "certificate": tmp_path / "donor" / "server.pem",
            "certificate_key": tmp_path / "donor" / "server-key.pem",
        }
        address = hub.address
    with RunningHub(tmp_path / "one", in_memory=False, address=address, database_url=postgresql(), **own) as hub:
        assert hub.ca_file == own["certificate"]
        assert not (tmp_path / "one" / "ca.pem").exists()


@pytest.mark.parametrize("spoil", [lambda text: b"", lambda text: text[:-100], lambda text: text[:-40] + text])
def test_what_is_no_authority_is_not_installed(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    own = ensure_authority(tmp_path, NOW)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CertificateError):
        install_authority(tmp_path, spoil(authority_text(own)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_a_key_of_another_authority_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = (ensure_authority(tmp_path / name, NOW) for name in "ab")
    with pytest.raises(CertificateError, match="do not belong together"):
        install_authority(tmp_path / "a", a.pem + authority_text(b)[len(b.pem) :])
