"""Claims-based security: what a put-token asks for and how it is answered (`wire/device.md` 3.3)."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from methodhub.core.access import AuthenticationError
from methodhub.core.errors import HubError
from methodhub.device.grants import Grant, Grants, TooManyTokens, named_by
from methodhub.iothub.amqp import MAX_PUT_TOKEN_IDENTITIES, SAS_TOKEN_TYPE, TOKEN_TYPES
from methodhub.wire.amqp.events import LinkAttached
from methodhub.wire.amqp.messages import AmqpValue, Message

log = structlog.get_logger()


async def put_token(grants: Grants, message: Message, peer: str) -> tuple[Grant | None, Message]:
    """What the token grants, if anything, and the reply. [HUB-cbs] The name in the request is not believed: the token
    says itself whom it is for. The reply's correlation-id keeps the type of the message-id; status-code is an int."""
    grant, status, text = await _judge(grants, message, peer)
    return grant, Message(
        correlation_id=message.message_id,
        application_properties={"status-code": status, "status-description": text},
        body=AmqpValue(None),
    )


async def _judge(grants: Grants, message: Message, peer: str) -> tuple[Grant | None, int, str]:
    properties, body = message.application_properties, message.body
    if properties.get("operation") != "put-token" or not isinstance(body, AmqpValue):
        return None, 400, "The request is no put-token with an amqp-value body."
    if properties.get("type") not in TOKEN_TYPES or not isinstance(body.value, str):
        return None, 400, f"The token is not of the type {SAS_TOKEN_TYPE}."
    try:
        return await grants.put(body.value), 200, "OK"
    except AuthenticationError as error:
        log.info("token refused", target=named_by(body.value), reason=str(error), peer=peer)
        return None, 401, "Unauthorized access. The token is not accepted."
    except HubError as error:
        log.info("token refused", target=named_by(body.value), reason=error.message, peer=peer)
        return None, error.code.http_status, error.message
    except TooManyTokens:
        return None, 403, f"A connection holds at most {MAX_PUT_TOKEN_IDENTITIES} tokens."


def choose_reply_link(receivers: Iterable[LinkAttached], session: int, reply_to: str | None) -> int | None:
    """Where a reply goes: to the receiver whose own address the request names, else to the newest one, in the
    request's session if there is one."""
    candidates = list(receivers)
    named = [each.link for each in candidates if reply_to and each.target_address == reply_to]
    near = [each.link for each in candidates if each.session == session]
    return max(named or near or [each.link for each in candidates], default=None)
