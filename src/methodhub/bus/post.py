"""What this node sends, put into subjects and bytes. Keeps nothing."""

from __future__ import annotations

from methodhub.bus.line import Line
from methodhub.bus.messages import MOVED_REPLY, NodeMessage, Subjects, encode_message
from methodhub.wire.nats.protocol import publish


class Post:
    def __init__(self, node: str, subjects: Subjects, line: Line) -> None:
        self.node = node
        self.subjects = subjects
        self.line = line

    def to_all(self, message: NodeMessage) -> None:
        self.line.send(publish(self.subjects.all, encode_message(message)))

    def to(self, node: str, message: NodeMessage) -> None:
        self.line.send(publish(self.subjects.node(node), encode_message(message)))

    def ask(self, subject: bytes, number: int, request: bytes) -> None:
        self.line.send(publish(subject, request, self.subjects.reply(number)))

    def reply(self, subject: bytes, answer: bytes = MOVED_REPLY) -> None:
        self.line.send(publish(subject, answer))
