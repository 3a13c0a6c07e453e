"""AmqpServerProtocol once it is open: links, messages, credit and windows, against frames and against a real peer."""

from __future__ import annotations

import pytest
from proton import Delivery, Link

from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import NULL
from methodhub.wire.amqp.endpoints import MAX_HELD_BACK, MAX_MESSAGE_SIZE
from methodhub.wire.amqp.events import (
    Closed,
    CreditChanged,
    Event,
    LinkAttached,
    LinkDetached,
    MessageReceived,
    SessionEnded,
)
from methodhub.wire.amqp.protocol import AmqpServerProtocol, State
from methodhub.wire.amqp.sasl import AMQP_HEADER

from .peer import (
    FALSE,
    TRUE,
    Peer,
    attach,
    begin,
    code_of,
    codes,
    detach,
    fields_of,
    flow,
    frame,
    open_frame,
    split,
    transfer,
    uint,
)

SENDER, RECEIVER = 2, 3
"""The numbers that `attached` gives; a session has 1."""


def attached(credit: int = 100, max_frame_size: int = 4096, accept: bool = True) -> AmqpServerProtocol:
    """A peer with a sender on handle 0 and a receiver on handle 1, with 10 of credit for it."""
    protocol = AmqpServerProtocol("hub")
    links = attach(0, 0, "s", "sender", "here", "there", 0) + attach(0, 1, "r", "receiver", "here", "there")
    protocol.receive_data(AMQP_HEADER + open_frame(max_frame_size) + begin(0) + links + flow(0, 1, 10), 0.0)
    assert [event.link for event in protocol.events() if isinstance(event, LinkAttached)] == [SENDER, RECEIVER]
    if accept:
        protocol.accept_link(SENDER, credit)
        protocol.accept_link(RECEIVER, snd_settle_mode=1, rcv_settle_mode=0)
    protocol.data_to_send()
    return protocol


def received(protocol: AmqpServerProtocol, *parts: bytes) -> list[Event]:
    protocol.receive_data(b"".join(parts), 0.0)
    return protocol.events()


# --- attaching ---------------------------------------------------------------------------------------------------


def test_accepted_links_by_bytes() -> None:
    """The peer's termini back, max-message-size 1,048,576, and credit for the sender."""
    protocol = attached(accept=False)
    protocol.accept_link(SENDER, 100)
    first, credit = split(protocol.data_to_send())
    termini = "00 53 28 c0 0b 05 a1 04 68 65 72 65 43 40 43 42 00 53 29 c0 0c 05 a1 05 74 68 65 72 65 43 40 43 42"
    assert first[8:].hex(" ").startswith("00 53 12 c0 ")
    assert termini in first.hex(" ")
    fields = fields_of(first)
    assert fields[:5] == ["s", 0, True, 0, 0]
    assert fields[10] == 1_048_576
    assert code_of(credit) == frames.FLOW and fields_of(credit)[4:7] == [0, 0, 100]
    protocol.accept_link(RECEIVER, snd_settle_mode=1, rcv_settle_mode=0)
    (second,) = split(protocol.data_to_send())
    assert fields_of(second)[:5] == ["r", 1, False, 1, 0]
    assert termini in second.hex(" ")


@pytest.mark.parametrize("link", [SENDER, RECEIVER])
def test_a_refusal_by_bytes(link: int) -> None:
    """[AMQP-2.6.3] ATTACH without termini, then DETACH closed with the error."""
    protocol = attached(accept=False)
    protocol.refuse_link(link, "amqp:not-found", "no such address")
    first, second = split(protocol.data_to_send())
    assert code_of(first) == frames.ATTACH and fields_of(first)[5:7] == [None, None]
    error = "00 53 1d c0 22 02 a3 0e " + b"amqp:not-found".hex(" ") + " a1 0f " + b"no such address".hex(" ")
    assert second[8:].hex(" ") == f"00 53 16 c0 2a 03 43 41 {error}"
    assert received(protocol, detach(0, link - SENDER)) == []
    assert protocol.data_to_send() == b""


def test_a_refused_name_may_come_again() -> None:
    protocol = attached(accept=False)
    protocol.refuse_link(SENDER, "amqp:not-found")
    protocol.data_to_send()
    again = attach(0, 0, "s", "sender", None, "x")
    (event,) = received(protocol, detach(0, 0), again)
    assert isinstance(event, LinkAttached) and event.link != SENDER
    protocol.accept_link(event.link, 1)
    assert codes(protocol.data_to_send()) == [frames.ATTACH, frames.FLOW]


