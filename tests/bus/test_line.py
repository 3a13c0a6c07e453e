"""The line to NATS: addresses and secrets, refusals, TLS, and strangers on the same server."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from methodhub.bus.line import LineFailure, Server, servers
from methodhub.bus.messages import Subjects
from methodhub.core.identity import Target
from methodhub.core.ports import Event, PolicyChanged
from methodhub.wire.nats.protocol import connect, publish
from tests.bus.nodes import Cluster
from tests.bus.peers import Caller, D, Device, until
from tests.certificates import authority
from tests.nats_server import RunningNats


def test_urls() -> None:
    assert servers("nats://u:p%40%3A@h:1") == (Server("h", 1, user="u", password="p@:"),)
    one, two, three = servers("nats://token@h, tls://[::1]:9,nats://h")
    assert (one.token, one.user, one.port) == ("token", None, 4222)
    assert (two.host, two.port) == ("::1", 9)
    assert isinstance(two.tls, ssl.SSLContext)
    assert three == Server("h", 4222)
    context = ssl.create_default_context()
    assert servers("tls://h", context)[0].tls is context


@pytest.mark.parametrize(
    "url", ["", "h:1", "http://u:hush@h", "nats://u:hush@h:x", "nats://u:hush@h/x", "nats://u:hush@"]
)
def test_urls_that_are_none_tell_no_secret(url: str) -> None:
    with pytest.raises(ValueError, match="URL of NATS") as caught:
        servers(url)
    assert "hush" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_nothing_that_is_shown_names_a_secret() -> None:
    server = servers("tls://user:hush@h:1")[0]
    assert str(server) == "tls://h:1"
    assert "hush" not in repr(server)
    assert "user" not in repr(server)


async def test_wrong_credentials(runner: asyncio.Runner, nats: RunningNats, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = Server("127.0.0.1", nats.port, user="hub", password="hush-hush")
    with pytest.raises(LineFailure, match=r"(?i)authorization violation"):
        await start_one(Cluster(wrong))
    assert "hush-hush" not in "".join(capsys.readouterr())


async def start_one(cluster: Cluster) -> None:
    async with cluster.node("a", patience=0.5):
        pass


async def test_nobody_there(runner: asyncio.Runner, nats: RunningNats) -> None:
    nats.end()
    with pytest.raises(LineFailure, match="Connect"):
        await start_one(Cluster(nats.server))


async def test_not_nats(runner: asyncio.Runner) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(LineFailure, match="not NATS"):
            await start_one(Cluster(Server("127.0.0.1", port)))


async def test_strangers_and_later_versions_do_no_harm(runner: asyncio.Runner, nats: RunningNats) -> None:
    """What no node would send is dropped, one by one."""
    cluster = Cluster(nats.server)
    async with cluster.node("a") as a, cluster.node("b") as b:
        device = Device("d1")
        await a.claim(D, device.answer, device.lose)
        events = asyncio.Queue[Event]()
        a.subscribe(events.put_nowait)
        subjects = Subjects("methodhub", "a")
        reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
        writer.write(connect("stranger", nats.user, nats.password))
        rubbish = [b"", b"\x00", b"\xc1", b"\x92\xa1x\x01", b"\x94\xa8Happened\xa1z\xa3Nay\xc0"]
        rubbish.append(b"\x94\xa8Happened\xa1z\xadPolicyChanged\xc0")
        for data in rubbish:
            for subject in (subjects.all, subjects.own, subjects.reply(1), subjects.reply_prefix + b"x"):
                writer.write(publish(subject, data))
            for reply in (b"", b"x", b"methodhub.reply.z.y", b"methodhub.reply.\xff.1"):
                writer.write(publish(subjects.call(D), data, reply))
        writer.write(b"PING\r\n")
        await reader.readuntil(b"PONG\r\n")
        writer.close()
        await writer.wait_closed()
        assert await Caller(b, "after").end() == "d1"
        b.publish(PolicyChanged("p"))
        assert await events.get() == PolicyChanged("p")
        assert set(device.handed) == {"after"}
        assert (a.epoch, b.epoch) == (1, 1)


async def test_hubs_that_share_a_server_do_not_meet(runner: asyncio.Runner, nats: RunningNats) -> None:
    async with Cluster(nats.server).node("a") as a, Cluster(nats.server).node("a", prefix="other.hub") as other:
        device = Device("d1")
        await a.claim(D, device.answer, device.lose)
        assert await Caller(other, "m").end() == "not claimed"
        assert await Caller(a, "m").end() == "d1"


@pytest.mark.parametrize(
    ("prefix", "node"), [("", "a"), ("a..b", "a"), ("a.*", "a"), ("a", "b.c"), ("a", ">"), ("a", "")]
)
def test_names_that_are_no_tokens_of_a_subject(prefix: str, node: str) -> None:
    with pytest.raises(ValueError, match="no token"):
        Subjects(prefix, node)


async def test_limits(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-limits] Calls on their way, on both sides; and sizes."""
    cluster = Cluster(nats.server)
    async with cluster.node("a", open_calls=3) as a, cluster.node("b", open_calls=4) as b, cluster.node("c") as c:
        device = Device("d1", holds=True)
        await a.claim(D, device.answer, device.lose)
        calls = [Caller(b, f"b{number}") for number in range(5)]
        assert await calls[4].end() == "429001"
        assert await calls[3].end() == "429001"
        assert await Caller(c, "c").end() == "429001"
        assert calls[0].handed is not None
        calls[0].handed.cancel()
        async with asyncio.timeout(5):
            await device.cancelled.wait()
        assert await Caller(b, "x" * 1_100_000).end() == "413001"
        device.holds = False
        assert await Caller(c, "c").end() == "d1"
        device.name = "x" * 1_100_000
        assert await Caller(c, "large").end() == "502000"


