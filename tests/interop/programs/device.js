// A device or module with azure-iot-device that does what method names and lines of input tell it.
//
// Prints `ready` when it is connected, `request {"name", "payload", "rid"}`, `sent RID`. A payload that the SDK leaves
// undefined is left out. With the option `listen: false` it subscribes to nothing.
'use strict';

const fs = require('fs');
const readline = require('readline');
const { Client, ModuleClient } = require('azure-iot-device');
const { Amqp, AmqpWs } = require('azure-iot-device-amqp');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');

const connectionString = process.env.IOTHUB_DEVICE_CONNECTION_STRING;
const kind = connectionString.includes('ModuleId=') ? ModuleClient : Client;
const transports = { mqtt: Mqtt, 'mqtt-ws': MqttWs, amqp: Amqp, 'amqp-ws': AmqpWs };
const held = new Map();

function tell(line) {
  process.stdout.write(line + '\n');
}

async function send(response, status, payload) {
  await (payload === undefined ? response.send(status) : response.send(status, payload));
  tell(`sent ${response.requestId}`);
}

const methods = {
  echo: (request, response) => send(response, 200, request.payload),
  answer: (request, response) => send(response, request.payload.status, request.payload.payload),
  size: (request, response) => send(response, 200, request.payload.length),
  big: (request, response) => send(response, 200, 'x'.repeat(request.payload - 2)),
  hold: (request, response) => held.set(request.requestId, response),
};

async function main() {
  const { listen: takesCalls = true, transport = 'mqtt', ...options } = JSON.parse(process.env.DEVICE_OPTIONS || '{}');
  const client = kind.fromConnectionString(connectionString, transports[transport]);
  await client.setOptions({ ca: fs.readFileSync(process.env.IOTHUB_CA_FILE, 'utf8'), ...options });
  client.on('disconnect', () => tell('disconnected'));
  client.on('error', (error) => tell(`error ${error}`));
  await client.open();
  const listen = (kind === ModuleClient ? client.onMethod : client.onDeviceMethod).bind(client);
  for (const [name, act] of takesCalls ? Object.entries(methods) : []) {
    listen(name, (request, response) => {
      const seen = { name: request.methodName, payload: request.payload, rid: request.requestId };
      tell('request ' + (name === 'size' ? '{}' : JSON.stringify(seen)));
      act(request, response);
    });
  }
  tell('ready');
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const answer = JSON.parse(line);
  send(held.get(answer.rid), answer.status, answer.payload);
});
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