def test_a_link_is_accepted_once() -> None:
    protocol = attached()
    with pytest.raises(RuntimeError):
        protocol.accept_link(SENDER, 1)


def test_we_detach() -> None:
    protocol = attached()
    protocol.detach_link(SENDER, "amqp:unauthorized-access", "x" * 5000)
    (sent,) = split(protocol.data_to_send())
    handle, closed, error = frames.read_detach(fields_of(sent))
    assert (handle, closed) == (0, True)
    assert error is not None and error.condition == "amqp:unauthorized-access" and len(error.description) == 256
    assert len(sent) < 512
    assert received(protocol, transfer(0, 0, 0, b"late"), transfer(0, 0, 1, b"later", settled=True)) == []
    assert received(protocol, detach(0, 0)) == []
    assert codes(protocol.data_to_send()) == [frames.DISPOSITION]  # what came late is not left unsettled
    protocol.detach_link(RECEIVER, "amqp:unauthorized-access")
    assert not protocol.send(RECEIVER, b"x")


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("accept", [True, False])
def test_the_peer_detaches(closed: bool, accept: bool) -> None:
    protocol = attached(accept=accept)
    protocol.data_to_send()
    assert received(protocol, detach(0, 0, closed)) == [LinkDetached(SENDER, closed, None)]
    sent = split(protocol.data_to_send())
    assert [code_of(part) for part in sent] == [frames.DETACH] if accept else [frames.ATTACH, frames.DETACH]
    assert frames.read_detach(fields_of(sent[-1]))[1] is closed
    protocol.accept_link(SENDER, 5)  # too late
    protocol.detach_link(SENDER, "amqp:internal-error")
    assert protocol.data_to_send() == b""


def test_a_session_ends_with_its_links() -> None:
    protocol = attached()
    events = received(protocol, transfer(0, 0, 0, b"a"), frame(0, frames.END, []))
    assert [type(event) for event in events] == [MessageReceived, LinkDetached, LinkDetached, SessionEnded]
    assert codes(protocol.data_to_send()) == [frames.END]
    assert isinstance(events[0], MessageReceived)
    protocol.settle(events[0].delivery)
    assert not protocol.send(RECEIVER, b"x")
    assert protocol.data_to_send() == b""
    assert [type(event) for event in received(protocol, begin(0), attach(0, 0, "s", "sender", None, "x"))] == [
        LinkAttached
    ]


def test_link_names_repeat_across_sessions() -> None:
    protocol = attached()
    events = received(
        protocol, begin(1), attach(1, 0, "s", "sender", None, "x"), attach(1, 1, "r", "receiver", "x", None)
    )
    assert [event.name for event in events if isinstance(event, LinkAttached)] == ["s", "r"]
    for event in events:
        if isinstance(event, LinkAttached):
            protocol.accept_link(event.link, 5)
    protocol.data_to_send()
    (event,) = received(protocol, transfer(1, 0, 0, b"second"))
    assert isinstance(event, MessageReceived) and event.link not in {SENDER, RECEIVER}
    (event,) = received(protocol, transfer(0, 0, 0, b"first"))
    assert isinstance(event, MessageReceived) and event.link == SENDER


# --- receiving ---------------------------------------------------------------------------------------------------


def test_a_message_in_pieces() -> None:
    protocol = attached()
    assert received(protocol, transfer(0, 0, 0, b"ab", more=True)) == []
    assert protocol.buffered_bytes == 2
    (event,) = received(protocol, transfer(0, 0, 0, b"cd"))
    assert isinstance(event, MessageReceived) and (event.payload, event.settled) == (b"abcd", False)
    assert protocol.buffered_bytes == 0


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("accepted", "00 53 24 45"), ("rejected", "00 53 25"), ("released", "00 53 26 45")],
)
def test_settled_by_bytes(outcome: str, state: str) -> None:
    protocol = attached()
    (event,) = received(protocol, transfer(0, 0, 0, b"a"))
    assert isinstance(event, MessageReceived)
    protocol.settle(event.delivery, outcome, "amqp:not-allowed" if outcome == "rejected" else None)  # type: ignore[arg-type]
    data = protocol.data_to_send()
    assert data[8:].hex(" ").startswith("00 53 15 c0") and state in data.hex(" ")
    assert fields_of(data)[:4] == [True, 0, None, True] or fields_of(data)[:4] == [True, 0, 0, True]
    assert (b"amqp:not-allowed" in data) is (outcome == "rejected")
    protocol.settle(event.delivery)
    assert protocol.data_to_send() == b""


