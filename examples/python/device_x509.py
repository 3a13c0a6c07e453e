"""A device that can be told to reboot, with azure-iot-device, and proves itself by a certificate (X.509).

From the environment: IOTHUB_HOSTNAME, IOTHUB_DEVICE_ID; IOTHUB_CERTIFICATE_FILE and IOTHUB_KEY_FILE, the paths of the
device's certificate (with the intermediates of its CA, if there are any) and key; and IOTHUB_CA_FILE, the path of the
hub's CA certificate (`methodhub ca`).

But for that, the statements are those of the original's how-to, which end once the handler is attached, and the SDK's
threads with them. Run it with `python -i`: the device then answers until that interpreter is left.
"""

import os
import time

# import the device client library
from azure.iot.device import X509, IoTHubDeviceClient, MethodResponse

x509 = X509(cert_file=os.environ["IOTHUB_CERTIFICATE_FILE"], key_file=os.environ["IOTHUB_KEY_FILE"])
with open(os.environ["IOTHUB_CA_FILE"]) as ca_file:  # noqa: PTH123
    client = IoTHubDeviceClient.create_from_x509_certificate(
        x509,
        hostname=os.environ["IOTHUB_HOSTNAME"],
        device_id=os.environ["IOTHUB_DEVICE_ID"],
        server_verification_cert=ca_file.read(),
    )


# Define the handler for method requests
def method_request_handler(method_request):
    if method_request.name == "rebootDevice":
        # Act on the method by rebooting the device
        print("Rebooting device")
        time.sleep(20)
        print("Device rebooted")
        # Create a method response indicating the method request was resolved
        resp_status = 200
        resp_payload = {"Response": "This is the response from the device"}
        method_response = MethodResponse(method_request.request_id, resp_status, resp_payload)
    else:
        # Create a method response indicating the method request was for an unknown method
        resp_status = 404
        resp_payload = {"Response": "Unknown method"}
        method_response = MethodResponse(method_request.request_id, resp_status, resp_payload)

    # Send the method response
    client.send_method_response(method_response)


try:
    # Attach the handler to the client
    client.on_method_request_received = method_request_handler
except:  # noqa: E722
    # In the event of failure, clean up
    client.shutdown()
