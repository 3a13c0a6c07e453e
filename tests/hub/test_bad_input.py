"""What comes from peers that are broken, slow, hostile or many: a clear error, and nobody else notices."""

from __future__ import annotations

import json
import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clock import ManualClock
from tests.harness import RunningHub
from tests.hub.peers import Caller, Device, Peer, connect_packet, packet, publish_packet, ready_device

RANDOM_SEED = 20260101


@pytest.fixture(scope="module", autouse=True)
def identities(shared: RunningHub) -> None:
    shared.create_device("d1")


@pytest.fixture(autouse=True)
def nothing_unexpected(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """No peer's input may end in an exception that nobody expected."""
    yield
    assert "Traceback" not in "".join(capfd.readouterr()) + caplog.text


def assert_well(hub: RunningHub) -> None:
    """A call goes through, and nothing is left of others."""
    with ready_device(hub) as device, Caller(hub) as caller:
        caller.send(caller.call("d1"))
        device.answer(device.request(), b"1")
        assert caller.response().body == b'{"status":200,"payload":1}'
    hub.until(lambda: not len(hub.hub.table) and not hub.hub.methods.open)


# --- bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["https_port", "mqtt_port"])
@pytest.mark.parametrize("tls", [True, False])
def test_random_bytes(shared: RunningHub, port: str, tls: bool) -> None:
    """Before and after the handshake, on both ports; the connection ends, the hub does not."""
    source = random.Random(RANDOM_SEED)
    for length in (1, 5, 100, 5_000, 70_000):
        with Peer(shared, getattr(shared.facts, port), tls) as peer:
            try:
                peer.send(source.randbytes(length))
                peer.socket.shutdown(socket.SHUT_WR)
                peer.rest()
            except OSError:
                pass  # the hub was quicker
    assert_well(shared)


def test_random_bytes_from_whoever_is_authenticated(shared: RunningHub) -> None:
    """In place of packets, and of a request behind a good one."""
    source = random.Random(RANDOM_SEED)
    for length in (1, 2, 3, 50, 1_000, 300_000):
        with Device(shared, "d1") as device, Caller(shared) as caller:
            assert device.connect() == (0, 0)
            assert caller.invoke("d1").code == 404103
            for peer in (device, caller):
                try:
                    peer.send(source.randbytes(length))
                    peer.socket.shutdown(socket.SHUT_WR)
                    peer.rest()
                except OSError:
                    pass
    assert_well(shared)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /twins/d1/methods HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /twins/d1/methods HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /twins/d1/methods HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /twins/d1/methods HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /devices/\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT host:443 HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nA\x00b: c\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_requests_that_are_none(shared: RunningHub, head: bytes) -> None:
    """An answer with a 4xx that is JSON, or with nothing to answer to the end of the connection; never a 5xx."""
    with Caller(shared, "") as caller:
        caller.send(head)
        answer = caller.rest()
    assert answer.startswith((b"HTTP/1.1 4", b"")) and b"HTTP/1.1 5" not in answer
    if answer:
        assert "Message" in json.loads(answer.partition(b"\r\n\r\n")[2].splitlines()[-1])


GOOD = connect_packet("d1", "h/d1/?api-version=2021-04-12", "token", True)


@pytest.mark.parametrize("cut", range(1, len(GOOD), 7))
def test_truncated_packets(shared: RunningHub, cut: int) -> None:
    """Wherever CONNECT is cut, the end of the stream ends it."""
    with Device(shared, "d1") as device:
        device.send(GOOD[:cut])
        assert isinstance(device.socket, ssl.SSLSocket)
        device.socket.unwrap()  # returns when the hub has said its goodbye, too
        assert shared.on_loop(lambda: not len(shared.hub.table))


def test_the_largest_packet_and_a_larger_one(shared: RunningHub) -> None:
    """262,144 bytes with the header are taken; one more closes the connection before they are sent."""
    topic = "devices/d1/messages/events/"
    overhead = len(publish_packet(topic, b"", 1)) + 2
    with ready_device(shared) as device:
        device.send(publish_packet(topic, b"x" * (262_144 - overhead), qos=1, packet_id=3))
        assert device.packet() == (0x40, b"\x00\x03")
        device.send(publish_packet(topic, b"x" * (262_145 - overhead), qos=1)[:10])
        assert device.is_closed()
    with Device(shared, "d1") as device:  # before authentication 64 KB are the limit, whatever the packet says
        try:
            device.send(packet(0x10, b"\x00\x04MQTT\x04\x02\x00\x00" + b"x" * 200_000))
            assert device.is_closed()
        except OSError:
            pass


# --- time and numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["https_port", "mqtt_port"])
@pytest.mark.parametrize("said", ["nothing", "handshake", "drip", "unauthorized"])
def test_thirty_seconds_from_accept_to_authenticated(timed: RunningHub, port: str, said: str) -> None:
    """One clock through TLS and CONNECT, or headers: a peer that is silent, that drips, that is refused again and
    again, has 30 s from its first to its last."""
    drip = {
        "https_port": b"GET /devices HTTP/1.1\r\nHost: abc",
        "mqtt_port": b"\x10\xff\x01\x00\x04MQTT\x04" + b"\x00" * 20,
    }
    with Peer(timed, getattr(timed.facts, port), tls=said != "nothing") as peer:
        timed.until(lambda: sum(each.connections for each in timed.hub._listeners) == 1)
        for second in range(29):
            if said == "drip":
                peer.send(drip[port][second : second + 1])
            if said == "unauthorized" and port == "https_port":
                peer.send(b"GET /devices HTTP/1.1\r\nHost: x\r\n\r\n")
            timed.advance(1)
        assert timed.on_loop(lambda: sum(each.connections for each in timed.hub._listeners)) == 1
        timed.advance(1.5)
        peer.rest()
        timed.until(lambda: not sum(each.connections for each in timed.hub._listeners))


def test_a_thousand_strangers_keep_nobody_out(tmp_path: Path) -> None:
    """Sockets that never authenticate, more than there are places for: the oldest go, an honest peer comes in."""
    with RunningHub(tmp_path / "hub", pre_authentication_sockets=300) as hub, ExitStack() as stack:
        hub.create_device("d1")
        for number in range(1000):
            port = hub.facts.mqtt_port if number % 2 else hub.facts.https_port
            stack.enter_context(socket.create_connection((hub.address, port)))
        assert_well(hub)
        mqtt = next(each for each in hub.hub._listeners if each.name == "mqtt")
        hub.until(lambda: mqtt.admission.dropped_oldest >= 200)
        assert mqtt.admission.unauthenticated <= 300


def test_a_head_without_end_from_a_stranger(shared: RunningHub) -> None:
    """64 KB and no more."""
    with Caller(shared, "") as caller, pytest.raises(OSError):
        for _ in range(100):
            caller.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 65_000)
            caller.socket.settimeout(0.05)
            try:
                if not caller.socket.recv(1000):
                    raise ConnectionError
            except TimeoutError:
                pass
    assert_well(shared)


