// A device on rhea alone, an AMQP library that no IoT SDK is in the way of: it echoes calls in shapes that none sends.
//
// In: DEVICE_OPTIONS {"host", "device", "user"?, "token", "shape"}. Prints `ready`, `request NAME`, `settled`, `closed
// CONDITION`. With a user the token goes into SASL PLAIN, else through $cbs after SASL ANONYMOUS.
'use strict';

const fs = require('fs');
const rhea = require('rhea');

const { host, device, user, token, shape } = JSON.parse(process.env.DEVICE_OPTIONS);
const address = `/devices/${device}/methods/devicebound`;
const container = rhea.create_container();
const bodies = {
  text: (data) => data.toString(),
  pieces: (data) => rhea.message.data_sections([data.subarray(0, 1), data.subarray(1)]),
  data: (data) => rhea.message.data_section(data),
};

function tell(line) {
  process.stdout.write(line + '\n');
}

const connection = container.connect({
  host,
  port: 5671,
  transport: 'tls',
  servername: '',
  ca: fs.readFileSync(process.env.IOTHUB_CA_FILE),
  username: user || 'anybody',
  password: user ? token : undefined,
  reconnect: false,
  idle_time_out: 20000,
  max_frame_size: 1024,
});

let sender;

function listen() {
  // A session for each link, and both links of one name.
  const [first, second] = [connection.create_session(), connection.create_session()];
  first.begin();
  second.begin();
  sender = first.open_sender({ name: 'methods', target: address, snd_settle_mode: 0 });
  const receiver = second.open_receiver({
    name: 'methods', source: address, credit_window: 0, autoaccept: false, autosettle: false,
  });
  sender.on('settled', () => tell('settled'));
  receiver.on('receiver_open', () => {
    receiver.add_credit(1); // one call at a time
    tell('ready');
  });
  receiver.on('message', ({ message, delivery }) => {
    tell(`request ${message.application_properties['IoThub-methodname']}`);
    delivery.release(); // of what is settled already: of no consequence
    sender.send({
      correlation_id: rhea.uuid_to_string(message.correlation_id).toUpperCase(),
      application_properties: { 'IoThub-status': rhea.types.wrap_long(201) },
      body: bodies[shape](message.body.content),
    });
    receiver.add_credit(1);
  });
}

connection.on('connection_open', () => {
  if (user) {
    listen();
    return;
  }
  const replies = connection.open_receiver({ source: '$cbs', target: 'replies' });
  const requests = connection.open_sender('$cbs');
  requests.once('sendable', () => {
    requests.send({
      message_id: 7,
      reply_to: 'replies',
      application_properties: { operation: 'put-token', type: 'servicebus.windows.net:sastoken', name: 'x' },
      body: token,
    });
  });
  replies.once('message', ({ message }) => {
    if (message.application_properties['status-code'] === 200) listen();
    else tell(`closed ${message.application_properties['status-code']}`);
  });
});
for (const event of ['connection_close', 'connection_error', 'disconnected']) {
  connection.on(event, ({ connection: { error } }) => tell(`closed ${error && error.condition}`));
}
