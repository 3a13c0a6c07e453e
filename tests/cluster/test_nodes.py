"""Two nodes are one hub: what is asked of one holds on the other, at once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

from methodhub.config import Settings
from methodhub.core.errors import HubError
from methodhub.core.identity import Target
from methodhub.core.policies import PolicyChanges, Rotation
from methodhub.iothub.mqtt import DESIRED_PROPERTIES
from methodhub.iothub.sas import build_token
from methodhub.server import StartError
from methodhub.server.hub import Hub
from methodhub.server.truth import RECHECK_INTERVAL
from tests.amqp.peers import AmqpDevice
from tests.certificates import authority
from tests.cluster.pair import Pair
from tests.harness import PATIENCE, RunningHub, no_cycles
from tests.hub.peers import Caller, Device, Request, publish_packet, ready_device
from tests.hub_jobs.peers import Answering, BackEnd
from tests.twins.test_rest_and_mqtt import told, twin_device
from tests.x509.peers import SAS, SIGNED, CertifiedDevice, add_authority, put, remove_authority

LARGE = "x" * (128 * 1024 - 2)
"""With its quotes the largest payload there is."""

_numbers = count()


@pytest.fixture
def name(pair: Pair) -> str:
    """A device of this test alone, created on A."""
    device_id = f"d{next(_numbers)}"
    put(pair.a, device_id, SAS)
    return device_id


def invoke(node: RunningHub, device_id: str, payload: object = None) -> tuple[int, object]:
    """Code of the hub, or 0, and what the device answered."""
    with Caller(node) as caller:
        response = caller.invoke(quote(device_id, safe=""), payload=payload)
        return (response.code, None) if response.status != 200 else (0, json.loads(response.body)["payload"])


def connected(node: RunningHub, device_id: str) -> Device:
    device = Device(node, device_id)
    assert device.connect() == (0, 0)
    return device


# --- calls -------------------------------------------------------------------------------------------------------


def test_ids_with_wildcards_reach_their_own_device(pair: Pair) -> None:
    """A device named * once received another's call, as a subject on the bus."""
    ids = ["*", "a.b", "a.*", "$'", "#", "a=b@c;d"]
    devices = {}
    for device_id in ids:
        with pair.a.admin() as admin:
            admin.put(f"/devices/{quote(device_id, safe='')}", json={"deviceId": device_id}).raise_for_status()
            stored = admin.get(f"/devices/{quote(device_id, safe='')}").json()
        device = Device(pair.b, device_id, token=token_of(pair.b, stored))
        assert device.connect() == (0, 0)
        assert device.subscribe() == [0]
        devices[device_id] = Answering(pair.b, device_id, device=device)
    for device_id in ids:
        assert invoke(pair.a, device_id, device_id) == (0, device_id)
    assert [[json.loads(each.payload) for each in device.seen] for device in devices.values()] == [[i] for i in ids]


def token_of(node: RunningHub, stored: dict[str, object]) -> str:
    authentication = stored["authentication"]
    assert isinstance(authentication, dict)
    key = authentication["symmetricKey"]["primaryKey"]
    resource = f"{node.address}/devices/{quote(str(stored['deviceId']), safe='')}"
    return build_token(resource, key, int(node.hub.clock.wall()) + 3600)


def test_largest_payloads_pass_both_ways(pair: Pair, name: str) -> None:
    device = Answering(pair.b, name)
    assert invoke(pair.a, name, LARGE) == (0, LARGE)
    assert [len(request.payload) for request in device.seen] == [128 * 1024]


def test_calls_through_the_other_node_leave_nothing_for_the_collector(pair: Pair, name: str) -> None:
    with Caller(pair.a) as caller, ready_device(pair.b, name) as device, no_cycles(10):
        for _ in range(10):
            caller.send(caller.call(name))
            device.answer(device.request(), b"{}")
            assert caller.response().status == 200


def test_a_device_that_is_nowhere_is_offline_on_both(pair: Pair, name: str) -> None:
    assert [invoke(node, name)[0] for node in pair] == [404103, 404103]


