"""One device over MQTT on one byte stream: brings the protocol, the dialect and the domain together."""

from __future__ import annotations

from collections.abc import Awaitable
from sys import intern

import structlog

from methodhub.core.access import CLOCK_SKEW
from methodhub.core.calls import MethodRequest
from methodhub.core.connections import Attachment
from methodhub.core.deadlines import Deadline
from methodhub.core.errors import HubError
from methodhub.core.identity import Target
from methodhub.core.ports import CloseReason, Session
from methodhub.device.admission import Admitted, Refused, admit
from methodhub.device.connection import GOODBYE, LOST, EventConnection
from methodhub.device.services import DeviceServices
from methodhub.device.twins import TwinAnswer, TwinRequests, keep_model_id
from methodhub.iothub.mqtt import (
    ALL_METHODS,
    DESIRED_PROPERTIES,
    MAX_SUBSCRIPTIONS,
    TWIN_RESPONSES,
    MethodAnswer,
    Other,
    TwinGet,
    TwinPatch,
    desired_topic,
    filter_takes_method,
    is_known_filter,
    is_method_filter,
    method_topic,
    parse_topic,
    twin_response_topic,
)
from methodhub.iothub.rest import method_result
from methodhub.net.stream import ByteStream
from methodhub.wire.mqtt.packets import (
    Connect,
    Publish,
    Subscribe,
    Unsubscribe,
    serialize_publish,
)
from methodhub.wire.mqtt.protocol import Closed, Event, MqttServerProtocol

log = structlog.get_logger()


