"""A device or module with azure-iot-device that does what method names and lines of input tell it.

Prints `ready`, `request {"name", "payload", "rid"}`, `connected`, `disconnected`, `sent RID`.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from azure.iot.device import X509, IoTHubDeviceClient, IoTHubModuleClient, MethodRequest, MethodResponse


def build() -> Any:
    connection_string = os.environ["IOTHUB_DEVICE_CONNECTION_STRING"]
    kind = IoTHubModuleClient if "ModuleId=" in connection_string else IoTHubDeviceClient
    options = json.loads(os.environ.get("DEVICE_OPTIONS", "{}"))
    options["server_verification_cert"] = Path(os.environ["IOTHUB_CA_FILE"]).read_text()
    options["websockets"] = options.pop("transport", "mqtt") == "mqtt-ws"
    if "x509=true" not in connection_string:
        return kind.create_from_connection_string(connection_string, **options)
    parts = dict(part.split("=", 1) for part in connection_string.split(";"))
    names = {"device_id": parts["DeviceId"]} | ({"module_id": parts["ModuleId"]} if "ModuleId" in parts else {})
    x509 = X509(cert_file=options.pop("cert"), key_file=options.pop("key"))  # type: ignore[no-untyped-call]  # it has no types
    return kind.create_from_x509_certificate(x509, hostname=parts["HostName"], **names, **options)


client = build()


telling = threading.Lock()


def tell(line: str) -> None:
    with telling:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def send(rid: str, status: int, payload: Any) -> None:
    client.send_method_response(MethodResponse(rid, status, payload))
    tell(f"sent {rid}")


def on_request(request: MethodRequest) -> None:
    seen = {"name": request.name, "payload": request.payload, "rid": request.request_id}
    tell("request " + json.dumps(seen) if request.name != "size" else "request {}")
    payload: Any = request.payload
    if request.name == "echo":
        send(request.request_id, 200, payload)
    elif request.name == "answer":
        send(request.request_id, payload["status"], payload.get("payload"))
    elif request.name == "size":
        send(request.request_id, 200, len(payload))
    elif request.name == "big":
        send(request.request_id, 200, "x" * (payload - 2))
    elif request.name != "hold":
        send(request.request_id, 404, {"Response": "Unknown method"})


client.on_connection_state_change = lambda: tell("connected" if client.connected else "disconnected")
client.on_method_request_received = on_request
tell("ready")
for line in sys.stdin:
    answer = json.loads(line)
    send(answer["rid"], answer["status"], answer.get("payload"))