def test_a_call_waits_for_a_device_that_comes_to_the_other_node(pair: Pair, name: str) -> None:
    """[HUB-connect-timeout]"""
    with Caller(pair.a) as caller:
        caller.send(caller.call(name, payload=1, connectTimeoutInSeconds=30, responseTimeoutInSeconds=30))
        pair.a.until(lambda: any(call.target == Target(name) for call in pair.a.hub.methods.open))
        Answering(pair.b, name)
        assert json.loads(caller.response().body) == {"status": 200, "payload": 1}


# --- takeover ----------------------------------------------------------------------------------------------------


def test_whoever_connects_elsewhere_is_called_there_at_once(pair: Pair, name: str) -> None:
    """[HUB-takeover] Back and forth, since each node's claim must get older, too."""
    for _ in range(3):
        for here, there in (pair, (pair.b, pair.a)):
            with ready_device(here, name) as older:
                device = Answering(there, name)
                assert [invoke(node, name, 1) for node in pair] == [(0, 1), (0, 1)]
                assert len(device.seen) == 2
                assert older.is_closed()
                device.close()


def test_amqp_devices_are_called_through_the_other_node_and_taken_over(pair: Pair, name: str) -> None:
    """[HUB-takeover] From MQTT on one node to AMQP on the other, and back."""
    with ready_device(pair.a, name) as first, AmqpDevice(pair.b, name) as second:
        assert first.is_closed()
        for number, node in enumerate(pair):
            with Caller(node) as caller:
                caller.send(caller.call(name, payload=number))
                request = second.methods.request()
                assert request.payload == b"%d" % number
                second.methods.answer(request, body=b'"amqp"')
                assert json.loads(caller.response().body)["payload"] == "amqp"
        third = Answering(pair.a, name)
        assert [invoke(node, name, "mqtt") for node in pair] == [(0, "mqtt")] * 2
        assert len(third.seen) == 2
        assert {second.detached().condition for _ in range(2)} == {"amqp:link:stolen"}
        third.close()


@pytest.mark.parametrize("connect", [connected, ready_device])
def test_a_connection_that_takes_no_methods_is_taken_over_too(
    pair: Pair, name: str, connect: Callable[[RunningHub, str], Device]
) -> None:
    with connected(pair.a, name) as older, connect(pair.b, name) as newer:
        assert older.is_closed()
        newer.ping()
    with connect(pair.a, name) as older, connected(pair.b, name) as newer:
        assert older.is_closed()
        newer.ping()


def test_a_takeover_ends_the_calls_that_the_older_connection_was_handed(pair: Pair, name: str) -> None:
    with ready_device(pair.a, name) as older, Caller(pair.b) as caller:
        caller.send(caller.call(name, payload=1))
        older.request()
        with closing(Answering(pair.b, name)):
            assert caller.response().code == 400027
            assert older.is_closed()


def test_the_presence_of_the_newer_connection_stays(pair: Pair, name: str) -> None:
    """[HUB-takeover] A's farewell is written after B's welcome."""
    older = connected(pair.a, name)
    with ready_device(pair.b, name) as newer:
        assert older.is_closed()
        older.close()
        for _ in range(2):
            for node in pair:
                node.run(node.hub.presence.write())
        newer.ping()
        assert [is_connected(node, name) for node in pair] == [True, True]


def is_connected(node: RunningHub, device_id: str) -> bool:
    with node.admin() as admin:
        return bool(admin.get(f"/devices/{device_id}").json()["connectionState"] == "Connected")


def test_a_node_that_was_taken_for_dead_tells_again_who_is_connected(pair: Pair, name: str) -> None:
    with closing(connected(pair.b, name)):
        pair.b.run(pair.b.hub.presence.write())
        pair.a.run(pair.a.hub.identity_store.disconnect_all(0.0))
        assert not is_connected(pair.a, name)
        pair.b.run(pair.b.hub.node.enroll(alone=False))
        pair.b.run(pair.b.hub.presence.write())
        assert is_connected(pair.a, name)


