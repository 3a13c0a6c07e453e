"""Bearer tokens on a running hub, whose issuer is a server on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from methodhub.config.bearer import IssuerTable
from methodhub.core.bearer.tokens import REFRESH_SECONDS
from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.hub.peers import Caller, Device
from tests.hub_limits.issuer import HttpsServer, claims, jwks, rsa_key, sign

KEY, OTHER = rsa_key("k1"), rsa_key("k2")
NOW = float(int(time.time()))


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[HttpsServer]:
    with HttpsServer(tmp_path / "issuer", documents={"/keys": jwks(KEY)}) as server:
        yield server


@pytest.fixture
def hub(tmp_path: Path, issuer: HttpsServer) -> Iterator[RunningHub]:
    settings: dict[str, Any] = {
        "bearer_issuer": issuer.url,
        "bearer_jwks_url": issuer.url + "/keys",
        "bearer_ca": issuer.ca_file,
    }
    with RunningHub(tmp_path / "hub", ManualClock(wall=NOW), **settings) as hub:
        yield hub


def token(issuer: HttpsServer, key: Any = KEY, **changes: Any) -> str:
    return "Bearer " + sign(key, claims(NOW, iss=issuer.url, **changes))


def call(hub: RunningHub, header: str, path: str = "/twins/d1/methods", **more: Any) -> httpx.Response:
    with hub.service() as client:
        return client.post(path, headers={"Authorization": header}, json={"methodName": "m", **more})


def test_a_call_and_what_a_role_lacks(hub: RunningHub, issuer: HttpsServer, caplog: pytest.LogCaptureFixture) -> None:
    hub.create_device("d1")
    assert call(hub, token(issuer)).status_code == 404  # not online: it was let in
    refused = call(hub, token(issuer, roles=["IoT Hub Data Reader"]))
    assert refused.status_code == 401 and refused.headers["iothub-errorcode"] == "IotHubUnauthorizedAccess"
    reader = token(issuer, roles=["IoT Hub Data Reader"])
    with hub.service() as client:
        assert client.get("/devices/d1", headers={"Authorization": reader}).status_code == 200
        assert client.put("/devices/d1", headers={"Authorization": reader}, json={"deviceId": "d1"}).status_code == 401
        assert client.get("/admin/hub", headers={"Authorization": token(issuer)}).status_code == 404


@pytest.mark.parametrize("path", ["/twins/d1/methods", "/devices/d1"])
def test_a_request_waits_for_the_keys_of_its_issuer(hub: RunningHub, issuer: HttpsServer, path: str) -> None:
    """[HUB-bearer-wait] A key that is not known yet; the body may come meanwhile, and two requests in one write."""
    hub.create_device("d1")
    assert call(hub, token(issuer)).status_code == 404
    asked, go_on = threading.Event(), threading.Event()
    issuer.documents["/keys"] = jwks(KEY, OTHER)

    def slow(request: Any) -> None:
        asked.set()
        go_on.wait(20)
        document = jwks(KEY, OTHER)
        request.send_response(200)
        request.send_header("content-length", str(len(document)))
        request.end_headers()
        request.wfile.write(document)

    issuer.documents["/keys"] = slow
    answers: list[httpx.Response] = []

    def ask() -> None:
        with hub.service() as client:
            headers = {"Authorization": token(issuer, OTHER)}
            if path.startswith("/devices"):
                answers.append(client.get(path, headers=headers))
            else:
                answers.append(client.post(path, headers=headers, json={"methodName": "m"}))

    asking = threading.Thread(target=ask)
    asking.start()
    assert asked.wait(20)
    assert not answers
    go_on.set()
    asking.join(20)
    assert answers[0].status_code == (404 if "twins" in path else 200)
    assert len(issuer.asked) == 2


@pytest.mark.parametrize("key", [rsa_key("k1"), rsa_key("x")], ids=["forged", "unknown"])
def test_a_stranger_is_told_401(hub: RunningHub, issuer: HttpsServer, key: Any) -> None:
    hub.create_device("d1")
    for _ in range(3):
        assert call(hub, token(issuer, key)).status_code == 401
        with hub.service() as client:
            assert client.get("/devices/d1", headers={"Authorization": token(issuer, key)}).status_code == 401
    assert len(issuer.asked) <= 2


def test_a_caller_that_is_known_by_its_bytes_is_not_when_its_key_is_gone(hub: RunningHub, issuer: HttpsServer) -> None:
    """[HUB-known-head] The issuer's keys count as the hub's policies do, and so does the end of the token."""
    hub.create_device("d1")
    with Device(hub, "d1") as device, Caller(hub) as caller:
        device.connect()
        device.subscribe()
        body = b'{"methodName":"m"}'
        header = token(issuer, exp=int(NOW) + 5_000)
        request = caller.request("POST", "/twins/d1/methods", body, Authorization=header)
        for _ in range(2):
            caller.send(request)
            device.answer(device.request())
            assert caller.response().status == 200
        issuer.documents["/keys"] = jwks(OTHER)
        hub.clock.advance(REFRESH_SECONDS)  # type: ignore[union-attr]
        hub.run(hub.hub.bearer.refresh())  # type: ignore[union-attr]
    with Caller(hub) as another:  # the first has been idle for an hour by now
        another.send(request)
        assert another.response().status == 401


def test_a_hub_without_an_issuer(tmp_path: Path, issuer: HttpsServer) -> None:
    with RunningHub(tmp_path / "hub") as hub:
        assert call(hub, token(issuer)).status_code == 401


def test_issuers_in_tables_take_the_flat_settings(tmp_path: Path, issuer: HttpsServer) -> None:
    keys = issuer.url + "/keys"
    tables = (
        IssuerTable.model_validate({"issuer": "https://one.test", "jwks_url": keys}),
        IssuerTable.model_validate(
            {"issuer": "https://two.test", "jwks_url": keys, "audience": "own", "grants": {"op": "directMethods/*"}}
        ),
    )
    with RunningHub(tmp_path / "hub", ManualClock(wall=NOW), bearer_issuers=tables, bearer_ca=issuer.ca_file) as hub:
        hub.create_device("d1")
        for changes, status in (
            ({"iss": "https://one.test"}, 404),
            ({"iss": "https://two.test"}, 401),
            ({"iss": "https://two.test", "aud": "own"}, 401),
            ({"iss": "https://two.test", "aud": "own", "roles": ["op"]}, 404),
            ({"iss": "https://one.test", "aud": "own"}, 401),
            ({"iss": issuer.url}, 401),
        ):
            header = "Bearer " + sign(KEY, claims(NOW, **changes))
            assert call(hub, header).status_code == status, changes
