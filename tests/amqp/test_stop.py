"""A hub that stops tells its AMQP peers, whatever they hold."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

from methodhub.wire.amqp.messages import AmqpValue, Message
from tests.amqp.peers import TOKEN_TYPE, AmqpDevice, AmqpPeer, Methods, is_accepted
from tests.harness import PATIENCE, RunningHub


def test_it_ends_every_connection_at_once(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "hub") as hub, ExitStack() as stack:
        for name in ("d1", "d2", "d3"):
            hub.create_device(name)
        stranger = stack.enter_context(AmqpPeer(hub))
        stranger.open()
        back_end = stack.enter_context(AmqpPeer(hub))
        session = back_end.open()
        assert back_end.claim(back_end.open_cbs(session), hub.token("service"))[0] == 200
        back_end.attach(session, "sender", "/messages/devicebound")
        unused = stack.enter_context(AmqpPeer(hub))
        assert unused.claim(unused.open_cbs(unused.open()), hub.device_token("d3"))[0] == 200
        device = stack.enter_context(AmqpDevice(hub, "d1"))
        device.know("d2")
        Methods(device, device.session, "d2")
        device.know("d3")
        stopped = asyncio.run_coroutine_threadsafe(hub.hub.stop(), hub._loop)
        for peer in (stranger, back_end, unused):
            peer.ended()
        assert device.ended() is None  # no CLOSE
        stack.close()  # each peer ends its side, which is all that the hub waits for
        stopped.result(PATIENCE)


def test_a_peer_that_wants_more_answers_than_it_takes_is_closed(tmp_path: Path) -> None:
    with RunningHub(tmp_path / "hub") as hub, AmqpPeer(hub) as peer:
        session = peer.open()
        sender = peer.attach(session, "sender", "$cbs")
        peer.attach(session, "receiver", "$cbs")
        properties = {"operation": "put-token", "type": TOKEN_TYPE, "name": ""}
        for number in range(100):
            peer.post(sender, Message(AmqpValue("x"), number, application_properties=properties))
            assert is_accepted(peer.settled())
        peer.post(sender, Message(AmqpValue("x"), 100, application_properties=properties))
        closed = peer.ended()
        assert closed is not None and closed.condition == "amqp:resource-limit-exceeded"
