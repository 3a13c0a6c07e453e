"""NATS request-reply with nothing around it: one process answers, another asks, as two nodes of a hub would.

    request_reply.py answer|ask HOST PORT USER PASSWORD [CALLERS SECONDS PID,PID]

`ask` prints a JSON object with its figures; the PIDs are the other processes whose CPU time counts. The payload is
about as long as the bus's message of a call.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, cast

import uvloop

from methodhub.wire.nats.protocol import PING, PONG, Message, NatsProtocol, Signal, connect, publish, subscribe

SUBJECT = b"bench.answer"
PAYLOAD = b"x" * 120
WARMUP = 1.0


class Peer(asyncio.Protocol):
    """Connected and subscribed once `ready` is done."""

    def __init__(self, user: str, password: str, subject: bytes) -> None:
        self.greeting = connect("bench", user, password, None) + subscribe(1, subject) + PING
        self.wire = NatsProtocol()
        self.transport: Any = None
        self.ready = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        cast(asyncio.Transport, transport).write(self.greeting)

    def data_received(self, data: bytes) -> None:
        out: list[bytes] = []
        for event in self.wire.receive_data(data):
            if type(event) is Message:
                self.message(event, out)
            elif event is Signal.PING:
                out.append(PONG)
            elif event is Signal.PONG and not self.ready.done():
                self.ready.set_result(None)
        if out:
            self.transport.write(b"".join(out))

    def message(self, message: Message, out: list[bytes]) -> None:
        out.append(publish(message.reply, message.payload))


class Asker(Peer):
    def __init__(self, user: str, password: str) -> None:
        self.inbox = b"bench.reply.%d" % os.getpid()
        super().__init__(user, password, self.inbox + b".*")
        self.sent: dict[bytes, float] = {}
        self.times: list[float] = []
        self.count = 0
        self.recording = False

    def ask(self) -> bytes:
        self.count += 1
        reply = b"%s.%d" % (self.inbox, self.count)
        self.sent[reply] = time.perf_counter()
        return publish(SUBJECT, PAYLOAD, reply)

    def message(self, message: Message, out: list[bytes]) -> None:
        took = time.perf_counter() - self.sent.pop(message.subject)
        if self.recording:
            self.times.append(took)
        out.append(self.ask())


def cpu_seconds(pids: list[int]) -> float:
    """Seconds of processor time that they have used."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


async def ask(peer: Asker, callers: int, seconds: float, pids: list[int]) -> dict[str, float]:
    peer.transport.write(b"".join(peer.ask() for _ in range(callers)))
    await asyncio.sleep(WARMUP)
    peer.recording, begin, cpu = True, time.perf_counter(), cpu_seconds(pids)
    await asyncio.sleep(seconds)
    peer.recording, cpu, took = False, cpu_seconds(pids) - cpu, time.perf_counter() - begin
    times, count = sorted(peer.times), len(peer.times)
    return {
        "calls_per_second": round(count / took),
        "p50_ms": round(times[count // 2] * 1000, 4),
        "p99_ms": round(times[count * 99 // 100] * 1000, 4),
        "cpu_us_per_call": round(cpu / count * 1e6, 1),
    }


async def main(role: str, host: str, port: str, user: str, password: str, *plan: str) -> None:
    loop = asyncio.get_running_loop()
    if role == "answer":
        _, answerer = await loop.create_connection(lambda: Peer(user, password, SUBJECT), host, int(port))
        await answerer.ready
        print("ready", flush=True)
        await loop.create_future()
    _, asker = await loop.create_connection(lambda: Asker(user, password), host, int(port))
    await asker.ready
    pids = [os.getpid(), *map(int, plan[2].split(","))]
    print(json.dumps(await ask(asker, int(plan[0]), float(plan[1]), pids)), flush=True)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