async def test_tls(runner: asyncio.Runner, tmp_path: Path) -> None:
    root = authority()
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    chain, key = root.issue("nats", loopback).files(tmp_path)
    trusting = ssl.create_default_context(cadata=root.pem)
    with RunningNats(f'tls {{ cert_file: "{chain}", key_file: "{key}" }}') as nats:
        (secure,) = servers(nats.url.replace("nats://", "tls://"), trusting)
        async with Cluster(secure).node("a") as a, Cluster(secure).node("b") as b:
            device = Device("d1")
            await a.claim(D, device.answer, device.lose)
            assert await Caller(b, "m").end() == "d1"
        with pytest.raises(LineFailure, match="CERTIFICATE_VERIFY_FAILED"):
            await start_one(Cluster(servers(nats.url.replace("nats://", "tls://"))[0]))
        with pytest.raises(LineFailure, match="wants TLS"):
            await start_one(Cluster(nats.server))
    with RunningNats() as plain, pytest.raises(LineFailure, match="has no TLS"):
        await start_one(Cluster(servers(plain.url.replace("nats://", "tls://"), trusting)[0]))


# --- servers that take not everything, and hubs that meet by mistake ------------------------------------------------


async def test_a_server_that_takes_no_large_messages_is_refused(runner: asyncio.Runner) -> None:
    told = "max_payload is 131072 bytes; the hub needs 262144"
    with RunningNats(more="max_payload: 128KB") as nats, pytest.raises(LineFailure, match=told):
        await start_one(Cluster(nats.server))


async def test_a_node_that_may_not_subscribe_does_not_start(runner: asyncio.Runner) -> None:
    told = "maximum subscriptions exceeded"
    with RunningNats(more="max_subscriptions: 2") as nats, pytest.raises(LineFailure, match=told):
        await start_one(Cluster(nats.server))


async def test_a_claim_that_nats_refuses_is_no_proof_of_absence(runner: asyncio.Runner) -> None:
    """[HUB-roll-call] An online device was called offline."""
    with RunningNats(more="max_subscriptions: 5") as nats:
        cluster = Cluster(nats.server)
        async with cluster.node("a") as a, cluster.node("b") as b:
            device = Device("d1")
            for number in range(4):
                await b.claim(Target(f"d{number}"), device.answer, device.lose)
            assert await Caller(a, "1", Target("d0")).end() == "d1"
            assert await Caller(a, "2", Target("d3")).end() == "503101"
            assert (a.is_complete, b.is_complete) == (True, False)


async def test_a_node_that_may_not_publish_does_not_start(runner: asyncio.Runner) -> None:
    with RunningNats() as nats:
        nats.end()
        nats.more = (
            f'authorization {{ users: [ {{ user: "hub", password: "{nats.password}", '
            'permissions: { publish: { deny: ">" } } } ] }'
        )
        nats.start()
        with pytest.raises(LineFailure, match=r"(?i)permissions violation for publish"):
            await start_one(Cluster(nats.server))


async def test_two_hubs_do_not_meet_on_one_server(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-one-hub] Each has its own list of nodes, and a device of the same id."""
    one, other = Cluster(nats.server), Cluster(nats.server)
    async with one.node("a", hub="1") as a, one.node("b", hub="1") as b:
        device = Device("d1")
        await b.claim(D, device.answer, device.lose)
        with pytest.raises(LineFailure, match="a hub with another database is on it"):
            async with other.node("x", hub="2"):
                pass
        assert await Caller(a, "1").end() == "d1"
        async with other.node("x", hub="2", prefix="other"):
            assert await Caller(a, "2").end() == "d1"


async def test_two_hubs_that_meet_later_do_not_use_the_bus(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-one-hub]"""
    one, other = Cluster(nats.server), Cluster(nats.server)
    async with one.node("a", hub="1") as a, other.node("x", hub="") as x:
        x._around = replace(x._around, hub="2")
        x._beat()
        await until(lambda: not (a.line.is_up or x.line.is_up))


async def test_a_node_of_an_earlier_version_is_none_of_another_hub(runner: asyncio.Runner, nats: RunningNats) -> None:
    """It does not say whose it is."""
    cluster = Cluster(nats.server)
    async with cluster.node("a", hub="1") as a, cluster.node("b", hub="") as b:
        device = Device("d1")
        await b.claim(D, device.answer, device.lose)
        assert await Caller(a, "1").end() == "d1"
