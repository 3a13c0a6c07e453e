"""Devices (and a back end's `open()`) over AMQP 1.0 on one byte stream: brings the protocol, the dialect and the
domain together."""

from __future__ import annotations

import secrets

import structlog

from methodhub.core.access import CLOCK_SKEW, AuthenticationError, KeyCredential
from methodhub.core.deadlines import Deadline
from methodhub.core.errors import HubError
from methodhub.core.identity import Target
from methodhub.core.ports import CloseReason
from methodhub.device.amqp_target import AmqpTarget, body_bytes
from methodhub.device.cbs import choose_reply_link, put_token
from methodhub.device.connection import GOODBYE, LOST, EventConnection
from methodhub.device.grants import Grant, Grants, TooManyTokens, authorize_target
from methodhub.device.services import DeviceServices
from methodhub.device.twins import keep_model_id
from methodhub.iothub import amqp as dialect
from methodhub.iothub.amqp import Address, Node, parse_address
from methodhub.iothub.mqtt import MAX_MODEL_ID
from methodhub.iothub.rest import method_result
from methodhub.net.stream import ByteStream
from methodhub.wire.amqp.errors import MalformedData
from methodhub.wire.amqp.events import (
    Closed,
    CreditChanged,
    Event,
    LinkAttached,
    LinkDetached,
    MessageReceived,
    Opened,
    SessionEnded,
)
from methodhub.wire.amqp.messages import Message, decode_message, encode_message
from methodhub.wire.amqp.protocol import AmqpServerProtocol, State
from methodhub.wire.amqp.sasl import SaslInit

log = structlog.get_logger()

LINK_CREDIT = 100
MAX_REPLIES = 100
"""Answers that wait for a peer's credit, per link; a peer that wants more before it reads is closed."""

SETTLED, FIRST = 1, 0
"""snd-settle-mode and rcv-settle-mode of the links on which the hub sends."""


