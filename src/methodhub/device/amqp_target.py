"""One identity on an AMQP connection that may carry many: its links, and the requests that wait for credit."""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING

from methodhub.core.calls import MethodRequest
from methodhub.core.connections import Attachment, connection_closed
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.ports import CloseReason
from methodhub.device.twins import TwinAnswer, TwinRequests, answer_of
from methodhub.iothub.amqp import (
    CLOSE_CONDITIONS,
    DESIRED_NOTIFICATIONS,
    METHOD_NAME,
    Node,
    correlation_id,
    uuid_prefix,
)
from methodhub.wire.amqp.codec import Long
from methodhub.wire.amqp.messages import AmqpValue, Message, MessageId, encode_message

if TYPE_CHECKING:
    from methodhub.device.amqp import AmqpConnection
    from methodhub.device.services import DeviceServices


class AmqpTarget:
    """The port DeviceConnection for one identity."""

    __slots__ = (
        "_connection",
        "_queue",
        "_queued_bytes",
        "attachment",
        "had_credit",
        "links",
        "request_link",
        "response_link",
        "target",
        "twin",
        "twin_link",
        "uuid_prefix",
        "wants_desired",
    )

    def __init__(self, connection: AmqpConnection, target: Target) -> None:
        self._connection = connection
        self.target = target
        self.attachment: Attachment | None = None
        self.links: dict[int, Node] = {}
        self.request_link: int | None = None
        """Where the device receives calls."""
        self.response_link: int | None = None
        """Where it answers them."""
        self.twin_link: int | None = None
        self.had_credit = False
        self.wants_desired = False
        self.twin: TwinRequests[MessageId | None] | None = None
        self.uuid_prefix = uuid_prefix(secrets.randbits(96))
        self._queue: deque[tuple[int, bytes]] = deque()
        self._queued_bytes = 0

    # --- the port ------------------------------------------------------------------------------------------------

    def accepts(self, method_name: str) -> bool:
        """[HUB-credit] Both links are there, and credit was given once: used up, the call waits."""
        return self.had_credit and self.request_link is not None and self.response_link is not None

    def unsent_bytes(self) -> int:
        return self._queued_bytes + self._connection.unsent_bytes()

    def deliver(self, rid: int, request: MethodRequest) -> None:
        message = encode_message(
            Message(
                body=request.payload or b"",
                correlation_id=correlation_id(self.uuid_prefix, rid),
                application_properties={METHOD_NAME: request.method_name},
            )
        )
        self._queue.append((rid, message))
        self._queued_bytes += len(message)
        self.send_queued()

    def push_desired(self, version: int, patch: bytes) -> None:
        if self.twin_link is not None and self.wants_desired:
            self._connection.reply(self.twin_link, encode_message(desired_notification(version, patch)))

    def close(self, reason: CloseReason) -> None:
        self._connection.drop_target(self, *CLOSE_CONDITIONS[reason], reason)

    # --- its links -----------------------------------------------------------------------------------------------

    def send_queued(self) -> None:
        """As much as the device's credit allows. A call that ended meanwhile is not handed over any more."""
        link, attachment = self.request_link, self.attachment
        if link is None or attachment is None:
            return
        while self._queue:
            rid, message = self._queue[0]
            if attachment.pending.is_open(rid) and not self._connection.send(link, message):
                return
            self._queue.popleft()
            self._queued_bytes -= len(message)

    def twin_request(self, services: DeviceServices, message: Message) -> None:
        """GET, reported PATCH, and PUT or DELETE of the wish to be told of desired ones (`wire/device.md` 3.7)."""
        if self.attachment is None:
            return
        if self.twin is None:
            self.twin = TwinRequests(services, self.attachment, self._twin_answered)
        said = (message.annotations.get(key) for key in ("operation", "resource"))
        operation, resource = (each if isinstance(each, str) else None for each in said)
        if operation == "GET":
            self.twin.get(message.correlation_id)
        elif operation == "PATCH":
            self.twin.patch(message.correlation_id, body_bytes(message.body))
        elif operation in {"PUT", "DELETE"} and resource in {DESIRED_NOTIFICATIONS, None}:
            services.metrics.twin_requests += 1
            self.wants_desired = operation == "PUT"
            self._twin_answered(message.correlation_id, TwinAnswer(200))
        else:
            services.metrics.twin_requests += 1
            error = HubError(ErrorCode.ArgumentInvalid, "There is no such operation on a twin.")
            self._twin_answered(message.correlation_id, answer_of(error))

    def _twin_answered(self, correlation: MessageId | None, answer: TwinAnswer) -> None:
        if self.twin_link is not None:
            self._connection.reply(self.twin_link, encode_message(twin_reply(correlation, answer)))

    def is_over(self) -> bool:
        return self.attachment is None or self.attachment.ended

    def forget_link(self, link: int) -> None:
        """A link is gone. Without its pair no call can be answered: those that were open end."""
        self.links.pop(link, None)
        if link == self.twin_link:
            self.twin_link = None
            self.wants_desired = False
        if link not in {self.request_link, self.response_link}:
            return
        if link == self.request_link:
            self.request_link = None
            self.had_credit = False
            self._queue.clear()
            self._queued_bytes = 0
        else:
            self.response_link = None
        if self.attachment is not None:
            self.attachment.pending.fail_all(connection_closed)


def body_bytes(body: bytes | AmqpValue | None) -> bytes:
    if isinstance(body, AmqpValue):
        if body.value is None:
            return b""
        return body.value if isinstance(body.value, bytes) else str(body.value).encode()
    return body or b""


def twin_reply(correlation: MessageId | None, answer: TwinAnswer) -> Message:
    annotations: dict[str, int] = {"status": answer.status}
    if answer.version is not None:
        annotations["version"] = answer.version
    return Message(body=answer.body, correlation_id=correlation, annotations=annotations)


def desired_notification(version: int, patch: bytes) -> Message:
    """Without a correlation-id: by that alone devices tell it from an answer."""
    return Message(body=patch, annotations={"resource": DESIRED_NOTIFICATIONS, "version": Long(version)})
