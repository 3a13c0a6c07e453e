"""What goes wrong on an AMQP connection: the conditions of the standard (2.8.15 to 2.8.18), as one exception."""

from __future__ import annotations

DECODE_ERROR = "amqp:decode-error"
INVALID_FIELD = "amqp:invalid-field"
NOT_ALLOWED = "amqp:not-allowed"
FRAME_SIZE_TOO_SMALL = "amqp:frame-size-too-small"
RESOURCE_LIMIT_EXCEEDED = "amqp:resource-limit-exceeded"
FRAMING_ERROR = "amqp:connection:framing-error"
UNATTACHED_HANDLE = "amqp:session:unattached-handle"
HANDLE_IN_USE = "amqp:session:handle-in-use"
MESSAGE_SIZE_EXCEEDED = "amqp:link:message-size-exceeded"
TRANSFER_LIMIT_EXCEEDED = "amqp:link:transfer-limit-exceeded"


class AmqpError(Exception):
    """An error condition and its description, ours or the peer's."""

    def __init__(self, condition: str, description: str = "") -> None:
        super().__init__(f"{condition}: {description}" if description else condition)
        self.condition = condition
        self.description = description


class MalformedData(AmqpError):
    """Bytes that are no AMQP value, frame body or message."""

    def __init__(self, description: str) -> None:
        super().__init__(DECODE_ERROR, description)
