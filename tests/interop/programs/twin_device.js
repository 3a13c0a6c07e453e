// A device or module with azure-iot-device that reads and reports its twin as lines of input tell it.
//
// In: {"verb": "get"} or {"verb": "report", "patch"}. Out: `ready`, `result JSON` for each line, `desired JSON` for each
// patch of desired properties: at the first one all there are, since the SDK tells those, too.
'use strict';

const fs = require('fs');
const readline = require('readline');
const { Client, ModuleClient } = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const connectionString = process.env.IOTHUB_DEVICE_CONNECTION_STRING;
const kind = connectionString.includes('ModuleId=') ? ModuleClient : Client;
const transports = { mqtt: Mqtt, 'mqtt-ws': MqttWs, amqp: Amqp, 'amqp-ws': AmqpWs };

const tell = (line) => process.stdout.write(line + '\n');
const report = (twin, patch) =>
  new Promise((resolve, reject) => {
    twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve(null)));
  });

async function main() {
  const { transport = 'mqtt', ...options } = JSON.parse(process.env.DEVICE_OPTIONS || '{}');
  const client = kind.fromConnectionString(connectionString, transports[transport]);
  await client.setOptions({ ca: fs.readFileSync(process.env.IOTHUB_CA_FILE, 'utf8'), ...options });
  await client.open();
  const twin = await client.getTwin();
  twin.on('properties.desired', (patch) => tell('desired ' + JSON.stringify(patch)));
  readline.createInterface({ input: process.stdin }).on('line', async (text) => {
    const line = JSON.parse(text);
    let result;
    try {
      if (line.verb === 'get') {
        await twin.get();
        result = { desired: twin.properties.desired, reported: twin.properties.reported };
      } else {
        result = await report(twin, line.patch);
      }
    } catch (error) {
      result = { error: `${error.constructor.name} ${error.message}` };
    }
    tell('result ' + JSON.stringify(result));
  });
  tell('ready');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
