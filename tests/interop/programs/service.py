"""A back end with azure-iot-hub: each line of input is a call, each `result` line how it ended.

In: {"n", "verb", "args", "connection"?}. Out: `result {"n", "ok"}` or `result {"n", "error": {...}}`, in the order in
which they end.
"""

import json
import os
import sys
import threading
from functools import cache
from typing import Any

from azure.iot.hub import IoTHubRegistryManager  # type: ignore[import-untyped]  # it has no types
from azure.iot.hub.models import CloudToDeviceMethod  # type: ignore[import-untyped]  # it has no types

OWN = os.environ["IOTHUB_CONNECTION_STRING"]
writing = threading.Lock()


@cache
def manager(connection_string: str) -> Any:
    return IoTHubRegistryManager.from_connection_string(connection_string)


def invoke(client: Any, device_id: str, module_id: str, call: dict[str, Any]) -> Any:
    method = CloudToDeviceMethod(**call)
    if module_id:
        return client.invoke_device_module_method(device_id, module_id, method)
    return client.invoke_device_method(device_id, method)


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.as_dict() if hasattr(value, "as_dict") else value


def serve(line: dict[str, Any]) -> None:
    result: dict[str, Any] = {"n": line["n"]}
    try:
        client = manager(line.get("connection") or OWN)
        if line["verb"] == "invoke":
            result["ok"] = plain(invoke(client, *line["args"]))
        else:
            result["ok"] = plain(getattr(client, line["verb"])(*line["args"]))
    except Exception as error:  # noqa: BLE001
        response = getattr(error, "response", None)
        result["error"] = {"type": type(error).__name__, "message": str(error)}
        if response is not None:
            header = response.headers.get("iothub-errorcode")
            result["error"] |= {"status": response.status_code, "body": response.text, "header": header}
    with writing:
        sys.stdout.write("result " + json.dumps(result) + "\n")
        sys.stdout.flush()


for text in sys.stdin:
    threading.Thread(target=serve, args=(json.loads(text),), daemon=True).start()
