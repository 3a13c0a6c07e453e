"""Apache Qpid Proton's engine for one connection, by the functions of its C interface: frames in, its events and
bytes out. Python's wrapper of it makes new objects at each event, several times the price of what is done here.

Its pointers are valid until what they point to is freed here: a link or session after `free_link`, `free_session`,
a delivery after it was settled or its link freed, everything after `close`. Whoever holds one must forget it then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cproton import (  # type: ignore[import-untyped]  # the package types only its wrapper
    PN_ACCEPTED,
    PN_DELIVERY,
    PN_LINK_FLOW,
    PN_LINK_REMOTE_CLOSE,
    PN_LINK_REMOTE_DETACH,
    PN_LINK_REMOTE_OPEN,
    PN_REJECTED,
    PN_RELEASED,
    PN_SESSION_REMOTE_CLOSE,
    PN_SESSION_REMOTE_OPEN,
    PN_TRANSPORT_ERROR,
    PN_UNSPECIFIED,
    pn_collector,
    pn_collector_free,
    pn_collector_peek,
    pn_collector_pop,
    pn_condition_get_description,
    pn_condition_get_name,
    pn_condition_set_description,
    pn_condition_set_name,
    pn_connection,
    pn_connection_collect,
    pn_connection_open,
    pn_connection_release,
    pn_connection_set_container,
    pn_decref,
    pn_delivery,
    pn_delivery_aborted,
    pn_delivery_link,
    pn_delivery_local,
    pn_delivery_partial,
    pn_delivery_pending,
    pn_delivery_settle,
    pn_delivery_settled,
    pn_delivery_update,
    pn_disposition_condition,
    pn_event_delivery,
    pn_event_link,
    pn_event_session,
    pn_event_type,
    pn_link_advance,
    pn_link_close,
    pn_link_condition,
    pn_link_credit,
    pn_link_current,
    pn_link_detach,
    pn_link_drained,
    pn_link_flow,
    pn_link_free,
    pn_link_get_drain,
    pn_link_is_receiver,
    pn_link_open,
    pn_link_recv,
    pn_link_remote_rcv_settle_mode,
    pn_link_remote_snd_settle_mode,
    pn_link_remote_source,
    pn_link_remote_target,
    pn_link_send,
    pn_link_set_max_message_size,
    pn_link_set_rcv_settle_mode,
    pn_link_set_snd_settle_mode,
    pn_link_source,
    pn_link_target,
    pn_session_close,
    pn_session_free,
    pn_session_open,
    pn_session_outgoing_bytes,
    pn_terminus_copy,
    pn_terminus_set_type,
    pn_transport,
    pn_transport_bind,
    pn_transport_condition,
    pn_transport_peek,
    pn_transport_pending,
    pn_transport_pop,
    pn_transport_push,
    pn_transport_set_channel_max,
    pn_transport_set_idle_timeout,
    pn_transport_set_max_frame,
    pn_transport_set_server,
    pn_transport_unbind,
)

from methodhub.wire.amqp.errors import FRAMING_ERROR, AmqpError
from methodhub.wire.amqp.frames import shortened

Pointer = Any
"""Compared by address with ==, and hashed by it: may key a dict."""

DELIVERY: int = PN_DELIVERY
LINK_FLOW: int = PN_LINK_FLOW
LINK_ATTACHED: int = PN_LINK_REMOTE_OPEN
SESSION_BEGUN: int = PN_SESSION_REMOTE_OPEN

OUTCOMES: dict[str, int] = {"accepted": PN_ACCEPTED, "rejected": PN_REJECTED, "released": PN_RELEASED}

_LINK_EVENTS = {PN_LINK_FLOW, PN_LINK_REMOTE_OPEN, PN_LINK_REMOTE_CLOSE, PN_LINK_REMOTE_DETACH}
_SESSION_EVENTS = {PN_SESSION_REMOTE_OPEN, PN_SESSION_REMOTE_CLOSE}


class Engine:
    """One connection, from the AMQP header on."""

    __slots__ = ("_collector", "_connection", "_transport", "open")

    def __init__(self, container_id: str, max_frame_size: int, channel_max: int, idle_timeout: int) -> None:
        """`idle_timeout` in milliseconds, as the peer is to read it."""
        self._transport = pn_transport()
        self._connection = pn_connection()
        self._collector = pn_collector()
        self.open = True
        pn_transport_set_server(self._transport)
        pn_transport_set_max_frame(self._transport, max_frame_size)
        pn_transport_set_channel_max(self._transport, channel_max)
        pn_transport_set_idle_timeout(self._transport, 2 * idle_timeout)  # it announces half of what it is told
        pn_connection_set_container(self._connection, container_id)
        pn_connection_collect(self._connection, self._collector)
        pn_transport_bind(self._transport, self._connection)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Free everything. Nothing else may be called afterwards."""
        if self.open:
            self.open = False
            pn_transport_unbind(self._transport)
            pn_connection_release(self._connection)
            pn_decref(self._connection)
            pn_decref(self._transport)
            pn_collector_free(self._collector)

    def push(self, data: bytes) -> None:
        """Bytes of the peer, at most a frame. Its events follow from `poll`."""
        taken = pn_transport_push(self._transport, data)
        while taken < len(data):
            data = data[taken:]
            if not data or (taken := pn_transport_push(self._transport, data)) <= 0:
                raise EngineError(FRAMING_ERROR, "nothing is read any more")

    def pull(self, output: list[bytes]) -> None:
        """Append what is to be sent: whole frames."""
        transport = self._transport
        while (size := pn_transport_pending(transport)) > 0:
            output.append(pn_transport_peek(transport, size)[1])
            pn_transport_pop(transport, size)

    def poll(self) -> Iterator[tuple[int, Pointer]]:
        """Events with what they are about, a session, link or delivery. It raises the transport's own error, after
        which `pull` still gives the CLOSE that tells the peer."""
        collector = self._collector
        while self.open and (event := pn_collector_peek(collector)):
            kind = pn_event_type(event)
            if kind == PN_DELIVERY:
                yield kind, pn_event_delivery(event)
            elif kind in _LINK_EVENTS:
                yield kind, pn_event_link(event)
            elif kind in _SESSION_EVENTS:
                yield kind, pn_event_session(event)
            elif kind == PN_TRANSPORT_ERROR:
                condition = pn_transport_condition(self._transport)
                raise EngineError(pn_condition_get_name(condition), pn_condition_get_description(condition) or "")
            pn_collector_pop(collector)

    # --- the connection ------------------------------------------------------------------------------------------

    def open_connection(self) -> None:
        """OPEN, if it was not sent yet."""
        pn_connection_open(self._connection)


