// A back end that tells a device to reboot, with azure-iothub.
//
// From the environment: IOTHUB_CONNECTION_STRING, IOTHUB_DEVICE_ID, and NODE_EXTRA_CA_CERTS, the path of the hub's CA
// certificate (`methodhub ca`).
'use strict';

const { Client } = require('azure-iothub');

async function main() {
  const client = Client.fromConnectionString(process.env.IOTHUB_CONNECTION_STRING);
  console.log('Invoking device to reboot...');
  const { result } = await client.invokeDeviceMethod(process.env.IOTHUB_DEVICE_ID, {
    methodName: 'rebootDevice',
    payload: { method_number: '42' },
    responseTimeoutInSeconds: 60,
    connectTimeoutInSeconds: 10,
  });
  console.log('The device has returned this:');
  console.log(JSON.stringify(result));
}

main().catch((error) => {
  console.error(`Unexpected error ${error}: ${error.responseBody}`);
  process.exit(1);
});
