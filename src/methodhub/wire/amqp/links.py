"""The links and sessions of one AMQP connection: which are there, and what credit the peer has. No bytes, no events."""

from __future__ import annotations

from methodhub.wire.amqp import engine
from methodhub.wire.amqp.engine import Pointer


class Session:
    __slots__ = ("blocked", "links", "number", "pointer")

    def __init__(self, number: int, pointer: Pointer) -> None:
        self.number = number
        self.pointer = pointer
        self.links: dict[int, Link] = {}
        """By the peer's handles."""
        self.blocked: set[int] = set()
        """Links that were refused a message because too many bytes wait already."""


class Link:
    """`credit`: messages that the sending side, peer or us, may still send. `credit_target`: those that a sending peer
    may have under way and unsettled."""

    __slots__ = (
        "attached",
        "buffered",
        "credit",
        "credit_target",
        "deliveries",
        "ended",
        "number",
        "peer_sends",
        "pointer",
        "session",
    )

    def __init__(self, number: int, pointer: Pointer, session: Session, peer_sends: bool) -> None:
        self.number = number
        self.pointer = pointer
        self.session = session
        self.peer_sends = peer_sends
        self.attached = False  # by us too
        self.ended = False  # by us: only the peer's DETACH is waited for
        self.credit = 0
        self.credit_target = 0
        self.buffered = 0  # bytes of a delivery that is not whole yet
        self.deliveries: dict[int, Pointer] = {}  # not settled yet

    @property
    def live(self) -> bool:
        return self.attached and not self.ended

    def top_up(self) -> None:
        """Give a sending peer credit again, once half of it is used up."""
        if 2 * self.credit <= self.credit_target and not self.ended:
            missing = self.credit_target - self.credit - len(self.deliveries)
            if missing > 0:
                engine.give_credit(self.pointer, missing)
                self.credit += missing
