"""A device that answers every method call with what it was sent. Its connection string and the path of the hub's CA
certificate come from the environment."""

import contextlib
import os
import threading
from pathlib import Path

from azure.iot.device import IoTHubDeviceClient, MethodRequest, MethodResponse

client = IoTHubDeviceClient.create_from_connection_string(
    os.environ["IOTHUB_DEVICE_CONNECTION_STRING"],
    server_verification_cert=Path(os.environ["IOTHUB_CA_FILE"]).read_text(),
)


def answer(request: MethodRequest) -> None:
    print(f"device: {request.name}({request.payload!r})", flush=True)
    payload = {"method": request.name, "received": request.payload}
    client.send_method_response(MethodResponse.create_from_method_request(request, 200, payload))


client.on_method_request_received = answer
print("device: connected and listening", flush=True)
with contextlib.suppress(KeyboardInterrupt):
    threading.Event().wait()
