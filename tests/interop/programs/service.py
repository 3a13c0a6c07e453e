"""A back end with azure-iot-hub: each line of input is a call, each `result` line how it ended.

In: {"n", "verb", "args", "on"?, "connection"?}; `on`: whose method it is, by default `IoTHubRegistryManager`'s; an
argument {"$": "Twin", ...} is built as that model. Out: `result {"n", "ok"}` or `result {"n", "error": {...}}`, in the
order in which they end. The verb `methods` lists the public methods of `on`.
"""

import json
import os
import sys
import threading
from functools import cache
from typing import Any

from azure.iot import hub
from azure.iot.hub import models  # type: ignore[import-untyped]  # it has no types
from azure.iot.hub.models import CloudToDeviceMethod  # type: ignore[import-untyped]  # it has no types

OWN = os.environ["IOTHUB_CONNECTION_STRING"]
writing = threading.Lock()


@cache
def manager(kind: str, connection_string: str) -> Any:
    return getattr(hub, kind).from_connection_string(connection_string)


def built(value: Any) -> Any:
    """An argument, with its models."""
    if isinstance(value, list):
        return [built(each) for each in value]
    if isinstance(value, dict) and "$" in value:
        return getattr(models, value["$"])(**{name: built(each) for name, each in value.items() if name != "$"})
    return value


def invoke(client: Any, device_id: str, module_id: str, call: dict[str, Any]) -> Any:
    method = CloudToDeviceMethod(**call)
    if module_id:
        return client.invoke_device_module_method(device_id, module_id, method)
    return client.invoke_device_method(device_id, method)


def plain(value: Any) -> Any:
    """A result as JSON; what its model does not know stands beside what it knows."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if type(value).__name__ == "QueryResult":  # there are two of this name
        names = ("type", "continuation_token", "items")
        return {name: plain(getattr(value, name)) for name in names if getattr(value, name) is not None}
    if not hasattr(value, "as_dict"):
        return value
    return value.as_dict() | (value.additional_properties or {})


def serve(line: dict[str, Any]) -> None:
    result: dict[str, Any] = {"n": line["n"]}
    try:
        kind = line.get("on", "IoTHubRegistryManager")
        client = manager(kind, line.get("connection") or OWN)
        if line["verb"] == "methods":
            result["ok"] = [name for name in dir(client) if callable(getattr(client, name)) and name[0] != "_"]
        elif line["verb"] == "invoke":
            result["ok"] = plain(invoke(client, *line["args"]))
        else:
            result["ok"] = plain(getattr(client, line["verb"])(*map(built, line["args"])))
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
