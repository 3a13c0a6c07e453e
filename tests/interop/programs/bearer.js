// A back end with azure-iothub and a token credential: as bearer.py, and `open` over AMQP.
'use strict';

const { Amqp, Client, JobClient, Registry } = require('azure-iothub');

const host = process.env.IOTHUB_HOST;
const credential = {
  getToken: async (scope) => {
    if (scope !== 'https://iothubs.azure.net/.default') throw new Error(`scope ${scope}`);
    return { token: process.env.BEARER_TOKEN, expiresOnTimestamp: Date.now() + 3600e3 };
  },
};

const registry = Registry.fromTokenCredential(host, credential);
const client = Client.fromTokenCredential(host, credential, Amqp);
const jobs = JobClient.fromTokenCredential(host, credential);

const steps = {
  invoke: async () => (await client.invokeDeviceMethod('d1', { methodName: 'echo', payload: 7 })).result.payload,
  read: async () => (await registry.get('d1')).responseBody.deviceId,
  twin: async () => (await registry.getTwin('d1')).responseBody.deviceId,
  write: async () => (await registry.create({ deviceId: 'd3' })).responseBody.deviceId,
  job: () => jobs.getJob('none'),
  open: async () => {
    await client.open();
    await client.close();
    return 'opened';
  },
};

(async () => {
  for (const [name, work] of Object.entries(steps)) {
    let result;
    try {
      result = { ok: await work() };
    } catch (error) {
      result = { status: error.response?.statusCode ?? String(error) };
    }
    console.log('result', JSON.stringify({ name, ...result }));
  }
})();
