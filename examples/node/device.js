// A device that can be told to reboot, with azure-iot-device over MQTT.
//
// From the environment: IOTHUB_DEVICE_CONNECTION_STRING, and IOTHUB_CA_FILE, the path of the hub's CA certificate
// (`methodhub ca`).
'use strict';

const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

async function rebootDevice(request, response) {
  console.log(`Rebooting device, told ${JSON.stringify(request.payload)}`);
  await new Promise((rebooted) => setTimeout(rebooted, 2000));
  console.log('Device rebooted');
  await response.send(200, { Response: 'This is the response from the device' });
}

async function main() {
  const client = Client.fromConnectionString(process.env.IOTHUB_DEVICE_CONNECTION_STRING, Mqtt);
  await client.setOptions({ ca: process.env.IOTHUB_CA_FILE });
  await client.open();
  client.onDeviceMethod('rebootDevice', rebootDevice);
  console.log('Connected and listening');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
