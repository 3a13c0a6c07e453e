"""The floor: what uvloop, httptools and msgspec cost for one call, with no feature at all.

No token, registry, limits, timeouts, log or metrics. A hub in Python cannot be faster than this.
"""

import argparse
import asyncio
import itertools
import ssl
from typing import Any

import httptools
import msgspec
import uvloop


class Body(msgspec.Struct):
    methodName: str  # noqa: N815 - the wire's name
    payload: msgspec.Raw


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
decoder = msgspec.json.Decoder(Body)
devices: dict[bytes, asyncio.Transport] = {}
waiting: dict[bytes, asyncio.Transport] = {}
rids = itertools.count(1)


def length(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 127 | 128, n >> 7])


class Reader(asyncio.BufferedProtocol):
    """Reads into one buffer for all: uvloop's TLS else allocates 256 KB, page by page, for each read."""

    shared = memoryview(bytearray(65536))

    def get_buffer(self, hint: int) -> memoryview:
        return self.shared

    def buffer_updated(self, size: int) -> None:
        self.data_received(bytes(self.shared[:size]))


class Http(Reader):
    def connection_made(self, transport: Any) -> None:
        self.transport, self.parser = transport, httptools.HttpRequestParser(self)
        self.url = self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        request = decoder.decode(self.body)
        self.body = b""
        rid = b"%x" % next(rids)
        waiting[rid] = self.transport
        topic = b"$iothub/methods/POST/%b/?$rid=%b" % (request.methodName.encode(), rid)
        packet = len(topic).to_bytes(2, "big") + topic + request.payload
        devices[self.url.split(b"/", 3)[2]].write(b"\x30" + length(len(packet)) + packet)


class Mqtt(Reader):
    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        while len(data) > 1:
            size, head = data[1], 2
            if size & 128:
                if len(data) < 3:
                    break
                size, head = size & 127 | data[2] << 7, 3
            if len(data) < head + size:
                break
            self.packet(data[0], data[head : head + size])
            data = data[head + size :]
        self.buffer = data

    def packet(self, kind: int, body: bytes) -> None:
        if kind >> 4 == 3:
            topic_end = 2 + (body[0] << 8 | body[1])
            topic = body[2:topic_end]
            status, rid = topic[20 : topic.index(b"/", 20)], topic[topic.index(b"$rid=") + 5 :]
            reply = b'{"status":%b,"payload":%b}' % (status, body[topic_end:])
            waiting.pop(rid).write(HEAD % len(reply) + reply)
        elif kind == 0x10:
            devices[body[12 : 12 + (body[10] << 8 | body[11])]] = self.transport
            self.transport.write(b"\x20\x02\x00\x00")
        elif kind == 0x82:
            self.transport.write(b"\x90\x03" + body[:2] + b"\x00")


async def main() -> None:
    arguments = argparse.ArgumentParser()
    for name, kind in (("host", str), ("http-port", int), ("mqtt-port", int), ("certificate", str), ("key", str)):
        arguments.add_argument(f"--{name}", type=kind)
    given = arguments.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if given.certificate else None
    if context:
        context.load_cert_chain(given.certificate, given.key)
    loop = asyncio.get_running_loop()
    await loop.create_server(Http, given.host, given.http_port, ssl=context, backlog=1024)
    await loop.create_server(Mqtt, given.host, given.mqtt_port, ssl=context, backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
