// A back end with azure-iothub: each line of input is a call, each `result` line how it ended.
//
// In: {"n", "verb", "args", "connection"?, "retries"?, "transport"?}. Out: `result {"n", "ok"}` or `result {"n", "error": {...}}`.
// With `on` it is a method of Registry, JobClient, or of a twin or query that `keep` gave a name before; `style`:
// `callback`, else a promise. The verb `methods` lists the public methods of Registry, JobClient, Twin or Query.
// The SDK repeats a call that ended with 429, 500 or 503 for up to four minutes, unless `retries` is false.
'use strict';

const readline = require('readline');
const { Message } = require('azure-iot-common');
const { Amqp, AmqpWs, Client, JobClient, Registry } = require('azure-iothub');
const { Query } = require('azure-iothub/dist/query');
const { Twin } = require('azure-iothub/dist/twin');

const own = process.env.IOTHUB_CONNECTION_STRING;
const NO_RETRY = { shouldRetry: () => false, nextRetryTimeout: () => -1 };
const transports = { amqp: Amqp, 'amqp-ws': AmqpWs };
const made = new Map();
const kept = new Map();
const kinds = { Registry, JobClient, Query, Twin };

function once(kind, connectionString, retries, transport = 'amqp') {
  const key = `${kind.name} ${connectionString} ${retries} ${transport}`;
  if (!made.has(key)) {
    const client = kind.fromConnectionString(connectionString, ...(kind === Client ? [transports[transport]] : []));
    if (kind === Client && !retries) client.setRetryPolicy(NO_RETRY);
    made.set(key, client);
  }
  return made.get(key);
}

const overAmqp = {
  open: (client) => client.open().then(() => null),
  send: (client, deviceId, text) => client.send(deviceId, new Message(text)).then(() => null),
  feedback: (client) => client.getFeedbackReceiver().then(() => null),
  close: (client) => client.close().then(() => null),
};

// As the SDK's own classes: what was written in JSON as {"$": "Date", "at": "..."} is a date.
const revived = (args) => args.map((each) => (each?.$ === 'Date' ? new Date(each.at) : each));

async function actOn({ on, verb, args, style, keep, connection = own }) {
  if (verb === 'methods') {
    return Object.getOwnPropertyNames(kinds[on].prototype).filter((name) => !/^(_|constructor$)/.test(name));
  }
  const target = kept.get(on) ?? once(kinds[on], connection);
  let found;
  if (style === 'callback') {
    found = await new Promise((resolve, reject) => {
      target[verb](...revived(args), (error, result) => (error ? reject(error) : resolve(result)));
    });
  } else {
    found = await target[verb](...revived(args));
    for (const name of ['responseBody', 'jobStatus', 'result']) if (found && name in found) found = found[name];
  }
  if (keep) kept.set(keep, found);
  if (found instanceof Query) return { more: found.hasMoreResults };
  const types = [found].flat().map((each) => each?.constructor.name);
  if (!(target instanceof Query)) return found;
  return { items: found, types, more: target.hasMoreResults, token: target.continuationToken ?? null };
}

async function act({ verb, args, connection = own, retries = false, transport }) {
  if (verb in overAmqp) return overAmqp[verb](once(Client, connection, retries, transport), ...args);
  if (verb === 'invoke') {
    const [deviceId, moduleId, call] = args;
    const client = once(Client, connection, retries, transport);
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
    result.ok = (await (line.on ? actOn(line) : act(line))) ?? null;
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