class EngineError(AmqpError):
    """The engine has ended the connection, and has told the peer."""


def _set_condition(pointer: Pointer, condition: str, description: str) -> None:
    pn_condition_set_name(pointer, condition)
    pn_condition_set_description(pointer, shortened(description))


# --- sessions and links ------------------------------------------------------------------------------------------


def open_session(session: Pointer) -> None:
    """Its incoming window is 2,147,483,647 transfers and renewed with each FLOW: it never stalls."""
    pn_session_open(session)


def free_session(session: Pointer) -> None:
    """END, if it was not sent yet."""
    pn_session_close(session)
    pn_session_free(session)


def held_back(session: Pointer) -> int:
    """Bytes of sent messages for which the peer's window, or the transport, had no room yet."""
    return int(pn_session_outgoing_bytes(session))


def peer_sends(link: Pointer) -> bool:
    return bool(pn_link_is_receiver(link))


def attach(link: Pointer, max_message_size: int, snd_settle_mode: int | None, rcv_settle_mode: int | None) -> None:
    """ATTACH with the peer's own termini, and its settle modes where None."""
    if snd_settle_mode is None:
        snd_settle_mode = pn_link_remote_snd_settle_mode(link)
    if rcv_settle_mode is None:
        rcv_settle_mode = pn_link_remote_rcv_settle_mode(link)
    pn_terminus_copy(pn_link_source(link), pn_link_remote_source(link))
    pn_terminus_copy(pn_link_target(link), pn_link_remote_target(link))
    pn_link_set_max_message_size(link, max_message_size)
    pn_link_set_snd_settle_mode(link, snd_settle_mode)
    pn_link_set_rcv_settle_mode(link, rcv_settle_mode)
    pn_link_open(link)


def detach(link: Pointer, condition: str, description: str) -> None:
    """DETACH closed, of a link that was attached."""
    _set_condition(pn_link_condition(link), condition, description)
    pn_link_close(link)


def refuse(link: Pointer, condition: str, description: str) -> None:
    """ATTACH without termini, then DETACH closed [AMQP-2.6.3]."""
    pn_terminus_set_type(pn_link_source(link), PN_UNSPECIFIED)
    pn_terminus_set_type(pn_link_target(link), PN_UNSPECIFIED)
    pn_link_open(link)
    detach(link, condition, description)


def answer_detach(link: Pointer, *, attached: bool, closed: bool) -> None:
    """DETACH as the peer's, after an ATTACH without termini if there was none yet."""
    if not attached:
        pn_terminus_set_type(pn_link_source(link), PN_UNSPECIFIED)
        pn_terminus_set_type(pn_link_target(link), PN_UNSPECIFIED)
        pn_link_open(link)
    if closed:
        pn_link_close(link)
    else:
        pn_link_detach(link)


def free_link(link: Pointer) -> None:
    """Of which DETACH has come and gone."""
    pn_link_free(link)


def credit(link: Pointer) -> int:
    return int(pn_link_credit(link))


def give_credit(link: Pointer, more: int) -> None:
    pn_link_flow(link, more)


def is_draining(link: Pointer) -> bool:
    return bool(pn_link_get_drain(link))


def drained(link: Pointer) -> None:
    """Nothing more to send: give the credit back."""
    pn_link_drained(link)


def send(link: Pointer, tag: int, message: bytes, settled: bool) -> None:
    delivery = pn_delivery(link, (tag & 0xFFFF_FFFF).to_bytes(4))
    pn_link_send(link, message)
    pn_link_advance(link)
    if settled:
        pn_delivery_settle(delivery)


# --- deliveries --------------------------------------------------------------------------------------------------

link_of = pn_delivery_link
is_partial = pn_delivery_partial
is_aborted = pn_delivery_aborted
is_settled = pn_delivery_settled
pending_bytes = pn_delivery_pending
current = pn_link_current
advance = pn_link_advance
forget = pn_delivery_settle


def read(link: Pointer, size: int) -> bytes:
    """Bytes of the current delivery."""
    return bytes(pn_link_recv(link, size)[1])


def settle(delivery: Pointer, outcome: int, condition: str | None) -> None:
    pn_delivery_update(delivery, outcome)
    if condition is not None:
        pn_condition_set_name(pn_disposition_condition(pn_delivery_local(delivery)), condition)
    pn_delivery_settle(delivery)
