"""Queries over REST as back ends and tools send them: bodies, headers, pages, errors, rights."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.harness import RunningHub
from tests.hub.peers import ready_device


def ask(client: httpx.Client, query: str, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/devices/query", json={"query": query}, headers=names)


def rows(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    response = ask(client, query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()
    return found


def fleet(hub: RunningHub, count: int) -> None:
    with hub.service() as client:
        for number in range(count):
            hub.create_device(f"d{number}", capabilities={"iotEdge": number == 0})
            tags = {"floor": number, "place": {"room": "kitchen" if number % 2 else "hall"}}
            assert client.patch(f"/twins/d{number}", json={"tags": tags}).status_code == 200


def test_a_page_and_its_headers(hub: RunningHub) -> None:
    """[HUB-continuation-absent]"""
    fleet(hub, 3)
    with hub.service() as client:
        first = ask(client, "SELECT * FROM devices", x_ms_max_item_count="2")
        assert [twin["deviceId"] for twin in first.json()] == ["d0", "d1"]
        assert first.headers["x-ms-item-type"] == "Twin"
        last = ask(client, "SELECT * FROM devices", x_ms_continuation=first.headers["x-ms-continuation"])
        assert [twin["deviceId"] for twin in last.json()] == ["d2"]
        assert "x-ms-continuation" not in last.headers
        twin = client.get("/twins/d2").json()
        assert last.json() == [twin]
        assert client.post("/devices/query/", json={"query": "SELECT * FROM devices"}).json()[2] == twin


def test_the_types_of_items(hub: RunningHub) -> None:
    with hub.service() as client:
        for query, item_type in (
            ("SELECT * FROM devices", "Twin"),
            ("SELECT * FROM devices.modules", "Twin"),
            ("SELECT * FROM devices.jobs", "DeviceJob"),
            ("SELECT deviceId FROM devices", "Raw"),
            ("SELECT count() FROM devices", "Raw"),
        ):
            assert ask(client, query).headers["x-ms-item-type"] == item_type


@pytest.mark.parametrize(("given", "rows"), [("1", 1), ("1000", 5), ("1001", 5), ("0", 5), ("-1", 5), ("", 5)])
def test_how_many_items(hub: RunningHub, given: str, rows: int) -> None:
    for number in range(5):
        hub.create_device(f"d{number}")
    with hub.service() as client:
        assert len(ask(client, "SELECT * FROM devices", x_ms_max_item_count=given).json()) == rows
        assert ask(client, "SELECT * FROM devices", x_ms_max_item_count="many").status_code == 400


def test_a_continuation_is_of_one_query_and_one_hub(hub: RunningHub) -> None:
    """[HUB-continuation]"""
    fleet(hub, 3)
    with hub.service() as client:
        token = ask(client, "SELECT * FROM devices", x_ms_max_item_count="1").headers["x-ms-continuation"]
        for query, shown in (
            ("SELECT * FROM devices ", token),
            ("SELECT * FROM devices WHERE tags.floor = 1", token),
            ("SELECT * FROM devices", token[:-4] + "AAAA"),
            ("SELECT * FROM devices", "made-up"),
        ):
            response = ask(client, query, x_ms_continuation=shown)
            assert response.status_code == 400
            assert response.headers["iothub-errorcode"] == "ArgumentInvalid"


def test_what_is_wrong_is_told(hub: RunningHub) -> None:
    """[HUB-query-error]"""
    with hub.service() as client:
        response = ask(client, "SELECT * FROM devices\nWHERE tags.a ==")
        assert response.status_code == 400
        assert response.json()["Message"].startswith(
            "ErrorCode:ArgumentInvalid;The query is wrong at line 2, column 15: expected "
        )
        for body, code in (
            (b"{", "IotHubFormatError"),
            (b"{}", "ArgumentInvalid"),
            (b'{"query":5}', "ArgumentInvalid"),
        ):
            response = client.post("/devices/query", content=body)
            assert (response.status_code, response.headers["iothub-errorcode"]) == (400, code)


def test_the_right_to_ask(hub: RunningHub) -> None:
    for policy, status in (("service", 200), ("iothubowner", 200), ("registryReadWrite", 401), ("device", 401)):
        with hub.service(policy) as client:
            assert ask(client, "SELECT * FROM devices").status_code == status


def test_who_is_connected_at_this_moment(hub: RunningHub) -> None:
    fleet(hub, 2)
    connected = "SELECT deviceId FROM devices WHERE connectionState = 'Connected'"
    with hub.service() as client:
        assert rows(client, connected) == []
        with ready_device(hub, "d1"):
            assert rows(client, connected) == [{"deviceId": "d1"}]


def test_what_tools_ask(hub: RunningHub) -> None:
    """Azure IoT Explorer and the extension of VS Code (`wire/service.md` 5)."""
    fleet(hub, 3)
    hub.create_module("d1", "m")
    with hub.service() as client:
        found = rows(
            client,
            "SELECT deviceId as DeviceId, status as Status, lastActivityTime as LastActivityTime, "
            "statusUpdateTime as StatusUpdateTime, authenticationType as AuthenticationType, "
            "cloudToDeviceMessageCount as CloudToDeviceMessageCount, capabilities.iotEdge as IotEdge FROM devices "
            "WHERE STARTSWITH(devices.deviceId, 'd0') OR (capabilities.iotEdge = true AND status = 'enabled')",
        )
        assert found == [
            {
                "DeviceId": "d0",
                "Status": "enabled",
                "LastActivityTime": "0001-01-01T00:00:00",
                "StatusUpdateTime": "0001-01-01T00:00:00",
                "AuthenticationType": "sas",
                "CloudToDeviceMessageCount": 0,
                "IotEdge": True,
            }
        ]
        modules = rows(client, "SELECT * FROM devices.modules WHERE deviceId in ['d1']")
        assert [(twin["deviceId"], twin["moduleId"]) for twin in modules] == [("d1", "m")]
        edges = rows(client, "SELECT * FROM DEVICES where capabilities.iotEdge=true")
        assert [twin["deviceId"] for twin in edges] == ["d0"]


def test_groups(hub: RunningHub) -> None:
    fleet(hub, 5)
    with hub.service() as client:
        columns = "tags.place.room AS room, count() AS n, avg(tags.floor) AS floor"
        query = f"SELECT {columns} FROM devices GROUP BY tags.place.room"
        assert rows(client, query) == [
            {"room": "hall", "n": 3, "floor": 2},
            {"room": "kitchen", "n": 2, "floor": 2},
        ]
        assert rows(client, "SELECT COUNT() as total FROM devices") == [{"total": 5}]


def test_a_body_is_read_as_json(hub: RunningHub) -> None:
    hub.create_device("it's")
    with hub.service() as client:
        body = json.dumps({"query": "SELECT deviceId FROM devices WHERE deviceId = 'it\\'s'", "more": 1})
        assert client.post("/devices/query", content=body).json() == [{"deviceId": "it's"}]
