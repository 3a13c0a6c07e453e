"""Plays a device's dialogue over AMQP: a line is a frame of the device or of the hub, or a whole step of the start.

> SASL ANONYMOUS | < OUTCOME 0                            mechanisms are checked, too
> OPEN [max_frame_size=4096] [idle=115000]                with the hub's answer
> BEGIN 1                                                 with the hub's answer
> ATTACH {link} sender|receiver [channel=1] name=.. [source=..] [target=..] [settle=0] [correlation=..] [api=..]
< ATTACH {link}                                           with the termini that were asked for
< REFUSED condition                                       ATTACH without termini, then DETACH
< DETACH condition | < CLOSE condition
> FLOW {link} 1024                                        credit
> TOKEN {link} {type}:{id} name=.. [reply_to=..] [token=token_policy]
< DISPOSITION                                             accepted, settled
< REPLY {link} 200                                        to the newest TOKEN, in the type of its id
< REQUEST {link} name | payload
> ANSWER {link} status | body                             no body at all without the bar
! certificate                                             the device gets one, and connects with it from now on
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from methodhub.core.identity import Target
from methodhub.wire.amqp import frames
from methodhub.wire.amqp.messages import AmqpValue, Message, MessageId
from methodhub.wire.amqp.sasl import AMQP_HEADER
from tests.amqp.peers import TOKEN_TYPE, AmqpPeer, Link, Request, Session, is_accepted
from tests.certificates import self_signed
from tests.harness import RunningHub
from tests.transcripts.device_player import DevicePlayer
from tests.transcripts.dialogues import Dialogue, Line
from tests.wire.amqp.peer import attach, open_frame
from tests.x509.peers import pin

ID_TYPES: dict[str, Callable[[str], MessageId]] = {"string": str, "ulong": int, "uuid": UUID}


class AmqpPlayer(DevicePlayer):
    def __init__(self, hub: RunningHub, dialogue: Dialogue) -> None:
        super().__init__(hub, dialogue)
        self._peer: AmqpPeer
        self._sessions: dict[str, Session] = {}
        self._links: dict[str, tuple[Link, dict[str, str]]] = {}
        self._outcome = -1
        self._message_id: MessageId = 0
        self._request: Request

    def _start(self) -> None:
        self._peer = AmqpPeer(self._hub)

    def _close(self) -> None:
        self._peer.close()

    def _play_line(self, line: Line) -> None:
        if line.mark == "!":
            super()._play_line(line)
            return
        head, separator, body = self._fill(line.text).partition(" | ")
        verb, *words = head.removesuffix(" |").split()
        args = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        sides = {">": "_send", "<": "_expect"}
        act = getattr(self, f"{sides[line.mark]}_{verb.lower()}")
        act(*args, *([body.encode()] if separator or head.endswith(" |") else []), **options)

    # --- the device's --------------------------------------------------------------------------------------------

    def _send_sasl(self, mechanism: str) -> None:
        self._outcome = self._peer.sasl(mechanism)

    def _send_open(self, **options: str) -> None:
        self._peer.send(AMQP_HEADER + open_frame(**{name: int(value) for name, value in options.items()}))
        assert self._peer.header() == AMQP_HEADER
        assert self._peer.expect(frames.OPEN).field(4) == 240_000

    def _send_begin(self, channel: str) -> None:
        self._sessions[channel] = self._peer.begin(int(channel))

    def _send_attach(self, alias: str, role: str, /, channel: str = "0", settle: str = "2", **options: str) -> None:
        link = Link(self._sessions[channel], len(self._links), role)
        self._links[alias] = link, options
        known = {"correlation": "com.microsoft:channel-correlation-id", "api": "com.microsoft:api-version"}
        properties = {long: options[short] for short, long in known.items() if short in options}
        termini = options.get("source"), options.get("target")
        self._peer.send(
            attach(int(channel), link.handle, options["name"], role, *termini, int(settle), properties or None)
        )

    def _send_flow(self, alias: str, /, credit: str) -> None:
        self._peer.give(self._links[alias][0], int(credit))

    def _send_token(
        self, alias: str, message_id: str, /, token: str = "token", reply_to: str | None = None, **more: str
    ) -> None:
        kind, _, text = message_id.partition(":")
        self._message_id = ID_TYPES[kind](text)
        properties = {"operation": "put-token", "type": TOKEN_TYPE, "name": more["name"]}
        body = AmqpValue(self._token(token))
        message = Message(body, self._message_id, reply_to=reply_to, application_properties=properties)
        self._peer.post(self._links[alias][0], message)

    def _send_answer(self, alias: str, /, status: str, body: bytes | None = None) -> None:
        properties = {"IoThub-status": int(status)}
        message = Message(body, correlation_id=self._request.id, application_properties=properties)
        self._peer.post(self._links[alias][0], message)

    # --- the hub's -----------------------------------------------------------------------------------------------

    def _expect_outcome(self, code: str) -> None:
        assert self._outcome == int(code)

    def _expect_attach(self, alias: str) -> None:
        link, options = self._links[alias]
        answer = self._peer.expect(frames.ATTACH)
        assert (answer.field(0), answer.field(2)) == (options["name"], link.role == "sender")
        if link.role == "sender":
            assert answer.field(6).value[0] == options["target"]
        else:
            assert answer.field(5).value[0] == options["source"]

    def _expect_refused(self, condition: str) -> None:
        answer = self._peer.expect(frames.ATTACH)
        assert answer.field(5) is None and answer.field(6) is None
        self._expect_detach(condition)

    def _expect_detach(self, condition: str) -> None:
        assert self._peer.detached().condition == condition

    def _expect_close(self, condition: str) -> None:
        closed = self._peer.ended()
        assert closed is not None and closed.condition == condition

    def _expect_disposition(self) -> None:
        assert is_accepted(self._peer.settled())

    def _expect_reply(self, alias: str, /, status: str) -> None:
        reply, _ = self._peer.message(self._links[alias][0])
        found = reply.correlation_id
        assert (type(found), found) == (type(self._message_id), self._message_id)
        assert reply.application_properties["status-code"] == int(status)
        assert isinstance(reply.application_properties["status-description"], str)

    def _expect_request(self, alias: str, /, method: str, payload: bytes) -> None:
        message, transfers = self._peer.message(self._links[alias][0])
        found: Any = message.correlation_id
        assert isinstance(found, UUID) and isinstance(message.body, bytes)
        assert (message.application_properties, message.body) == ({"IoThub-methodname": method}, payload)
        self._request = Request(method, message.body, found, transfers, message)

    # --- what others do ------------------------------------------------------------------------------------------

    def _do_certificate(self) -> None:
        issued = self_signed(self._settings["device"])
        self._update({"authentication": pin(issued)})
        self._peer.close()
        with TemporaryDirectory() as directory:
            certificate, key = issued.files(Path(directory))
            self._peer = AmqpPeer(self._hub, (Path(certificate), Path(key)))

    def _do_live(self, seconds: str) -> None:
        """Seconds pass; a heartbeat goes out often enough, and the hub has heard it."""
        left = float(seconds)
        attachment = self._hub.hub.table.get(Target(self._settings["device"]))
        assert attachment is not None
        protocol = attachment.connection._connection._protocol  # type: ignore[attr-defined]
        while left > 0:
            step = min(left, 240.0)
            self._hub.advance(step)
            self._peer.send(frames.HEARTBEAT)
            left -= step
            self._hub.until(lambda: protocol._heard == self._hub.hub.clock.monotonic())