def test_what_was_settled_before_goes_out_before() -> None:
    """`wire/device.md` 3.3: C fails a token whose reply overtakes the disposition."""
    protocol = attached()
    for number in range(3):
        (event,) = received(protocol, transfer(0, 0, number, b"a"))
        assert isinstance(event, MessageReceived)
        protocol.settle(event.delivery)
        assert protocol.send(RECEIVER, b"reply")
    assert codes(protocol.data_to_send()) == [frames.DISPOSITION, frames.TRANSFER] * 3


def test_a_settled_message_owes_nothing() -> None:
    protocol = attached(credit=2)
    for number in range(20):
        (event,) = received(protocol, transfer(0, 0, number, b"a", settled=True))
        assert isinstance(event, MessageReceived) and event.settled
        protocol.settle(event.delivery)
        protocol.data_to_send()


def test_credit_is_renewed_as_deliveries_are_settled() -> None:
    protocol = attached(credit=4)
    deliveries = []
    for number in range(4):
        (event,) = received(protocol, transfer(0, 0, number, b"a"))
        assert isinstance(event, MessageReceived)
        deliveries.append(event.delivery)
        assert protocol.data_to_send() == b""
    protocol.settle(deliveries[0])
    sent = split(protocol.data_to_send())
    assert fields_of(next(part for part in sent if code_of(part) == frames.FLOW))[4:7] == [0, 4, 1]
    for delivery in deliveries[1:]:
        protocol.settle(delivery)
    sent = split(protocol.data_to_send())
    assert fields_of(next(part for part in sent if code_of(part) == frames.FLOW))[4:7] == [0, 4, 3]
    for number in range(4, 7):
        assert [type(event) for event in received(protocol, transfer(0, 0, number, b"a"))] == [MessageReceived]
    assert [type(event) for event in received(protocol, transfer(0, 0, 7, b"a"))] == [LinkDetached]


@pytest.mark.parametrize("more", [True, False])
def test_a_transfer_without_credit_ends_the_link(more: bool) -> None:
    protocol = attached(credit=0)
    (event,) = received(protocol, transfer(0, 0, 0, b"a", more=more))
    assert isinstance(event, LinkDetached) and event.error is not None
    assert event.error.condition == "amqp:link:transfer-limit-exceeded"
    assert codes(protocol.data_to_send())[-1] == frames.DETACH


def test_a_message_that_is_too_large_ends_the_link_and_is_not_kept() -> None:
    protocol = attached()
    piece = bytes(60_000)
    events = []
    for _ in range(100):
        events += received(protocol, transfer(0, 0, 0, piece, more=True))
        assert protocol.buffered_bytes <= MAX_MESSAGE_SIZE
    (event,) = events
    assert isinstance(event, LinkDetached) and event.error is not None
    assert event.error.condition == "amqp:link:message-size-exceeded"
    assert codes(protocol.data_to_send()) == [frames.DETACH]
    assert received(protocol, transfer(0, 0, 0, piece), transfer(0, 0, 1, b"a"), detach(0, 0)) == []
    assert protocol.state is State.OPEN


def test_the_largest_message() -> None:
    protocol = attached()
    for _ in range(4):
        assert received(protocol, transfer(0, 0, 0, bytes(60_000), more=True)) == []
    (event,) = received(protocol, transfer(0, 0, 0, bytes(MAX_MESSAGE_SIZE - 240_000)))
    assert isinstance(event, MessageReceived) and len(event.payload) == MAX_MESSAGE_SIZE


def test_messages_that_are_never_whole_are_bounded_together() -> None:
    protocol = attached()
    protocol.set_limits(10, 10)
    for handle in range(2, 8):
        for event in received(protocol, attach(0, handle, f"s{handle}", "sender", None, "x")):
            assert isinstance(event, LinkAttached)
            protocol.accept_link(event.link, 5)
    last: list[Event] = []
    for handle in range(2, 8):
        for _ in range(4):
            last = last or received(protocol, transfer(0, handle, handle - 2, bytes(60_000), more=True))
    (closed,) = last
    assert isinstance(closed, Closed) and closed.error is not None
    assert closed.error.condition == "amqp:resource-limit-exceeded"