def test_a_presence_that_another_node_wrote_over_is_found_by_comparison(pair: Pair, name: str) -> None:
    """[HUB-one-truth] A slow write of the node that had the device before."""
    with closing(connected(pair.b, name)):
        pair.b.run(pair.b.hub.presence.write())
        pair.a.run(pair.a.hub.identity_store.disconnect_all(0.0))
        pair.b.run(pair.b.hub.truth.recheck())
        pair.b.run(pair.b.hub.presence.write())
        assert is_connected(pair.a, name)


def test_a_node_without_tls_is_one_of_them(pair: Pair, tmp_path: Path) -> None:
    """For measurements."""
    urls = {"database_url": pair.a.settings.database_url, "nats_url": pair.a.settings.nats_url}
    with RunningHub(tmp_path, None, None, in_memory=False, plaintext=True, **urls) as node:
        pair.a.until(lambda: node.hub.node.name in pair.a.hub._nats.roster.live())  # type: ignore[union-attr]


def test_nobody_waits_for_a_node_that_could_not_start(pair: Pair, tmp_path: Path) -> None:
    nodes = pair.a.run(pair.a.hub.job_store.live_nodes(0.0))
    of_the_pair = pair.a.settings
    settings = Settings(
        data_dir=tmp_path,
        hostname=of_the_pair.hostname,
        bind=of_the_pair.bind,
        database_url=of_the_pair.database_url,
        nats_url=of_the_pair.nats_url,
    )
    failing = Hub(settings)
    with pytest.raises(StartError, match="another program listens there"):
        asyncio.run(failing.start())
    assert failing.node.name not in nodes
    assert pair.a.run(pair.a.hub.job_store.live_nodes(0.0)) == nodes


# --- revoked on one, closed on the other -------------------------------------------------------------------------


def disable(node: RunningHub, device_id: str) -> None:
    put(node, device_id, SAS, status="disabled")


def delete(node: RunningHub, device_id: str) -> None:
    with node.admin() as admin:
        admin.delete(f"/devices/{device_id}", headers={"If-Match": "*"}).raise_for_status()


def change_keys(node: RunningHub, device_id: str) -> None:
    key = "bmV3LW5ldy1uZXctbmV3LW5ldy1uZXctbmV3LW5ldw=="
    put(node, device_id, SAS | {"symmetricKey": {"primaryKey": key, "secondaryKey": key}})


@pytest.mark.parametrize("revoke", [disable, delete, change_keys])
def test_what_revokes_a_device_on_one_node_closes_it_on_the_other(
    pair: Pair, name: str, revoke: Callable[[RunningHub, str], None]
) -> None:
    assert RECHECK_INTERVAL > PATIENCE  # it is the event that closes, not the comparison with the store
    put(pair.a, f"{name}-other", SAS)
    with ready_device(pair.b, name) as device, connected(pair.b, f"{name}-other") as bystander:
        revoke(pair.a, name)
        assert device.is_closed()
        bystander.ping()
    assert invoke(pair.b, name)[0] == (404103 if revoke is change_keys else 404001)


def test_a_policy_that_two_nodes_rotate_at_once_has_both_keys_new(pair: Pair) -> None:
    """[HUB-rotate] No acknowledged write is lost."""
    changes = [PolicyChanges(node.hub.hub_store, node.hub.policies, node.hub.bus) for node in pair]
    for number in range(10):
        policy = pair.a.run(changes[0].create(f"both{number}", ["DeviceConnect"], (None, None)))
        with ThreadPoolExecutor() as threads:
            rotated = threads.map(
                lambda node, change, key: node.run(change.rotate(policy.name, key)),  # noqa: B023 - done in this round
                pair,
                changes,
                (Rotation.PRIMARY, Rotation.SECONDARY),
            )
            first, second = rotated
        stored = next(each for each in pair.a.run(pair.a.hub.hub_store.policies()) if each.name == policy.name)
        assert (stored.primary_key, stored.secondary_key) == (first.primary_key, second.secondary_key)
        pair.b.run(changes[1].delete(policy.name))
        with pytest.raises(HubError):
            pair.a.run(changes[0].rotate(policy.name, Rotation.SWAP))


