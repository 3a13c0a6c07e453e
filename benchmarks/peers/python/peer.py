"""The peer in Python: FastAPI takes the call, aiomqtt hands it to Mosquitto, which holds the devices.

No token is checked. Mosquitto hands a PUBLISH to each subscriber of its topic: here each device has one of
its own.
"""

import argparse
import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiomqtt
import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response

ANSWERS = "devices/+/methods/res/#"


class Body(msgspec.Struct):
    methodName: str  # noqa: N815 - the wire's name
    payload: msgspec.Raw


decoder = msgspec.json.Decoder(Body)
waiting: dict[str, asyncio.Future[bytes]] = {}
rids = itertools.count(1)


async def settle(mqtt: aiomqtt.Client) -> None:
    async for message in mqtt.messages:
        topic = message.topic.value
        future = waiting.pop(topic.rpartition("$rid=")[2], None)
        if future and not future.done():
            status = topic.split("/", 5)[4].encode()
            future.set_result(b'{"status":%b,"payload":%b}' % (status, message.payload))


def application(broker: str, port: int) -> FastAPI:
    quiet = logging.getLogger("aiomqtt")
    quiet.setLevel(logging.ERROR)  # it warns of each call beyond ten at once, and that is the load

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with aiomqtt.Client(broker, port, logger=quiet) as app.state.mqtt:
            await app.state.mqtt.subscribe(ANSWERS)
            reading = asyncio.create_task(settle(app.state.mqtt))
            yield
            reading.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/twins/{device}/methods")
    async def call(device: str, request: Request) -> Response:
        body = decoder.decode(await request.body())
        rid = f"{next(rids):x}"
        waiting[rid] = future = asyncio.get_running_loop().create_future()
        topic = f"devices/{device}/methods/POST/{body.methodName}/?$rid={rid}"
        await app.state.mqtt.publish(topic, bytes(body.payload), timeout=30)
        answer = await asyncio.wait_for(future, 30)
        return Response(answer, media_type="application/json")

    return app


def main() -> None:
    arguments = argparse.ArgumentParser()
    for name, kind in (("host", str), ("http-port", int), ("broker-port", int), ("certificate", str), ("key", str)):
        arguments.add_argument(f"--{name}", type=kind)
    given = arguments.parse_args()
    uvicorn.run(
        application(given.host, given.broker_port),
        host=given.host,
        port=given.http_port,
        loop="uvloop",
        http="httptools",
        ssl_certfile=given.certificate,
        ssl_keyfile=given.key,
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
