"""A device or module with azure-iot-device that reads and reports its twin as lines of input tell it.

In: {"verb": "get"} or {"verb": "report", "patch"}. Out: `ready`, `result JSON` for each line, `desired JSON` for each
patch of desired properties.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient

connection_string = os.environ["IOTHUB_DEVICE_CONNECTION_STRING"]
options = json.loads(os.environ.get("DEVICE_OPTIONS", "{}"))
options["server_verification_cert"] = Path(os.environ["IOTHUB_CA_FILE"]).read_text()
options["websockets"] = options.pop("transport", "mqtt") == "mqtt-ws"
kind = IoTHubModuleClient if "ModuleId=" in connection_string else IoTHubDeviceClient
client: Any = kind.create_from_connection_string(connection_string, **options)


telling = threading.Lock()


def tell(line: str) -> None:
    with telling:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


client.connect()
client.on_twin_desired_properties_patch_received = lambda patch: tell("desired " + json.dumps(patch))
tell("ready")
for text in sys.stdin:
    line = json.loads(text)
    try:
        result = client.get_twin() if line["verb"] == "get" else client.patch_twin_reported_properties(line["patch"])
    except Exception as error:  # noqa: BLE001
        result = {"error": f"{type(error).__name__} {error} {error.__cause__}"}
    tell("result " + json.dumps(result))
