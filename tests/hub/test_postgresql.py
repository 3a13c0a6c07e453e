"""A hub on PostgreSQL: what one process wrote, the next one serves; nothing of it lies in the data directory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from methodhub.config import Settings
from methodhub.process import StartError
from methodhub.server import DATABASE_NAME
from methodhub.server.domain import Domain
from tests.harness import RunningHub


def test_a_hub_finds_what_another_one_wrote(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    url = postgresql()
    with RunningHub(tmp_path / "one", in_memory=False, database_url=url) as hub, hub.admin() as client:
        created = client.put("/devices/d", json={"deviceId": "d"}).json()
        policies = client.get("/admin/policies").json()
    assert not (tmp_path / "one" / DATABASE_NAME).exists()
    with RunningHub(tmp_path / "other", in_memory=False, database_url=url) as hub, hub.admin() as client:
        assert client.get("/devices/d").json()["authentication"] == created["authentication"]
        assert client.get("/admin/policies").json() == policies


def test_a_hub_without_its_database_does_not_start_and_tells_no_password(tmp_path: Path) -> None:
    """[HUB-no-keys]"""
    url = "postgresql://hub:s3cret@127.0.0.1:1/hub"
    domain = Domain(Settings(data_dir=tmp_path, database_url=url))
    with pytest.raises(StartError, match=r"postgresql://127\.0\.0\.1:1/hub cannot be used") as caught:
        asyncio.run(domain.open())
    assert "s3cret" not in str(caught.value)