def test_an_aborted_message_is_none() -> None:
    protocol = attached()
    assert received(protocol, transfer(0, 0, 0, b"ab", more=True)) == []
    abort = frame(0, frames.TRANSFER, [uint(0), uint(0), NULL, NULL, NULL, FALSE, NULL, NULL, NULL, TRUE])
    assert received(protocol, abort) == []
    assert protocol.buffered_bytes == 0
    (event,) = received(protocol, transfer(0, 0, 1, b"whole"))
    assert isinstance(event, MessageReceived) and event.payload == b"whole"


# --- sending -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_frame_size", [512, 4096, 65_536])
def test_no_frame_is_larger_than_the_peer_takes(max_frame_size: int) -> None:
    protocol = attached(max_frame_size=max_frame_size)
    message = bytes(range(256)) * 100
    assert protocol.send(RECEIVER, message)
    protocol.detach_link(SENDER, "amqp:not-found", "x" * 1000)
    sent = split(protocol.data_to_send())
    assert max(map(len, sent)) <= max_frame_size
    transfers = [part for part in sent if code_of(part) == frames.TRANSFER]
    assert len(transfers) >= len(message) // max_frame_size
    mores = [[*fields_of(part), False, False][5] for part in transfers]
    assert [bool(more) for more in mores] == [True] * (len(transfers) - 1) + [False]
    protocol.close("amqp:internal-error", "x" * 1000)
    assert max(map(len, split(protocol.data_to_send()))) <= 512


def test_credit_is_honoured() -> None:
    protocol = attached()
    assert protocol.credit(RECEIVER) == 10
    assert [protocol.send(RECEIVER, b"x") for _ in range(12)] == [True] * 10 + [False] * 2
    assert codes(protocol.data_to_send()) == [frames.TRANSFER] * 10
    assert received(protocol, flow(0, 1, 5, delivery_count=10)) == [CreditChanged(RECEIVER, 5)]
    assert protocol.send(RECEIVER, b"x") and protocol.credit(RECEIVER) == 4
    assert not protocol.send(SENDER, b"x") and protocol.credit(SENDER) == 0
    assert not protocol.send(999, b"x")