def test_a_policy_that_is_rotated_takes_along_whom_it_let_in(pair: Pair, name: str) -> None:
    with pair.a.admin() as admin:
        admin.put("/admin/policies/gate", json={"name": "gate", "rights": ["DeviceConnect"]}).raise_for_status()
        pair.b.until(lambda: pair.b.hub.policies.get("gate") is not None)
        device = Device(pair.b, name, token=pair.b.token("gate"))
        assert device.connect() == (0, 0)
        with device:
            for key in ("primary", "secondary"):
                admin.post("/admin/policies/gate/rotate", json={"key": key}).raise_for_status()
            assert device.is_closed()
        admin.delete("/admin/policies/gate").raise_for_status()
        pair.b.until(lambda: pair.b.hub.policies.get("gate") is None)


def test_a_ca_that_is_removed_takes_along_whom_it_let_in(pair: Pair, name: str) -> None:
    """[HUB-certificate-authority]"""
    issued = authority("Cluster CA")
    add_authority(pair.a, "cluster", issued)
    put(pair.a, "signed", SIGNED)
    pair.b.until(lambda: len(pair.b.hub.authorities) == 1)
    with CertifiedDevice(pair.b, "signed", issued.issue("signed")) as device, connected(pair.b, name) as bystander:
        assert device.connect() == (0, 0)
        remove_authority(pair.a, "cluster")
        assert device.is_closed()
        bystander.ping()


# --- what is kept in memory --------------------------------------------------------------------------------------


def test_a_change_on_one_node_is_seen_by_calls_through_the_other(pair: Pair, name: str) -> None:
    """[HUB-one-truth] Also what was known not to exist."""
    unknown = f"{name}-later"
    assert [invoke(pair.b, each)[0] for each in (name, unknown)] == [404103, 404001]
    put(pair.a, unknown, SAS)
    disable(pair.a, name)
    pair.b.until(lambda: not pair.b.hub.registry.is_known_active(Target(name)))
    assert [invoke(pair.b, each)[0] for each in (name, unknown)] == [404001, 404103]
    put(pair.a, name, SAS, status="enabled")
    delete(pair.a, unknown)
    pair.b.until(lambda: not pair.b.hub.registry.is_known_active(Target(unknown)))
    assert [invoke(pair.b, each)[0] for each in (name, unknown)] == [404103, 404001]


def test_desired_properties_are_pushed_across(pair: Pair, name: str) -> None:
    """[HUB-twin-order]"""
    with Device(pair.b, name) as device, Caller(pair.a, "service") as caller:
        assert device.connect() == (0, 0)
        device.subscribe(DESIRED_PROPERTIES)
        for number in range(1, 4):
            body = {"properties": {"desired": {"n": number}}}
            assert caller.ask("PATCH", f"/twins/{name}", body).status == 200
            assert told(device)[1] == {"n": number, "$version": number + 1}


