// A back end with azure-iothub: each line of input is a call, each `result` line how it ended.
//
// In: {"n", "verb", "args", "connection"?, "retries"?}. Out: `result {"n", "ok"}` or `result {"n", "error": {...}}`.
// The SDK repeats a call that ended with 429, 500 or 503 for up to four minutes, unless `retries` is false.
'use strict';

const readline = require('readline');
const { Client, Registry } = require('azure-iothub');

const own = process.env.IOTHUB_CONNECTION_STRING;
const NO_RETRY = { shouldRetry: () => false, nextRetryTimeout: () => -1 };
const made = new Map();

function once(kind, connectionString, retries) {
  const key = `${kind.name} ${connectionString} ${retries}`;
  if (!made.has(key)) {
    const client = kind.fromConnectionString(connectionString);
    if (kind === Client && !retries) client.setRetryPolicy(NO_RETRY);
    made.set(key, client);
  }
  return made.get(key);
}

async function act({ verb, args, connection = own, retries = false }) {
  if (verb === 'invoke') {
    const [deviceId, moduleId, call] = args;
    const client = once(Client, connection, retries);
    const found = await (moduleId
      ? client.invokeDeviceMethod(deviceId, moduleId, call)
      : client.invokeDeviceMethod(deviceId, call));
    return found.result;
  }
  const registry = once(Registry, connection);
  if (verb === 'removeModule' && args.length === 1) {
    // Given a module, this one works with a callback only.
    return new Promise((resolve, reject) => {
      registry.removeModule(args[0], (error) => (error ? reject(error) : resolve()));
    });
  }
  return (await registry[verb](...args)).responseBody;
}

readline.createInterface({ input: process.stdin }).on('line', async (text) => {
  const line = JSON.parse(text);
  const result = { n: line.n };
  try {
    result.ok = (await act(line)) ?? null;
  } catch (error) {
    result.error = {
      type: error.constructor.name,
      message: error.message,
      status: error.response?.statusCode,
      body: error.responseBody,
      header: error.response?.headers['iothub-errorcode'],
    };
  }
  process.stdout.write('result ' + JSON.stringify(result) + '\n');
});
