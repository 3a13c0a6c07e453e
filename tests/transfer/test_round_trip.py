"""From SQLite to PostgreSQL and back, every row is what it was."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from methodhub.cli.app import main
from methodhub.config import Settings
from methodhub.server import DATABASE_NAME, StartError
from methodhub.server.transfer import export_hub, import_hub
from methodhub.store.transfer.lines import TransferError
from methodhub.store.transfer.tables import AUTHORITY
from tests.harness import RunningHub
from tests.transfer.rows import Rows, fill, hubs, rows_in
from tests.upgrade.make_data import identities, make


def exported(data_dir: Path, url: str | None = None) -> bytes:
    out = io.BytesIO()
    asyncio.run(export_hub(Settings(data_dir=data_dir, database_url=url), out))
    return out.getvalue()


def imported(data_dir: Path, text: bytes, url: str | None = None) -> None:
    asyncio.run(import_hub(Settings(data_dir=data_dir, database_url=url), io.BytesIO(text)))


def without_authority(rows: Rows) -> Rows:
    return rows | {"secrets": [row for row in rows["secrets"] if row["name"] != AUTHORITY]}


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rows=hubs())
def test_any_rows_survive(rows: Rows, postgresql: Callable[[], str]) -> None:
    """[HUB-export]"""
    with tempfile.TemporaryDirectory() as place:
        one, two = Path(place) / "one", Path(place) / "two"
        one.mkdir()
        fill(one / DATABASE_NAME, rows)
        url = postgresql()
        text = exported(one)
        imported(one, text, url)
        assert rows_in(url) == rows_in(one / DATABASE_NAME)
        again = exported(one, url)
        imported(two, again)
        assert rows_in(two / DATABASE_NAME) == rows_in(one / DATABASE_NAME)
        assert again == text


def test_a_hub_with_all_that_one_has_moves_and_its_devices_notice_nothing(
    tmp_path: Path, postgresql: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """[HUB-export] Identities, keys, policies, CA certificates, sessions, and the authority that clients trust."""
    expected = make(tmp_path / "one")
    file, back, url = tmp_path / "hub.jsonl", tmp_path / "back.jsonl", postgresql()
    assert main(["export", str(file), "--data-dir", str(tmp_path / "one")]) == 0
    assert main(["import", str(file), "--data-dir", str(tmp_path / "two"), "--database-url", url]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "keep it as you keep those" in capsys.readouterr().err
    for name in ("ca.pem", "ca-key.pem"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    with RunningHub(tmp_path / "node", in_memory=False, database_url=url) as hub, hub.admin() as client:
        assert hub.ca_file.read_bytes() == (tmp_path / "one" / "ca.pem").read_bytes()
        assert client.get("/admin/policies").json() == expected["policies"]
        assert client.get("/admin/ca-certificates").json() == expected["authorities"]
        assert identities(client) == expected["identities"]
        # A hub that runs is exported, too.
        exported_running = exported(tmp_path / "node", url)
    assert main(["export", str(back), "--data-dir", str(tmp_path / "two"), "--database-url", url]) == 0
    assert back.read_bytes() == exported_running
    assert main(["import", str(back), "--data-dir", str(tmp_path / "three")]) == 0
    one, three = (rows_in(tmp_path / name / DATABASE_NAME) for name in ("one", "three"))
    assert one == three


def test_a_running_hub_on_sqlite_is_exported_as_of_one_moment(tmp_path: Path) -> None:
    """[HUB-export-snapshot]"""
    with RunningHub(tmp_path / "one", in_memory=False) as hub:
        hub.create_device("before")
        text = exported(tmp_path / "one")
        hub.create_device("after")
    imported(tmp_path / "two", text)
    with RunningHub(tmp_path / "two", in_memory=False) as hub, hub.admin() as client:
        assert [device["deviceId"] for device in client.get("/devices").json()] == ["before"]


@pytest.fixture
def small(tmp_path: Path) -> bytes:
    with RunningHub(tmp_path / "small", in_memory=False) as hub:
        hub.create_device("d1")
        hub.create_device("d2")
    return exported(tmp_path / "small")


def with_checksum(lines: list[bytes]) -> bytes:
    text = b"".join(lines)
    return text + json.dumps({"end": True, "sha256": hashlib.sha256(text).hexdigest()}).encode() + b"\n"


def header_with(text: bytes, **changes: Any) -> bytes:
    head, *lines = text.splitlines(keepends=True)
    return with_checksum([json.dumps(json.loads(head) | changes).encode() + b"\n", *lines[:-1]])


def other_type(text: bytes) -> bytes:
    lines = text.splitlines(keepends=True)
    row = json.loads(lines[2])
    row[0] = 5
    return with_checksum([*lines[:2], json.dumps(row).encode() + b"\n", *lines[3:-1]])


def orphan(text: bytes) -> bytes:
    lines = text.splitlines(keepends=True)
    row = json.loads(lines[2])
    row[1:3] = ["m", ""]
    return with_checksum([*lines[:2], json.dumps(row).encode() + b"\n", *lines[3:-1]])


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda text: b"", "cut off"),
    "foreign": (lambda text: b'{"format": "other"}\n', "no export of MethodHub"),
    "binary": (lambda text: b"SQLite format 3\0\n" + text, "no export of MethodHub"),
    "without its last line": (lambda text: b"".join(text.splitlines(keepends=True)[:-1]), "cut off"),
    "in the middle of a line": (lambda text: text[: len(text) // 2], "cut off|damaged"),
    "a row less": (lambda text: b"".join(text.splitlines(keepends=True)[:2] + text.splitlines(True)[3:]), "damaged"),
    "a changed id": (lambda text: text.replace(b'["d1"', b'["d3"'), "do not add up"),
    "more behind it": (lambda text: text + b"[]\n", "behind the end"),
    "newer format": (lambda text: header_with(text, version=2, methodhub="9.9"), r"newer MethodHub \(9\.9\)"),
    "newer schema": (lambda text: header_with(text, schema="9999"), "newer MethodHub"),
    "older schema": (lambda text: header_with(text, schema="0003"), "older MethodHub"),
    "unknown fields": (lambda text: header_with(text, more=1), "not whole"),
    "no counts": (lambda text: header_with(text, counts=None), "not whole"),
    "other tables": (lambda text: header_with(text, counts={"identities": 2}), "other tables"),
    "another type": (other_type, r"identities\.device_id cannot hold"),
    "a module without its device": (orphan, "the database refuses a row"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_whole_export_changes_nothing(
    name: str, small: bytes, tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    """[HUB-export] All or nothing, on both databases."""
    spoil, why = BAD[name]
    for number, url in enumerate((None, postgresql())):
        place = tmp_path / f"to-{number}"
        with pytest.raises(TransferError, match=why):
            imported(place, spoil(small), url)
        assert not (place / "ca.pem").exists()
        imported(place, small, url)
        assert len(rows_in(url or place / DATABASE_NAME)["identities"]) == 2


def test_a_row_that_the_database_holds_in_the_end_only_is_as_good_as_none(small: bytes, tmp_path: Path) -> None:
    with pytest.raises(TransferError):
        imported(tmp_path / "to", small.replace(b'"end":true', b'"end":false'))
    assert not any(rows_in(tmp_path / "to" / DATABASE_NAME).values())


def test_only_into_a_hub_that_was_never_started(
    small: bytes, tmp_path: Path, postgresql: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hub.jsonl"
    file.write_bytes(small)
    with RunningHub(tmp_path / "used", in_memory=False) as hub:
        with pytest.raises(StartError, match="in use by another hub"):
            imported(tmp_path / "used", small)
        kept = hub.ca_file.read_bytes()
    assert main(["import", str(file), "--data-dir", str(tmp_path / "used")]) == 5
    assert "is another authority than that of the export" in capsys.readouterr().err
    for name in ("ca.pem", "ca-key.pem"):
        (tmp_path / "used" / name).rename(tmp_path / name)
    assert main(["import", str(file), "--data-dir", str(tmp_path / "used")]) == 5
    assert "the database is not empty: it holds policies" in capsys.readouterr().err
    assert (tmp_path / "ca.pem").read_bytes() == kept
    url = postgresql()
    imported(tmp_path / "used", small, url)
    with pytest.raises(TransferError, match="not empty"):
        imported(tmp_path / "used", small, url)


def test_the_file_is_the_owners_alone_and_never_replaces_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """[HUB-file-modes]"""
    with RunningHub(tmp_path / "hub", in_memory=False):
        pass
    there = tmp_path / "there"
    there.write_text("mine")
    assert main(["export", str(there), "--data-dir", str(tmp_path / "hub")]) == 4
    assert there.read_text() == "mine"
    token = secrets.token_hex(4)
    monkeypatch.setattr("methodhub.server.transfer.secrets.token_hex", lambda size: token)
    assert main(["export", str(tmp_path / "no" / "where"), "--data-dir", str(tmp_path / "hub")]) == 5
    assert main(["export", str(tmp_path / "nothing"), "--data-dir", str(tmp_path / "none")]) == 6
    assert "There is no database" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "there"]
    assert main(["export", "-", "--data-dir", str(tmp_path / "hub")]) == 0
    assert capsys.readouterr().out.startswith('{"methodhub":')