class AmqpConnection(EventConnection[Event]):
    """One connection, from its first byte to its last, with all identities that speak on it."""

    __slots__ = (
        "_deadline",
        "_grants",
        "_links",
        "_protocol",
        "_replies",
        "_targets",
        "_token_end",
    )

    def __init__(self, services: DeviceServices, stream: ByteStream) -> None:
        self._protocol = AmqpServerProtocol(f"MethodHub_{secrets.token_hex(16)}")
        super().__init__(services, stream, self._protocol)
        self._grants = Grants(services, dialect.MAX_PUT_TOKEN_IDENTITIES)
        self._links: dict[int, tuple[LinkAttached, Address, AmqpTarget | None]] = {}
        self._targets: dict[Target, AmqpTarget] = {}
        self._replies: dict[int, list[bytes]] = {}
        self._deadline: Deadline | None = None
        self._token_end: Deadline | None = None

    # --- the stream ----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data, self._services.clock.monotonic())
        self._take_events()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sequence.cancel()
        self._end(LOST)
        self._protocol.receive_eof()  # frees the engine, not only when the collector runs

    def _end_slow_reader(self) -> None:
        log.info("amqp connection closed", reason=CloseReason.SLOW_READER.value)
        self._end()
        self._stream.abort()

    def unsent_bytes(self) -> int:
        return self._stream.get_write_buffer_size()

    # --- events --------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        match event:
            case MessageReceived():
                self._received(event)
            case CreditChanged():
                self._credit_changed(event)
            case LinkAttached():
                self._sequence.wait_for(self._guarded(self._attach(event)))
            case LinkDetached():
                self._detached(event.link)
            case SaslInit():
                self._sasl(event)
            case Opened():
                self._arm()
                if self._grants:
                    self._authenticated()
            case Closed():
                self._closed(event)
            case SessionEnded():
                pass

    def _closed(self, event: Closed) -> None:
        if event.error is not None and not event.clean:
            self._services.metrics.protocol_errors += 1
            log.info("peer broke the protocol", reason=str(event.error), peer=self._stream.peer.address)
        self._finish(GOODBYE if event.error is None else str(event.error))

    def _finish(self, reason: str | None = None) -> None:
        self._end(reason)
        self._flush()
        self._stream.close()

    def _end(self, reason: str | None = None) -> None:
        self._sequence.drop()
        for deadline in (self._deadline, self._token_end):
            if deadline is not None:
                deadline.cancel_deadline()
        self._deadline = self._token_end = None
        self._services.policies.watchers.discard(self._tokens_expired)
        targets, self._targets = self._targets, {}
        for target in targets.values():
            attachment, target.attachment = target.attachment, None
            target.twin = None
            if attachment is not None:
                attachment.end()
                if reason is not None:
                    log.info("device connection closed", target=str(target.target), reason=reason)
        self._links.clear()

    # --- time ----------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        due = self._protocol.next_deadline()
        if due is not None:
            self._deadline = self._services.deadlines.call_at(due, self._tick)

    def _tick(self) -> None:
        """The deadline moved with what was heard since it was armed; the protocol knows what is really due."""
        self._protocol.tick(self._services.clock.monotonic())
        self._take_events()
        self._arm()

    def _arm_token_end(self) -> None:
        if self._token_end is not None:
            self._token_end.cancel_deadline()
            self._token_end = None
        expiry = self._grants.next_expiry()
        if expiry is not None and not self._stream.is_closing():
            remaining = max(0.0, expiry + CLOCK_SKEW - self._services.clock.wall())
            due = self._services.clock.monotonic() + remaining
            self._token_end = self._services.deadlines.call_at(due, self._tokens_expired)

    def _tokens_expired(self) -> None:
        """[HUB-token-expired] With the grace of the clocks' skew; the links of whom it was are detached. [HUB-rotate] A
        token that a replaced key of a policy signed is over at once."""
        over = self._grants.expired(self._services.clock.wall())
        if over:
            for target in list(self._targets.values()):
                attachment = target.attachment
                if attachment is None or all(grant.credential != attachment.credential for grant in over):
                    continue
                found = self._grants.find(target.target)
                if found is None:
                    target.close(CloseReason.TOKEN_EXPIRED)
                elif found.credential is not None:
                    attachment.credential = found.credential  # from now on it is here by this one
            if not self._grants and not self._targets:
                self._protocol.close(dialect.UNAUTHORIZED, "Token Invalid.")
                self._finish()
                return
        self._arm_token_end()

    # --- who is it -----------------------------------------------------------------------------------------------

    def _sasl(self, init: SaslInit) -> None:
        """ANONYMOUS, MSSBCBS and EXTERNAL say nothing yet: a token or the certificate decides later."""
        if init.mechanism != "PLAIN":
            self._protocol.accept_sasl(self._services.clock.monotonic())
            self._take_events()
            return
        self._sequence.wait_for(self._guarded(self._sasl_plain(init.initial_response or b"")))

    async def _sasl_plain(self, response: bytes) -> None:
        try:
            said = dialect.parse_sasl_plain(response)
            grant = await self._grants.put(said.token)
            fits = grant.target is None if said.target is None else self._grants.find(said.target) is not None
            if not fits:
                raise AuthenticationError("the token is another's than the user name says")
        except (ValueError, AuthenticationError, HubError, TooManyTokens) as error:
            log.info("connection refused", reason=str(error), peer=self._stream.peer.address)
            self._protocol.refuse_sasl()
            self._finish()
            return
        self._granted(grant)
        self._protocol.accept_sasl(self._services.clock.monotonic())
        for event in self._protocol.events():
            self._sequence.add(event)

    def _granted(self, grant: Grant) -> None:
        """[HUB-before-authentication] From here on the peer is no stranger; one that has not said OPEN yet still is."""
        if self._protocol.state is State.OPEN:
            self._authenticated()
        self._arm_token_end()
        if grant.target is None:
            self._services.policies.watchers.add(self._tokens_expired)
        for target in self._targets.values():
            found, attachment = self._grants.find(target.target), target.attachment
            credential = None if found is None else found.credential
            if credential is not None and attachment is not None and isinstance(attachment.credential, KeyCredential):
                attachment.credential = credential  # [HUB-token-renewal]

    def _authenticated(self) -> None:
        self._stream.authenticated()
        self._protocol.set_limits(dialect.MAX_SESSIONS, dialect.MAX_LINKS)

    async def _put_token(self, attached: LinkAttached, delivery: int, message: Message) -> None:
        """[HUB-cbs] The request is settled before the reply goes out: one SDK takes it for lost otherwise."""
        grant, reply = await put_token(self._grants, message, self._stream.peer.address)
        if grant is not None:
            self._granted(grant)
        self._protocol.settle(delivery)
        receivers = (
            other for other, address, _ in self._links.values() if address.node is Node.CBS and other.role == "receiver"
        )
        link = choose_reply_link(receivers, attached.session, message.reply_to)
        if link is not None:
            self._reply(link, encode_message(reply))

    # --- links ---------------------------------------------------------------------------------------------------

    async def _attach(self, attached: LinkAttached) -> None:
        """[HUB-link-address] By its address alone; refused where nobody on this connection may use it."""
        address = parse_address(attached.target_address if attached.role == "sender" else attached.source_address)
        if address is None:
            self._refuse(attached, dialect.NOT_FOUND, "There is no such address.")
            return
        if address.target is not None:
            await self._attach_target(attached, address, address.target)
        elif address.node is Node.CBS or self._grants.is_service():
            self._accept(attached, address, None)
        else:
            self._refuse(attached, dialect.UNAUTHORIZED, "The connection holds no token of a back end.")

    async def _attach_target(self, attached: LinkAttached, address: Address, target: Target) -> None:
        try:
            entry = await self._target_at(target, address.as_written)
        except (AuthenticationError, HubError) as error:
            if isinstance(error, HubError) and error.code.http_status == 429:
                self._refuse(attached, dialect.THROTTLED, error.message)
                return
            log.info("link refused", target=str(target), reason=str(error), peer=self._stream.peer.address)
            not_found = isinstance(error, HubError) and self._grants.find(target) is not None
            self._refuse(attached, dialect.NOT_FOUND if not_found else dialect.UNAUTHORIZED, "Unauthorized access.")
            return
        except TooManyTokens:
            self._refuse(attached, dialect.RESOURCE_LIMIT, "The connection carries too many identities.")
            return
        model_id = attached.properties.get(dialect.MODEL_ID)
        if isinstance(model_id, str) and not entry.links:
            await keep_model_id(self._services, target, model_id[:MAX_MODEL_ID])
        attachment = entry.attachment
        if attachment is None or entry.is_over():  # it was revoked meanwhile
            self._refuse(attached, dialect.UNAUTHORIZED, "Unauthorized access.")
            return
        entry.links[attached.link] = address.node
        if address.node is Node.METHODS:
            if attached.role == "receiver":
                entry.request_link = attached.link
                entry.had_credit = False
            else:
                entry.response_link = attached.link
            await attachment.claim()  # before ATTACH is answered: a call made then finds the target
        elif address.node is Node.TWIN and attached.role == "receiver":
            entry.twin_link = attached.link
        if entry.is_over():
            return
        self._accept(attached, address, entry)
        if attached.link == entry.request_link and self._protocol.credit(attached.link):
            entry.had_credit = True  # it came before its ATTACH was answered
            await attachment.claim()
            entry.send_queued()

    async def _target_at(self, target: Target, as_written: Target | None) -> AmqpTarget:
        """The identity that an address means: its ids decoded, else as they are written."""
        try:
            return await self._target(target)
        except (AuthenticationError, HubError):
            if as_written is None:
                raise
        return await self._target(as_written)

    async def _target(self, target: Target) -> AmqpTarget:
        """The identity on this connection; at its first link it becomes the target's live connection."""
        entry = self._targets.get(target)
        if entry is not None:
            return entry
        if len(self._targets) >= dialect.MAX_PUT_TOKEN_IDENTITIES:
            raise TooManyTokens
        services = self._services
        identity, device, credential, generation = await authorize_target(
            services, self._grants, target, self._stream.peer.certificates
        )
        if self._stream.is_closing():
            raise AuthenticationError("the connection has ended meanwhile")
        self._authenticated()
        services.registry.pin(identity, device)
        entry = self._targets[target] = AmqpTarget(self, target)
        entry.attachment = services.table.attach(entry, identity, credential, generation)
        log.debug("device connected", target=str(target), peer=self._stream.peer.address)
        return entry

    def _accept(self, attached: LinkAttached, address: Address, entry: AmqpTarget | None) -> None:
        self._links[attached.link] = (attached, address, entry)
        if attached.role == "sender":
            self._protocol.accept_link(attached.link, LINK_CREDIT)
        else:
            self._protocol.accept_link(attached.link, 0, SETTLED, FIRST)

    def _refuse(self, attached: LinkAttached, condition: str, description: str) -> None:
        self._protocol.refuse_link(attached.link, condition, description)

    def _detached(self, link: int) -> None:
        _, _, entry = self._links.pop(link, (None, None, None))
        self._replies.pop(link, None)
        if entry is None:
            return
        entry.forget_link(link)
        if not entry.links:
            self._targets.pop(entry.target, None)
            if entry.attachment is not None:
                log.info("device connection closed", target=str(entry.target), reason="it detached its last link")
                entry.attachment.end()

    def drop_target(self, entry: AmqpTarget, condition: str, description: str, reason: CloseReason) -> None:
        """[HUB-one-of-many] Its links are detached and its token dropped; the connection ends with its last. A hub that
        stops says nothing of it: Node's SDK answers DETACH and CLOSE with requests that nobody answers any more, and
        comes back 45 seconds later; when the stream ends it comes back at once."""
        log.info("device connection closed", target=str(entry.target), reason=reason.value)
        if self._targets.pop(entry.target, None) is None:
            return
        self._grants.drop(entry.target)
        stops = reason is CloseReason.STOPPING and not self._targets
        for link in entry.links:
            self._links.pop(link, None)
            if not stops:
                self._protocol.detach_link(link, condition, description)
        if entry.attachment is not None:
            entry.attachment.end()
        self._flush()
        if stops or not (self._targets or self._grants.names_anybody()):
            if not stops:
                self._protocol.close(condition, description)
            self._finish()

    def _credit_changed(self, event: CreditChanged) -> None:
        _, _, entry = self._links.get(event.link, (None, None, None))
        waiting = self._replies.pop(event.link, [])
        for reply in waiting:
            self._reply(event.link, reply)
        if entry is None or event.link != entry.request_link or event.credit == 0:
            return
        if entry.had_credit:
            entry.send_queued()
        else:
            entry.had_credit = True
            entry.send_queued()
            if entry.attachment is not None:
                self._sequence.wait_for(self._guarded(entry.attachment.claim()))

    # --- messages ------------------------------------------------------------------------------------------------

    def send(self, link: int, message: bytes) -> bool:
        """Pre-settled. False where the peer has given no credit, or does not take more bytes."""
        sent = self._protocol.send(link, message)
        if sent and not self._sequence.is_waiting:
            self._flush()
        return sent

    def reply(self, link: int, message: bytes) -> None:
        """Pre-settled; waits for the peer's credit."""
        self._reply(link, message)
        if not self._sequence.is_waiting:
            self._flush()

    def _reply(self, link: int, message: bytes) -> None:
        waiting = self._replies.get(link)
        if waiting is None and self._protocol.send(link, message):
            return
        waiting = self._replies.setdefault(link, [])
        waiting.append(message)
        if len(waiting) > MAX_REPLIES:
            self._protocol.close(dialect.RESOURCE_LIMIT, "Too many answers wait for credit.")
            self._finish()

    def _received(self, event: MessageReceived) -> None:
        attached, address, entry = self._links.get(event.link, (None, None, None))
        if attached is None or address is None:
            return
        if entry is not None and entry.attachment is not None:
            entry.attachment.heard = self._services.clock.monotonic()
        if address.node is Node.TELEMETRY:
            self._services.metrics.telemetry_messages += 1
            self._protocol.settle(event.delivery)
            return
        if address.node is Node.SERVICE_SEND:
            self._protocol.settle(event.delivery, "rejected", dialect.NOT_IMPLEMENTED)
            return
        try:
            message = decode_message(event.payload)
        except MalformedData:
            self._protocol.settle(event.delivery, "rejected", "amqp:decode-error")
            return
        if address.node is Node.CBS:
            self._sequence.wait_for(self._guarded(self._put_token(attached, event.delivery, message)))
        elif entry is not None and address.node is Node.METHODS:
            self._answered(entry, message)
            self._protocol.settle(event.delivery)
        elif entry is not None and address.node is Node.TWIN:
            self._protocol.settle(event.delivery)
            entry.twin_request(self._services, message)
        else:
            self._protocol.settle(event.delivery)

    def _answered(self, entry: AmqpTarget, message: Message) -> None:
        """[HUB-answer] Data, an amqp-value text or null, or nothing at all (`wire/device.md` 3.6)."""
        rid = dialect.rid_of(entry.uuid_prefix, message.correlation_id)
        outcome = method_result(
            dialect.status_of(message.application_properties), body_bytes(message.body), self._services.rules
        )
        if isinstance(outcome, HubError):
            self._services.metrics.invalid_answers += 1
        if entry.attachment is not None:
            entry.attachment.settle(-1 if rid is None else rid, outcome)
