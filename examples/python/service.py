"""A back end that tells a device to reboot, with azure-iot-hub.

From the environment: IOTHUB_CONNECTION_STRING, IOTHUB_DEVICE_ID, and REQUESTS_CA_BUNDLE, the path of the hub's CA
certificate (`methodhub ca`).
"""

import os

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod, CloudToDeviceMethodResult  # noqa: F401

# Connect to IoT hub
IOTHUB_CONNECTION_STRING = os.environ["IOTHUB_CONNECTION_STRING"]
registry_manager = IoTHubRegistryManager.from_connection_string(IOTHUB_CONNECTION_STRING)

CONNECTION_STRING = IOTHUB_CONNECTION_STRING
DEVICE_ID = os.environ["IOTHUB_DEVICE_ID"]

METHOD_NAME = "rebootDevice"
METHOD_PAYLOAD = '{"method_number":"42"}'
TIMEOUT = 60
WAIT_COUNT = 10


def invoke() -> None:
    try:
        print("")
        print("Invoking device to reboot...")

        # Call the direct method.
        deviceMethod = CloudToDeviceMethod(method_name=METHOD_NAME, payload=METHOD_PAYLOAD)  # noqa: N806
        response = registry_manager.invoke_device_method(DEVICE_ID, deviceMethod)

        print("Successfully invoked the device to reboot.")

        print("The device has returned this payload:")
        print(response.payload)

    except Exception as ex:  # noqa: BLE001
        print("")
        print("Unexpected error {0}".format(ex))  # noqa: UP030, UP032
        return


invoke()
