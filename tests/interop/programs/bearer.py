"""A back end with azure-iot-hub and a token credential: does what its arguments say, prints one line of JSON for each.

The token is in BEARER_TOKEN; any object with get_token is a credential to the SDK.
"""

import json
import os
import time

from azure.core.credentials import AccessToken
from azure.iot.hub import IoTHubJobManager, IoTHubRegistryManager  # type: ignore[import-untyped]  # it has no types
from azure.iot.hub.models import CloudToDeviceMethod  # type: ignore[import-untyped]  # it has no types

HOST = os.environ["IOTHUB_HOST"]


class Credential:
    def get_token(self, *scopes: str, **_more: object) -> AccessToken:
        assert scopes == ("https://iothubs.azure.net/.default",)
        return AccessToken(os.environ["BEARER_TOKEN"], int(time.time()) + 3600)


registry = IoTHubRegistryManager.from_token_credential(HOST, Credential())
jobs = IoTHubJobManager.from_token_credential(HOST, Credential())
for name, work in (
    ("invoke", lambda: registry.invoke_device_method("d1", CloudToDeviceMethod(method_name="echo", payload=7)).payload),
    ("read", lambda: registry.get_device("d1").device_id),
    ("twin", lambda: registry.get_twin("d1").device_id),
    ("write", lambda: registry.create_device_with_sas("d2", "", "", "enabled").device_id),
    ("job", lambda: jobs.get_scheduled_job("none")),
):
    try:
        result = {"ok": work()}  # type: ignore[no-untyped-call]  # the SDK has no types
    except Exception as error:  # noqa: BLE001
        result = {"status": error.response.status_code}  # type: ignore[attr-defined]  # of msrest
    print("result", json.dumps({"name": name, **result}), flush=True)