def test_desired_properties_that_a_node_did_not_hear_of_are_pushed_when_it_knows_so(
    pair: Pair, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[HUB-one-truth]"""
    with twin_device(pair.b, device_id=name) as device, Caller(pair.a, "service") as caller:
        device.send(publish_packet("$iothub/twin/GET/?$rid=1"))
        told(device)
        with monkeypatch.context() as patch:
            patch.setattr(pair.a.hub.twins, "tell", lambda twin, patch: None)
            for number in range(2):
                body = {"properties": {"desired": {"n": number}}}
                assert caller.ask("PATCH", f"/twins/{name}", body).status == 200
        pair.b.on_loop(pair.b.hub.truth.missed)
        assert told(device)[1] == {"n": 1, "$version": 3}


# --- jobs --------------------------------------------------------------------------------------------------------


def test_a_job_calls_the_devices_of_all_nodes_once(pair: Pair, name: str) -> None:
    """[HUB-job-lease]"""
    ids = [f"{name}-{number}" for number in range(20)]
    for device_id in ids:
        put(pair.a, device_id, SAS)
    devices = [Answering(pair[number % 2], device_id) for number, device_id in enumerate(ids)]
    with Caller(pair.a, "service") as caller:
        back_end = BackEnd(pair.a, caller)
        back_end.create(f"job-{name}", queryCondition=f"STARTSWITH(deviceId, '{name}-')", method={"payload": 7})
        counts = back_end.ended(f"job-{name}")["deviceJobStatistics"]
        assert (counts["deviceCount"], counts["succeededCount"]) == (20, 20)
        outcomes = back_end.devices(f"job-{name}")
    assert {each["outcome"]["deviceMethodResponse"]["payload"] for each in outcomes.values()} == {7}
    assert [len(device.seen) for device in devices] == [1] * 20


def test_a_node_whose_clock_is_wrong_decides_nothing_about_jobs(
    pair: Pair, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[HUB-common-clock] It began the job two hours early, and ended it since its time was over."""
    hub = pair.b.hub
    monkeypatch.setattr(hub.clock, "wall", lambda: time.time() + 7_200)
    pair.b.run(hub.node.renew())
    assert hub.common_clock.skew == pytest.approx(-7_200, abs=5)
    start = datetime.fromtimestamp(time.time() + 1_800, UTC).isoformat()
    job = {"jobId": name, "type": "scheduleDeviceMethod", "startTime": start, "maxExecutionTimeInSeconds": 600}
    job |= {"queryCondition": f"deviceId = '{name}'", "cloudToDeviceMethod": {"methodName": "m"}}
    with pair.a.admin() as admin:
        admin.put(f"/jobs/v2/{name}", json=job).raise_for_status()
        assert hub.scheduler is not None
        pair.b.run(hub.scheduler._look_once())
        assert admin.get(f"/jobs/v2/{name}").json()["status"] == "scheduled"
        admin.post(f"/jobs/v2/{name}/cancel")
    monkeypatch.undo()
    pair.b.run(hub.node.renew())


def test_nodes_share_the_places_of_a_job(pair: Pair) -> None:
    """[HUB-job-places]"""
    schedulers = [node.hub.scheduler for node in pair]
    shares = [[each.places(whole) for each in schedulers if each is not None] for whole in (1, 2, 3)]
    assert [sorted(each) for each in shares] == [[0, 1], [1, 1], [1, 2]]


class Moving(Device):
    """Its connection may end at any byte."""

    def packet(self) -> tuple[int, bytes]:
        try:
            return super().packet()
        except IndexError:
            return 0, b""

    def answer(self, request: Request, payload: bytes = b"{}", status: str | int = 200) -> None:
        with suppress(OSError):
            super().answer(request, payload, status)


def moved_to(node: RunningHub, device_id: str) -> Answering:
    device = Moving(node, device_id)
    assert device.connect() == (0, 0)
    assert device.subscribe() == [0]
    return Answering(node, device_id, device=device)


# --- both at once ------------------------------------------------------------------------------------------------


def test_calls_through_both_nodes_while_devices_move(pair: Pair, name: str) -> None:
    """No call with a wrong code, none delivered twice, while a device changes nodes all the time."""
    stop = threading.Event()
    seen: list[object] = []
    codes: list[int] = []

    def move() -> None:
        node, other = pair
        device = moved_to(node, name)
        for _ in range(10):
            node, other = other, node
            newer = moved_to(node, name)
            device.close()
            seen.extend(json.loads(request.payload) for request in device.seen)
            device = newer
        stop.set()
        no_more_calls.wait(PATIENCE)
        device.close()
        seen.extend(json.loads(request.payload) for request in device.seen)

    no_more_calls = threading.Event()
    mover = threading.Thread(target=move)
    with Caller(pair.a) as one, Caller(pair.b) as two:
        mover.start()
        number = 0
        while not stop.is_set():
            for caller in (one, two):
                number += 1
                response = caller.invoke(name, payload=number, connectTimeoutInSeconds=5)
                codes.append(0 if response.status == 200 else response.code)
        no_more_calls.set()
        mover.join(PATIENCE)
    assert set(codes) <= {0, 400027, 404104}, set(codes)
    assert codes.count(0) > 20
    assert len(seen) == len(set(map(str, seen)))
