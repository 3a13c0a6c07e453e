"""The protocols that devices may speak in this installation, by the names of their WebSocket subprotocols."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from methodhub.device.mqtt import MqttConnection
from methodhub.device.services import DeviceServices
from methodhub.net.stream import ByteStream

MQTT = "mqtt"
AMQP = "amqpwsb10"

WITHOUT_AMQP = (
    "AMQP is off: Apache Qpid Proton is not installed, which needs a C compiler. Devices over AMQP cannot connect; "
    "MQTT is not touched. To have it: pip install 'methodhub[amqp]'"
)

Factory = Callable[[ByteStream], asyncio.Protocol]


def device_protocols(services: DeviceServices) -> dict[str, Factory]:
    """MQTT always; AMQP where its engine is installed, which comes as source."""
    protocols: dict[str, Factory] = {MQTT: lambda stream: MqttConnection(services, stream)}
    try:
        from methodhub.device.amqp import AmqpConnection  # noqa: PLC0415 - it may not be there
    except ImportError:
        return protocols
    protocols[AMQP] = lambda stream: AmqpConnection(services, stream)
    return protocols