class MqttConnection(EventConnection[Event]):
    """A device's connection, from its first byte to its last. Events are handled strictly in order: one that has to
    wait (for the store, for the bus) holds back those behind it."""

    __slots__ = (
        "_attachment",
        "_clean_session",
        "_filters",
        "_held",
        "_keep_alive",
        "_protocol",
        "_token_end",
        "_twin",
        "generation_id",
        "target",
    )

    def __init__(self, services: DeviceServices, stream: ByteStream) -> None:
        self._protocol = MqttServerProtocol()
        super().__init__(services, stream, self._protocol)
        self.target = Target("")
        self.generation_id = ""
        self._attachment: Attachment | None = None
        self._filters: tuple[tuple[str, int], ...] = ()
        self._clean_session = True
        self._held: list[bytes] | None = []
        """Requests that were delivered before CONNACK, or the SUBACK of their filter, was written; else None."""
        self._keep_alive: Deadline | None = None
        self._token_end: Deadline | None = None
        self._twin: TwinRequests[str] | None = None

    # --- the stream ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        now = self._services.clock.monotonic()
        self._protocol.receive_data(data, now)
        if self._attachment is not None:
            self._attachment.heard = now
        self._take_events()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sequence.cancel()
        self._end(LOST)
        self._attachment = None

    def _end_slow_reader(self) -> None:
        self.close(CloseReason.SLOW_READER)

    def _wait_for(self, step: Awaitable[None]) -> None:
        self._sequence.wait_for(self._guarded(step))

    # --- events --------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, Publish):
            self._published(event)
        elif isinstance(event, Connect):
            self._wait_for(self._connect(event))
        elif isinstance(event, Subscribe):
            self._subscribe(event)
        elif isinstance(event, Unsubscribe):
            self._unsubscribe(event)
        else:
            self._closed(event)

    async def _connect(self, connect: Connect) -> None:
        try:
            admitted = await admit(self._services, connect, self._stream.peer)
        except Refused as refused:
            self._refuse(refused, connect)
            return
        if self._stream.is_closing():
            return
        self._attach(admitted, connect)
        await keep_model_id(self._services, self.target, admitted.model_id)
        await self._open_session(admitted, connect)

    def _refuse(self, refused: Refused, connect: Connect) -> None:
        log.info(
            "connection refused",
            client_id=connect.client_id[:260],
            code=refused.code,
            reason=refused.reason,
            peer=self._stream.peer.address,
        )
        refusals = self._services.metrics.connects_refused
        refusals[refused.code] = refusals.get(refused.code, 0) + 1
        self._protocol.refuse(refused.code)
        self._flush()
        self._stream.close()

    def _attach(self, admitted: Admitted, connect: Connect) -> None:
        """From here the device is known: its time and bytes are no longer counted, its older connection goes."""
        services = self._services
        self.target = admitted.identity.target
        self.generation_id = admitted.identity.generation_id
        self._clean_session = connect.clean_session
        self._stream.authenticated()
        self._stream.pause_reading()  # what comes before CONNACK is kept unread: by the system from here on
        services.registry.pin(admitted.identity, admitted.device)
        self._attachment = services.table.attach(self, admitted.identity, admitted.credential, admitted.generation)
        if admitted.token_expiry is not None:
            remaining = admitted.token_expiry + CLOCK_SKEW - services.clock.wall()
            self._token_end = services.deadlines.call_at(services.clock.monotonic() + remaining, self._token_expired)

    async def _open_session(self, admitted: Admitted, connect: Connect) -> None:
        """[HUB-session] A restored subscription is claimed before CONNACK: a call made right after it finds the
        device; its request still follows CONNACK."""
        attachment = self._attachment
        assert attachment is not None
        if admitted.session is not None:
            self._filters = intern_filters(admitted.session.subscriptions)
            if any(is_method_filter(name) for name, _ in self._filters):
                await attachment.claim()
        if attachment.ended:
            self._stream.close()
            return
        self._protocol.accept(admitted.session is not None, self._services.clock.monotonic())
        self._release_held()
        self._arm_keep_alive()
        log.debug("device connected", target=str(self.target), peer=self._stream.peer.address)
        self._take_events()

    def _release_held(self) -> None:
        self._flush()
        held, self._held = self._held or [], None
        if held:
            self._stream.writelines(held)

    def _subscribe(self, packet: Subscribe) -> None:
        filters = dict(self._filters)
        for name, qos in packet.filters:
            if not is_known_filter(name, self.target):
                self._break(f"it subscribed to {name[:300]!r}, which the hub does not offer")
                return
            filters[name] = min(qos, 1)
        if len(filters) > MAX_SUBSCRIPTIONS:
            self._break(f"it subscribed to more than {MAX_SUBSCRIPTIONS} filters")
            return
        changed = intern_filters(tuple(filters.items()))
        granted = tuple(min(qos, 1) for _, qos in packet.filters)
        if changed == self._filters:
            self._protocol.grant(packet.packet_id, granted)
        else:
            self._wait_for(self._change_filters(changed, packet.packet_id, granted))

    async def _change_filters(
        self, filters: tuple[tuple[str, int], ...], packet_id: int, granted: tuple[int, ...]
    ) -> None:
        """[HUB-suback] The session is stored and the target claimed before SUBACK: a call made right after it never
        finds the device offline. One that waited for it follows SUBACK."""
        attachment = self._attachment
        assert attachment is not None
        self._held = []
        self._filters = filters
        await self._save_session()
        if any(is_method_filter(name) for name, _ in filters):
            await attachment.claim()
        self._protocol.grant(packet_id, granted)
        self._release_held()

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        kept = tuple(pair for pair in self._filters if pair[0] not in packet.filters)
        if kept == self._filters:
            self._protocol.unsubscribed(packet.packet_id)
            return
        self._filters = kept
        self._wait_for(self._drop_filters(packet.packet_id))

    async def _drop_filters(self, packet_id: int) -> None:
        await self._save_session()
        self._protocol.unsubscribed(packet_id)

    async def _save_session(self) -> None:
        """[HUB-session] Kept by id and generation: a device that is created anew begins anew."""
        if not self._clean_session:
            await self._services.store.save_session(self.target, self.generation_id, Session(self._filters))

    def _published(self, packet: Publish) -> None:
        meaning = parse_topic(packet.topic, self.target)
        if isinstance(meaning, MethodAnswer):
            self._answered(meaning, packet.payload)
        elif isinstance(meaning, TwinGet | TwinPatch):
            self._twin_request(meaning, packet.payload)
        elif meaning is Other.TELEMETRY:
            self._services.metrics.telemetry_messages += 1
        else:
            self._break(f"it published to {packet.topic[:300]!r}, which the hub does not offer")
            return
        if packet.packet_id is not None:
            self._protocol.acknowledge(packet.packet_id)

    def _answered(self, answer: MethodAnswer, payload: bytes) -> None:
        attachment = self._attachment
        assert attachment is not None
        outcome = method_result(answer.status, payload, self._services.rules)
        if isinstance(outcome, HubError):
            self._services.metrics.invalid_answers += 1
        attachment.settle(-1 if answer.rid is None else answer.rid, outcome)

    def _twin_request(self, request: TwinGet | TwinPatch, payload: bytes) -> None:
        if self._twin is None:
            assert self._attachment is not None
            self._twin = TwinRequests(self._services, self._attachment, self._twin_answered)
        if isinstance(request, TwinGet):
            self._twin.get(request.rid)
        else:
            self._twin.patch(request.rid, payload)

    def _twin_answered(self, rid: str, answer: TwinAnswer) -> None:
        if any(name == TWIN_RESPONSES for name, _ in self._filters):
            self._protocol.publish(twin_response_topic(answer.status, rid, answer.version), answer.body)
            self._flush()

    def _closed(self, event: Closed) -> None:
        if event.error is not None:
            self._break(str(event.error))
        else:
            self._end(GOODBYE)
            self._stream.close()

    def _break(self, reason: str) -> None:
        """The device does what the hub does not take: the connection is closed, since no SDK looks at anything less
        (`wire/device.md` 1.8)."""
        self._services.metrics.protocol_errors += 1
        log.info("device broke the protocol", target=str(self.target), reason=reason, peer=self._stream.peer.address)
        self._end()
        self._flush()
        self._stream.close()

    # --- time ----------------------------------------------------------------------------------------------------

    def _arm_keep_alive(self) -> None:
        due = self._protocol.next_deadline()
        if due is not None:
            self._keep_alive = self._services.deadlines.call_at(due, self._check_keep_alive)

    def _check_keep_alive(self) -> None:
        """[MQTT-3.1.2-24] The deadline moved with each packet; it is looked at only when the armed one comes."""
        due = self._protocol.next_deadline()
        if due is not None and due <= self._services.clock.monotonic():
            self.close(CloseReason.KEEP_ALIVE)
        else:
            self._arm_keep_alive()

    def _token_expired(self) -> None:
        self.close(CloseReason.TOKEN_EXPIRED)

    def _end(self, reason: str | None = None) -> None:
        self._sequence.drop()
        for deadline in (self._keep_alive, self._token_end):
            if deadline is not None:
                deadline.cancel_deadline()
        self._keep_alive = self._token_end = None
        self._twin = None
        if self._attachment is not None and not self._attachment.ended:
            self._attachment.end()
            if reason is not None:
                log.info("device connection closed", target=str(self.target), reason=reason)

    # --- the port DeviceConnection -------------------------------------------------------------------------------

    def accepts(self, method_name: str) -> bool:
        filters = self._filters
        if len(filters) == 1 and filters[0][0] == ALL_METHODS:
            return True
        return any(is_method_filter(name) and filter_takes_method(name, method_name) for name, _ in filters)

    def unsent_bytes(self) -> int:
        return self._stream.get_write_buffer_size() + (sum(map(len, self._held)) if self._held else 0)

    def deliver(self, rid: int, request: MethodRequest) -> None:
        self._send(serialize_publish(method_topic(request.method_name, rid), request.payload or b""))

    @property
    def wants_desired(self) -> bool:
        return any(name == DESIRED_PROPERTIES for name, _ in self._filters)

    def push_desired(self, version: int, patch: bytes) -> None:
        """At QoS 0, whatever was granted: a device that missed one reads its twin when it comes back."""
        if self._stream.is_closing() or not self.wants_desired:
            return
        self._send(serialize_publish(desired_topic(version), patch))
        if self.unsent_bytes() > self._services.table.limits.unsent_bytes:
            self._end_slow_reader()

    def _send(self, data: bytes) -> None:
        if self._held is not None:
            self._held.append(data)
        else:
            self._stream.write(data)

    def close(self, reason: CloseReason) -> None:
        log.info("device connection closed", target=str(self.target), reason=reason.value)
        self._end()
        if reason is CloseReason.SLOW_READER:
            self._stream.abort()
        else:
            self._stream.close()


def intern_filters(filters: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """The same filters as one object for all devices that have them: most have the very same one."""
    interned = tuple((intern(name), qos) for name, qos in filters)
    if len(_COMMON_FILTERS) < 64:
        return _COMMON_FILTERS.setdefault(interned, interned)
    return _COMMON_FILTERS.get(interned, interned)


_COMMON_FILTERS: dict[tuple[tuple[str, int], ...], tuple[tuple[str, int], ...]] = {}