# --- JSON, both ways ---------------------------------------------------------------------------------------------

DEEP = b"[" * 60_000 + b"]" * 60_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"methodName":1}',
        b'{"methodName":"m","payload":}',
        b'{"methodName":"m","payload":%b}' % DEEP,
        b'{"methodName":"m","x":%b}' % DEEP,
        DEEP,
        b'{"a":' * 40_000,
        b'{"methodName":"m","payload":"\xff"}',
        b'{"methodName":"m","payload":"\xed\xa0\x80"}',
        b'{"methodName":"\\ud800"}',
        b'{"methodName":"m","payload":NaN}',
        b'{"methodName":"m"} {}',
        b'\xef\xbb\xbf{"methodName":"m"}',
        b'{"methodName":"m","responseTimeoutInSeconds":1e400}',
        b'{"methodName":"m","responseTimeoutInSeconds":%b}' % (b"9" * 5000),
        b'{"methodName":"m","responseTimeoutInSeconds":4}',
        b'{"methodName":"m","responseTimeoutInSeconds":301}',
        b'{"methodName":"m","connectTimeoutInSeconds":-1}',
        b'{"methodName":"m","connectTimeoutInSeconds":301}',
        b'{"methodName":"m","connectTimeoutInSeconds":"5"}',
        b'{"methodName":""}',
        b'{"methodName":"a b"}',
        b'{"methodName":"a/b"}',
        b'{"methodName":"a#"}',
        b'{"methodName":"+"}',
        b'{"methodName":"\xc3\xa4"}',
        b'{"methodName":"%b"}' % (b"x" * 129),
        b'{"methodName":"m","payload":"%b"}' % (b"x" * 131_071),
    ],
)
def test_bodies_that_are_no_call(shared: RunningHub, body: bytes) -> None:
    """[HUB-method-name] [HUB-payload-limit] 400 and the reason; never a 500."""
    with Caller(shared) as caller:
        answer = caller.ask("POST", "/twins/d1/methods", body)
        assert (answer.status, answer.code // 10) in {(400, 40000)}
        assert caller.invoke("d1").code == 404103


def test_names_and_payloads_at_their_limits(shared: RunningHub) -> None:
    """[HUB-method-name] [HUB-payload-limit] 128 characters, each that is allowed; 131,072 bytes each way."""
    allowed = "!%&'*-.^_`|~" + "az09AZ"
    with ready_device(shared) as device, Caller(shared) as caller:
        for name in (allowed, "x" * 128):
            caller.send(caller.call("d1", name, payload="x" * 131_070))
            request = device.request()
            assert (request.name, len(request.payload)) == (name, 131_072)
            device.answer(request, request.payload)
            assert caller.response().status == 200


ANSWERS: list[tuple[bytes, str | int]] = [
    (b"not json", 200),
    (b"{'a': 1}", 200),
    (b"{} {}", 200),
    (b'"\xff"', 200),
    (b" ", 200),
    (DEEP, 200),
    (b'"%b"' % (b"x" * 131_071), 200),
    (b"{}", "ok"),
    (b"{}", ""),
    (b"{}", 2**31),
    (b"{}", -(2**31) - 1),
    (b"{}", "1.5"),
    (b"{}", "9" * 400),
]


@pytest.mark.parametrize(("payload", "status"), ANSWERS)
def test_answers_that_are_none(shared: RunningHub, payload: bytes, status: str | int) -> None:
    """[HUB-invalid-answer] [HUB-answer-status] 502 to the caller; the connection and its other calls stay."""
    with ready_device(shared) as device, Caller(shared) as caller:
        caller.send(caller.call("d1"))
        device.answer(device.request(), payload, status)
        assert caller.response().code == 502000
        caller.send(caller.call("d1"))
        device.answer(device.request(), b"", -(2**31))
        assert caller.response().body == b'{"status":-2147483648,"payload":null}'


def test_pasting_what_is_no_json(tmp_path: Path) -> None:
    """[HUB-invalid-answer] As the cloud does, if the operator wants it; a status and a size must still be right."""
    with RunningHub(tmp_path / "hub", ManualClock(), paste_invalid_answers=True) as hub:
        hub.create_device("d1")
        with ready_device(hub) as device, Caller(hub) as caller:
            for payload, status in ANSWERS:
                caller.send(caller.call("d1"))
                device.answer(device.request(), payload, status)
                answer = caller.response()
                if status == 200 and len(payload) <= 131_072:
                    assert answer.body == b'{"status":200,"payload":%b}' % payload
                else:
                    assert answer.code == 502000


def test_after_the_first_break_nothing_more_is_looked_at(shared: RunningHub, capfd: pytest.CaptureFixture[str]) -> None:
    """Thousands of wrong packets in one record of TLS are one line of the log."""
    with Device(shared, "d1") as device:
        assert device.connect() == (0, 0)
        device.send(publish_packet("wrong") * 1_000)
        assert device.rest() == b""
    assert capfd.readouterr().out.count("broke the protocol") == 1