@pytest.mark.parametrize("credit", [0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_any_credit_is_honoured(credit: int) -> None:
    """[AMQP-2.7.4] The engine takes half of what may be said for negative."""
    protocol = attached()
    protocol.receive_data(flow(0, 1, credit, delivery_count=0xFFFF_FFFF), 0.0)
    protocol.receive_data(flow(0, 1, credit), 0.0)
    assert protocol.credit(RECEIVER) == 0x7FFF_FFFF
    assert protocol.send(RECEIVER, b"x")
    assert len(protocol.data_to_send()) > 0


def test_credit_that_came_before_the_answer_counts_after_it() -> None:
    protocol = attached(accept=False)
    assert protocol.credit(RECEIVER) == 0 and not protocol.send(RECEIVER, b"x")
    protocol.accept_link(RECEIVER)
    assert protocol.credit(RECEIVER) == 10 and protocol.send(RECEIVER, b"x")
    assert codes(protocol.data_to_send()) == [frames.ATTACH, frames.TRANSFER]


def test_credit_is_given_back_to_a_peer_that_drains() -> None:
    protocol = attached()
    assert received(protocol, flow(0, 1, 11, drain=True)) == [CreditChanged(RECEIVER, 11)]
    assert protocol.send(RECEIVER, b"the one that waited")
    sent = split(protocol.data_to_send())
    assert sorted(map(code_of, sent)) == [frames.FLOW, frames.TRANSFER]
    assert fields_of(next(part for part in sent if code_of(part) == frames.FLOW))[5:7] == [11, 0]
    assert protocol.credit(RECEIVER) == 0


def test_dispositions_of_what_was_sent_settled_are_borne() -> None:
    protocol = attached()
    accepted = b"\x00\x53\x24\x45"
    for number in range(3):
        assert protocol.send(RECEIVER, b"x")
        protocol.data_to_send()
        for settled in (FALSE, TRUE):
            assert received(protocol, frame(0, frames.DISPOSITION, [TRUE, uint(number), NULL, settled, accepted])) == []
    assert received(protocol, frame(0, frames.DISPOSITION, [TRUE, uint(0), uint(2), TRUE, accepted])) == []
    assert protocol.send(RECEIVER, b"x") and codes(protocol.data_to_send()) == [frames.TRANSFER]


def test_what_was_sent_unsettled_is_settled_at_the_peers_word() -> None:
    protocol = attached()
    assert protocol.send(RECEIVER, b"x", settled=False)
    assert fields_of(protocol.data_to_send())[4:] == []
    assert received(protocol, frame(0, frames.DISPOSITION, [TRUE, uint(0), NULL, FALSE, b"\x00\x53\x24\x45"])) == []
    assert codes(protocol.data_to_send()) == [frames.DISPOSITION]


def test_a_peer_that_takes_no_more_bytes_is_waited_for() -> None:
    protocol = AmqpServerProtocol("hub")
    protocol.receive_data(AMQP_HEADER + open_frame(4096) + begin(0, window=4), 0.0)
    credit = [uint(0), uint(4), uint(0), uint(2048), uint(1), uint(0), uint(1000)]
    protocol.receive_data(attach(0, 1, "r", "receiver", "here", None) + frame(0, frames.FLOW, credit), 0.0)
    protocol.accept_link(2)
    protocol.data_to_send()
    protocol.events()
    sends = 0
    while protocol.send(2, bytes(10_000)):
        sends += 1
    assert MAX_HELD_BACK / 10_000 < sends < 12
    assert codes(protocol.data_to_send()) == [frames.TRANSFER] * 4
    assert received(protocol, frame(0, frames.FLOW, [uint(4), uint(1), uint(0), uint(2048)])) == []  # not enough yet
    assert codes(protocol.data_to_send()) == [frames.TRANSFER]
    events = received(protocol, frame(0, frames.FLOW, [uint(5), uint(200), uint(0), uint(2048)]))
    assert events == [CreditChanged(2, 1000 - sends)]
    assert protocol.send(2, bytes(10_000))


# --- a real peer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_frame_size", [512, 4096])
def test_ten_thousand_messages_each_way(max_frame_size: int) -> None:
    """Nothing stalls: credit, windows and settlements are renewed on one connection."""
    server = AmqpServerProtocol("hub")
    peer = Peer(server, max_frame_size)
    peer.exchange()
    sender, _, incoming, outgoing = peer.attach()
    there: list[bytes] = []
    here: list[bytes] = []

    def on_delivery(delivery: Delivery) -> None:
        if delivery.link.is_receiver and not delivery.partial:
            there.append(bytes(delivery.link.recv(delivery.pending) or b""))
            delivery.link.advance()
            delivery.settle()
            if delivery.link.credit < 50:
                delivery.link.flow(50)
        elif delivery.link.is_sender and delivery.updated:
            assert delivery.remote_state == Delivery.ACCEPTED
            delivery.settle()

    def on_event(event: Event) -> None:
        if isinstance(event, MessageReceived):
            assert event.link == incoming
            here.append(event.payload)
            server.settle(event.delivery)

    peer.on_delivery, peer.on_event = on_delivery, on_event
    number = 0
    while number < 10_000:
        for _ in range(50):
            message = number.to_bytes(4) * (300 if number % 100 == 0 else 5)
            assert server.send(outgoing, message)
            sender.delivery(str(number))
            sender.stream(message)
            sender.advance()
            number += 1
        peer.exchange()
    assert [int.from_bytes(message[:4]) for message in there] == list(range(10_000))
    assert [int.from_bytes(message[:4]) for message in here] == list(range(10_000))
    assert max(len(part) for part in peer.sent) <= max_frame_size
    assert server.buffered_bytes == 0


def test_a_real_peer_is_refused_and_stays() -> None:
    server = AmqpServerProtocol("hub")
    peer = Peer(server)
    peer.exchange()
    session = peer.connection.session()
    session.open()
    link = session.receiver("r")
    link.source.address = "nowhere"
    link.open()
    (event,) = peer.exchange()
    assert isinstance(event, LinkAttached)
    server.refuse_link(event.link, "amqp:not-found", "nowhere")
    peer.exchange()
    assert link.state == Link.LOCAL_ACTIVE | Link.REMOTE_CLOSED
    assert link.remote_condition is not None and link.remote_condition.name == "amqp:not-found"
    assert link.remote_source.address is None
    link.close()
    assert peer.exchange() == []
    peer.attach("r")


def test_a_real_peer_reads_240000() -> None:
    """Proton announces half of what it is told: it has to be told twice as much."""
    server = AmqpServerProtocol("hub")
    peer = Peer(server)
    peer.exchange()
    assert peer.transport.remote_idle_timeout == 240.0
    assert peer.transport.remote_max_frame_size == 65_536
    assert peer.transport.remote_channel_max == 8191
